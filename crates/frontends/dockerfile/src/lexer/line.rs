//! A logical line: physical lines joined at their continuations.

use super::heredoc::Heredoc;
use crate::source::Span;

/// A logical line, and where its parts stand in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    /// The physical lines joined, continuation characters and comments left out.
    pub text: String,
    /// First physical line, from 1.
    pub first: u32,
    /// Last physical line, from 1, heredocs included.
    pub last: u32,
    /// Bodies that follow the line.
    pub heredocs: Vec<Heredoc>,
    /// Comment lines directly above, without `#`.
    pub comments: Vec<String>,
    pieces: Vec<Piece>,
}

/// Where a physical line's text begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    offset: usize,
    line: u32,
    column: u32,
}

impl Line {
    /// Appends the text of a physical line whose first character stands at `column`.
    pub(crate) fn push(&mut self, text: &str, line: u32, column: u32) {
        self.pieces.push(Piece { offset: self.text.len(), line, column });
        self.text.push_str(text);
    }

    /// Moves the line to a place of another file: parts of it can no longer be pointed at.
    pub(crate) fn pin(&mut self, first: u32, last: u32) {
        (self.first, self.last) = (first, last);
        self.pieces.clear();
    }

    /// Returns physical line, column and width of a part, in characters; the part ends with its
    /// physical line.
    pub(crate) fn locate(&self, span: Span) -> Option<(u32, u32, u32)> {
        let index = self.pieces.iter().rposition(|p| p.offset <= span.start)?;
        let piece = self.pieces[index];
        let end = self.pieces.get(index + 1).map_or(self.text.len(), |next| next.offset);
        let before = self.text.get(piece.offset..span.start)?.chars().count();
        let inside = self.text.get(span.start..span.end.min(end).max(span.start))?;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX / 2);
        Some((piece.line, piece.column + count(before), count(inside.trim_end().chars().count())))
    }
}
