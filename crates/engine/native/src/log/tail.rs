//! The last lines of a step, for the message of its failure.

use std::collections::VecDeque;

use ashlar_core::failure::LAST_LINES_MAX;
use ashlar_core::journal::LogLine;

/// A quoted line is cut to this many characters.
const LINE_CHARS_MAX: usize = 500;

/// Remembers the last few lines.
#[derive(Debug, Default)]
pub struct Tail(VecDeque<String>);

impl Tail {
    /// Takes a line.
    pub fn push(&mut self, line: &LogLine) {
        if self.0.len() == LAST_LINES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(line.text.chars().take(LINE_CHARS_MAX).collect());
    }

    /// Returns the lines, oldest first.
    pub fn into_lines(self) -> Vec<String> {
        self.0.into()
    }
}
