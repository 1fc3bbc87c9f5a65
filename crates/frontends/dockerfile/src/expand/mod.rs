//! Variable expansion and quote removal of a word, as BuildKit's Dockerfile frontend does it.
//!
//! It is like a shell's but not one: `${x:-y}` and friends, `${x#p}`, `${x##p}`, `${x%p}`,
//! `${x%%p}`, `${x/p/r}` and `${x//p/r}`; no arithmetic, no commands, no bracket patterns.

mod error;
mod pattern;

use std::collections::BTreeSet;

pub use error::ExpandError;

use crate::limits::{EXPANSION_DEPTH_MAX, WORD_BYTES_MAX};

/// Where variables are looked up.
pub trait Variables {
    /// Returns the value of a variable, when it is set.
    fn value(&self, name: &str) -> Option<&str>;
}

/// No variable is set.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

impl Variables for Nothing {
    fn value(&self, _: &str) -> Option<&str> {
        None
    }
}

/// How a word is treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The character that takes the next one's meaning away.
    pub escape: char,
    /// Whether quotes stay in the result.
    pub raw_quotes: bool,
    /// Whether escape characters stay in the result.
    pub raw_escapes: bool,
    /// Whether quotes are ordinary characters.
    pub ignore_quotes: bool,
    /// Whether references to variables that are not set stay as they are.
    pub keep_unset: bool,
    /// Most bytes of the result.
    pub bytes_max: usize,
}

impl Options {
    /// Returns what most instructions use.
    pub const fn new(escape: char) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
            bytes_max: WORD_BYTES_MAX,
        }
    }
}

/// An expanded word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The whole result.
    pub text: String,
    /// The result split at white space that was not quoted.
    pub words: Vec<String>,
    /// Names of variables that were asked for and are set.
    pub matched: BTreeSet<String>,
    /// Names of variables that were asked for and are not set.
    pub unmatched: BTreeSet<String>,
}

/// Expands a word.
///
/// # Errors
/// When its quotes or substitutions are malformed, a required variable is missing, or the result
/// exceeds the limit.
pub fn expand(word: &str, variables: &dyn Variables, options: &Options) -> Result<Expanded> {
    let mut lexer = Lexer {
        chars: word.chars().collect(),
        at: 0,
        variables,
        options,
        raw_escapes: options.raw_escapes,
        depth: 0,
        matched: BTreeSet::new(),
        unmatched: BTreeSet::new(),
    };
    let (text, words) = lexer.until(None, options.raw_escapes)?;
    Ok(Expanded { text, words, matched: lexer.matched, unmatched: lexer.unmatched })
}

struct Lexer<'a> {
    chars: Vec<char>,
    at: usize,
    variables: &'a dyn Variables,
    options: &'a Options,
    raw_escapes: bool,
    depth: usize,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
}

/// Collects the words of a result.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.current.push(c);
        } else if !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

