//! Here-documents: which words of a line open one, and what their bodies are.

use crate::expand::{self, Nothing, Options};

/// A heredoc with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// Whether variables of the body are expanded: the word was not quoted.
    pub expand: bool,
    /// Whether leading tabs are dropped (`<<-`).
    pub chomp: bool,
    /// The body, with line ends.
    pub content: String,
}

impl Heredoc {
    /// Returns the body without leading tabs where those are to be dropped.
    pub fn body(&self) -> String {
        if self.chomp { chomped(&self.content) } else { self.content.clone() }
    }
}

/// Drops leading tabs of each line.
pub(crate) fn chomped(text: &str) -> String {
    text.split_inclusive('\n').map(|l| l.trim_start_matches('\t')).collect()
}

/// Returns the heredoc that a word opens: `[digits]<<[-]WORD`.
pub(crate) fn of_word(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |r| (true, r));
    let rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let plain = words(rest, false, false)?;
    let raw = words(rest, true, false)?;
    let ([name], [quoted]) = (plain.as_slice(), raw.as_slice()) else { return None };
    let quotes = |s: &str| s.chars().filter(|c| "'\"".contains(*c)).count();
    let expand = quotes(name) == quotes(quoted);
    Some(Heredoc { name: name.clone(), expand, chomp, content: String::new() })
}

/// Returns the heredocs that a line opens, without their bodies.
pub(crate) fn of_line(line: &str) -> Vec<Heredoc> {
    words(line, true, true).unwrap_or_default().iter().filter_map(|w| of_word(w)).collect()
}

fn words(text: &str, raw_quotes: bool, raw_escapes: bool) -> Option<Vec<String>> {
    let options = Options { raw_quotes, raw_escapes, keep_unset: true, ..Options::new('\\') };
    expand::expand(text, &Nothing, &options).ok().map(|e| e.words)
}
