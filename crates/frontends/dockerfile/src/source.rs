//! The text of a Dockerfile, for messages, and problems that wait for their place.

use ashlar_core::frontend::{Diagnostic, Location};

use crate::lexer::Line;

/// A range of bytes in the text of a [`Line`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
}

impl Span {
    /// Makes a range.
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// Returns the range moved to the right.
    #[must_use]
    pub const fn shifted(self, by: usize) -> Self {
        Self { start: self.start + by, end: self.end + by }
    }
}

/// A word of an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// Its text, quotes and escapes as the instruction's rules leave them.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

impl Word {
    /// Makes a word.
    pub fn new(text: impl Into<String>, span: Span) -> Self {
        Self { text: text.into(), span }
    }
}

/// What is wrong with an instruction, before file and line are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) span: Option<Span>,
    pub(crate) hint: Option<String>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), span: None, hint: None }
    }

    /// Says where, unless that is known already.
    pub(crate) fn at(mut self, span: Span) -> Self {
        self.span = self.span.or(Some(span));
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = self.hint.or(hint);
        self
    }
}

/// A Dockerfile's name and lines.
#[derive(Debug, Clone)]
pub(crate) struct SourceText {
    name: String,
    lines: Vec<String>,
}

impl SourceText {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.split('\n').map(|l| l.trim_end_matches('\r').to_owned()).collect();
        Self { name: name.to_owned(), lines }
    }

    /// Returns the place of a whole instruction.
    pub(crate) fn whole(&self, line: &Line) -> Location {
        self.lines_at(line.first, line.last)
    }

    pub(crate) fn lines_at(&self, line: u32, end_line: u32) -> Location {
        Location { file: self.name.clone(), line, end_line, column: 0, end_column: 0 }
    }

    /// Returns the place of a part of an instruction.
    pub(crate) fn part(&self, line: &Line, span: Span) -> Location {
        let Some((at, column, width)) = line.locate(span) else { return self.whole(line) };
        Location {
            file: self.name.clone(),
            line: at,
            end_line: line.last.max(at),
            column,
            end_column: column + width,
        }
    }

    /// Gives a problem its place.
    pub(crate) fn diagnose(&self, line: &Line, problem: Problem) -> Box<Diagnostic> {
        let place = problem.span.map_or_else(|| self.whole(line), |s| self.part(line, s));
        Box::new(self.at(place, problem))
    }

    /// Gives a problem a place that is known by lines only.
    pub(crate) fn diagnose_lines(
        &self,
        first: u32,
        last: u32,
        problem: Problem,
    ) -> Box<Diagnostic> {
        Box::new(self.at(self.lines_at(first, last), problem))
    }

    fn at(&self, place: Location, problem: Problem) -> Diagnostic {
        let text = self.lines.get(place.line.saturating_sub(1) as usize).cloned();
        let mut diagnostic = Diagnostic::new(problem.message).at(place, text.unwrap_or_default());
        diagnostic.hint = problem.hint;
        diagnostic
    }
}