type Result<T> = std::result::Result<T, ExpandError>;

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Expands up to `stop`, which is taken, or to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>)> {
        if self.depth > EXPANSION_DEPTH_MAX {
            return Err(ExpandError::TooDeep);
        }
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        self.depth += 1;
        let result = self.until_inner(stop);
        self.depth -= 1;
        self.raw_escapes = outer;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>)> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.at += 1;
                return Ok((text, words.finish()));
            }
            let quotes = !self.options.ignore_quotes;
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| words.push(c));
                    text.push_str(&value);
                }
                '\'' if quotes => self.quoted(Self::single_quotes, &mut text, &mut words)?,
                '"' if quotes => self.quoted(Self::double_quotes, &mut text, &mut words)?,
                '<' => self.angle(&mut text, &mut words),
                _ => self.plain(&mut text, &mut words),
            }
            if text.len() > self.options.bytes_max {
                return Err(ExpandError::TooLong(self.options.bytes_max));
            }
        }
        match stop {
            Some(stop) => Err(ExpandError::Missing(stop)),
            None => Ok((text, words.finish())),
        }
    }

    fn quoted(
        &mut self,
        read: fn(&mut Self) -> Result<String>,
        text: &mut String,
        words: &mut Words,
    ) -> Result<()> {
        let value = read(self)?;
        words.current.push_str(&value);
        text.push_str(&value);
        Ok(())
    }

    /// Takes `<`; blanks after `<<` belong to the word, for they may stand before a heredoc's name.
    fn angle(&mut self, text: &mut String, words: &mut Words) {
        let start = self.at;
        self.at += 1;
        if self.peek() == Some('<') {
            self.at += 1;
            while matches!(self.peek(), Some(' ' | '\t' | '\r')) {
                self.at += 1;
            }
        }
        let taken: String = self.chars[start..self.at].iter().collect();
        words.current.push_str(&taken);
        text.push_str(&taken);
    }

    fn plain(&mut self, text: &mut String, words: &mut Words) {
        let Some(c) = self.next() else { return };
        if c != self.options.escape {
            words.push(c);
            text.push(c);
            return;
        }
        if self.raw_escapes {
            words.current.push(c);
            text.push(c);
        }
        if let Some(escaped) = self.next() {
            words.current.push(escaped);
            text.push(escaped);
        }
    }

    fn single_quotes(&mut self) -> Result<String> {
        let start = self.at;
        self.at += 1;
        let end = self.chars[self.at..].iter().position(|c| *c == '\'');
        let end = self.at + end.ok_or(ExpandError::Unterminated("single-quote"))?;
        self.at = end + 1;
        let raw = self.options.raw_quotes;
        let range = if raw { start..end + 1 } else { start + 1..end };
        Ok(self.chars[range].iter().collect())
    }

    fn double_quotes(&mut self) -> Result<String> {
        let mut text = String::new();
        let raw = self.options.raw_quotes;
        self.at += 1;
        text.extend(raw.then_some('"'));
        loop {
            match self.peek().ok_or(ExpandError::Unterminated("double-quote"))? {
                '"' => {
                    self.at += 1;
                    text.extend(raw.then_some('"'));
                    return Ok(text);
                }
                '$' => text.push_str(&self.dollar()?),
                c if c == self.options.escape => self.escape_in_quotes(&mut text),
                c => {
                    self.at += 1;
                    text.push(c);
                }
            }
        }
    }

    /// Inside double quotes only `"`, `$` and the escape character itself can be escaped; before
    /// anything else the escape character stands for itself.
    fn escape_in_quotes(&mut self, text: &mut String) {
        let escape = self.options.escape;
        self.at += 1;
        text.extend(self.raw_escapes.then_some(escape));
        match self.peek() {
            None => {}
            Some(c) if c == '"' || c == '$' || c == escape => {
                self.at += 1;
                text.push(c);
            }
            Some(_) => text.push(escape),
        }
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = self.variables.value(name).map(str::to_owned);
        let seen = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        seen.insert(name.to_owned());
        value
    }

    /// Takes `$name`, `${...}` or a lone `$`.
    fn dollar(&mut self) -> Result<String> {
        self.at += 1;
        if self.peek() == Some('{') {
            self.at += 1;
            return self.braces();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".into());
        }
        Ok(match self.lookup(&name) {
            Some(value) => value,
            None if self.options.keep_unset => format!("${name}"),
            None => String::new(),
        })
    }

    /// Takes what follows `${`.
    fn braces(&mut self) -> Result<String> {
        match self.peek() {
            None => return Err(ExpandError::Missing('}')),
            Some('{' | '}' | ':') => return Err(ExpandError::Bad),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(ExpandError::Missing('}')),
            Some('}') => Ok(match self.lookup(&name) {
                Some(value) => value,
                None if self.options.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => {
                let operator = self.next().ok_or(ExpandError::Missing('}'))?;
                self.operator(&name, operator, true)
            }
            Some(c @ ('+' | '-' | '?' | '#' | '%')) => self.operator(&name, c, false),
            Some('/') => self.replace(&name),
            Some(c) => Err(ExpandError::Modifier(c.into())),
        }
    }

    fn operator(&mut self, name: &str, operator: char, colon: bool) -> Result<String> {
        let modifier = || format!("{}{operator}", if colon { ":" } else { "" });
        let trims = operator == '#' || operator == '%';
        if colon && trims {
            return Err(ExpandError::Modifier(modifier()));
        }
        let (word, _) = self.until(Some('}'), trims)?;
        let value = self.lookup(name);
        if value.is_none() && self.options.keep_unset {
            return Ok(format!("${{{name}{}{word}}}", modifier()));
        }
        let absent = value.as_ref().is_none_or(|v| colon && v.is_empty());
        match operator {
            '-' if absent => Ok(word),
            '+' if absent => Ok(String::new()),
            '+' => Ok(word),
            '?' if absent => {
                let what = if value.is_none() { "unset" } else { "empty" };
                let default = || format!("is not allowed to be {what}");
                let said = if word.is_empty() { default() } else { word };
                Err(ExpandError::Required(name.to_owned(), said))
            }
            '-' | '?' => Ok(value.unwrap_or_default()),
            '#' | '%' => {
                let (pattern, greedy) =
                    word.strip_prefix(operator).map_or((word.as_str(), false), |w| (w, true));
                let value = value.unwrap_or_default();
                let trim = if operator == '#' { pattern::trim_start } else { pattern::trim_end };
                trim(pattern, &value, greedy)
            }
            _ => Err(ExpandError::Modifier(modifier())),
        }
    }

    fn replace(&mut self, name: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let (pattern, _) = self.until(Some('/'), true)?;
        let (replacement, _) = self.until(Some('}'), true)?;
        match self.lookup(name) {
            None if self.options.keep_unset => Ok(format!("${{{name}/{pattern}/{replacement}}}")),
            value => {
                let value = value.unwrap_or_default();
                let max = self.options.bytes_max;
                pattern::replace(&pattern, &value, &replacement, all, max)
            }
        }
    }

    /// Takes a name: letters, digits and `_`; digits alone; or one special parameter.
    fn name(&mut self) -> String {
        let start = self.at;
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while self.peek().is_some_and(char::is_numeric) {
                    self.at += 1;
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => self.at += 1,
            _ => {
                while self.peek().is_some_and(|c| c.is_alphanumeric() || c == '_') {
                    self.at += 1;
                }
            }
        }
        self.chars[start..self.at].iter().collect()
    }
}
