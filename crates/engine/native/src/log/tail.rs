//! The last lines of a step, for the message of its failure.

use std::collections::VecDeque;

use ashlar_core::failure::LAST_LINES_MAX;
use ashlar_core::journal::LogText;

/// A quoted line is cut to this many characters.
const LINE_CHARS_MAX: usize = 500;
/// The longest character of UTF-8, in bytes.
const MAX_CHAR_BYTES: usize = 4;

/// Remembers the last few lines.
#[derive(Debug, Default)]
pub struct Tail(VecDeque<String>);

impl Tail {
    /// Takes some lines.
    pub fn push(&mut self, text: &LogText) {
        let bytes = text.bytes.strip_suffix(b"\n").unwrap_or(&text.bytes);
        // Of a text of many lines only the last ones are looked at.
        let mut last: Vec<&[u8]> = bytes.rsplit(|b| *b == b'\n').take(LAST_LINES_MAX).collect();
        last.reverse();
        for line in last {
            if self.0.len() == LAST_LINES_MAX {
                self.0.pop_front();
            }
            let line = &line[..line.len().min(LINE_CHARS_MAX * MAX_CHAR_BYTES)];
            let line = String::from_utf8_lossy(line);
            self.0.push_back(line.chars().take(LINE_CHARS_MAX).collect());
        }
    }

    /// Returns the lines, oldest first.
    pub fn into_lines(self) -> Vec<String> {
        self.0.into()
    }
}
