//! Splitting a logical line into keyword, flags and words.

use crate::source::{Span, Word};

/// Keyword, flags and the rest of a line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Split {
    pub(crate) keyword: Word,
    /// Flags with quotes removed; each begins with `--`.
    pub(crate) flags: Vec<Word>,
    /// What follows the flags, trimmed.
    pub(crate) rest: Word,
}

/// White space between words within a line (Go's `[\t\v\f\r ]`).
pub(crate) const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

/// Splits a line whose text begins at `offset` of the logical line.
pub(crate) fn split(text: &str, offset: usize, escape: char) -> Split {
    let trimmed = text.trim();
    let start = offset + (text.len() - text.trim_start().len());
    let end = trimmed.find(BLANKS).unwrap_or(trimmed.len());
    let keyword = Word::new(&trimmed[..end], Span::new(start, start + end));
    let after = &trimmed[end..];
    let (flags, used) = flags(after, start + end, escape);
    let rest = after[used..].trim();
    let rest_start = start + end + used + (after[used..].len() - after[used..].trim_start().len());
    let rest = Word::new(rest, Span::new(rest_start, rest_start + rest.len()));
    Split { keyword, flags, rest }
}

/// Reads leading words that begin with `--`; returns them and the number of bytes they took.
fn flags(text: &str, offset: usize, escape: char) -> (Vec<Word>, usize) {
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if !text[at..].starts_with("--") {
            return (flags, at);
        }
        let (word, quoted, used) = flag(&text[at..], escape);
        let span = Span::new(offset + at, offset + at + used);
        at += used;
        if word == "--" && !quoted {
            return (flags, at);
        }
        flags.push(Word::new(word, span));
    }
}

/// Reads one flag up to white space outside of quotes.
fn flag(text: &str, escape: char) -> (String, bool, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut quoted = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, quoted, at),
            None if c == '\'' || c == '"' => (quote, quoted) = (Some(c), true),
            Some(q) if c == q => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, next)| next)),
            _ => word.push(c),
        }
    }
    (word, quoted, text.len())
}

/// Splits at white space outside of quotes; quotes and escapes stay.
pub(crate) fn quoted_words(rest: &Word, escape: char) -> Vec<Word> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = rest.text.char_indices();
    let word = |from: usize, to: usize| {
        // An escape character at the very end escapes nothing and is dropped.
        let text = &rest.text[from..to];
        let text = if to == rest.text.len() && ends_escaped(text, escape) {
            &text[..text.len() - escape.len_utf8()]
        } else {
            text
        };
        (!text.is_empty()).then(|| Word::new(text, Span::new(from, to).shifted(rest.span.start)))
    };
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                words.extend(start.take().and_then(|from| word(from, at)));
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (q, c) if c == escape && q != Some('\'') => drop(chars.next()),
            _ => {}
        }
        start.get_or_insert(at);
    }
    words.extend(start.and_then(|from| word(from, rest.text.len())));
    words
}

/// Whether the last character is an escape that is not escaped itself.
fn ends_escaped(text: &str, escape: char) -> bool {
    text.chars().rev().take_while(|c| *c == escape).count() % 2 == 1
}

/// Splits at white space, quotes being nothing special.
pub(crate) fn plain_words(rest: &Word) -> Vec<Word> {
    let mut words = Vec::new();
    let mut at = 0;
    for text in rest.text.split(BLANKS) {
        if !text.is_empty() {
            words.push(Word::new(text, Span::new(at, at + text.len()).shifted(rest.span.start)));
        }
        at += text.len() + 1;
    }
    words
}
