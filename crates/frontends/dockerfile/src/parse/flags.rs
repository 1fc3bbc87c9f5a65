//! Flags of an instruction, checked against those that it knows.

use crate::lexer::split::Split;
use crate::source::{Problem, Span, Word};
use crate::suggest;

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, `true` or `false`.
    Bool,
    /// One value, once.
    Value,
    /// One value, any number of times.
    Values,
}

/// The flags of one instruction.
#[derive(Default)]
pub(crate) struct Flags {
    given: Vec<(String, Word)>,
}

impl Flags {
    /// Reads the flags of an instruction that knows those of `known`.
    pub(crate) fn read(split: &Split, known: &[(&str, Takes)]) -> Result<Self, Problem> {
        let mut flags = Self::default();
        for word in &split.flags {
            let problem = |m: String| Problem::new(m).at(word.span);
            let (flag, value) =
                word.text.split_once('=').map_or((word.text.as_str(), None), |(f, v)| (f, Some(v)));
            let name = flag.trim_start_matches("--");
            let Some((_, takes)) =
                known.iter().find(|(n, _)| *n == name && flag.len() == n.len() + 2)
            else {
                return Err(problem(format!("unknown flag: {flag}")).maybe_hint(near(name, known)));
            };
            if *takes != Takes::Values && flags.word(name).is_some() {
                return Err(problem(format!("duplicate flag specified: {flag}")));
            }
            let value = checked(*takes, flag, value).map_err(problem)?;
            // Point at the value where it stands as written, else at the whole flag.
            let start = word.span.end.saturating_sub(value.len());
            let whole = word.span.end - word.span.start == word.text.len();
            let span = if whole && !value.is_empty() && start >= word.span.start {
                Span::new(start, word.span.end)
            } else {
                word.span
            };
            flags.given.push((name.to_owned(), Word::new(value, span)));
        }
        Ok(flags)
    }

    /// Returns the value of a flag that is given at most once.
    pub(crate) fn word(&self, name: &str) -> Option<&Word> {
        self.given.iter().find(|(n, _)| n == name).map(|(_, w)| w)
    }

    /// Returns the value of a flag, an empty one counting as none.
    pub(crate) fn filled(&self, name: &str) -> Option<Word> {
        self.word(name).filter(|w| !w.text.is_empty()).cloned()
    }

    /// Returns what a switch says, when it is given.
    pub(crate) fn switch(&self, name: &str) -> Option<bool> {
        self.word(name).map(|w| w.text == "true")
    }

    /// Returns all values of a flag.
    pub(crate) fn all(&self, name: &str) -> Vec<Word> {
        self.given.iter().filter(|(n, _)| n == name).map(|(_, w)| w.clone()).collect()
    }
}

fn checked(takes: Takes, flag: &str, value: Option<&str>) -> Result<String, String> {
    match (takes, value) {
        (Takes::Bool, None) => Ok("true".into()),
        (Takes::Bool, Some("")) | (Takes::Value | Takes::Values, None) => {
            Err(format!("missing a value on flag: {flag}"))
        }
        (Takes::Bool, Some(v)) => match v.to_ascii_lowercase().as_str() {
            "true" => Ok("true".into()),
            "false" => Ok("false".into()),
            _ => Err(format!("expecting boolean value for flag {flag}, not: {v}")),
        },
        (_, Some(v)) => Ok(v.to_owned()),
    }
}

fn near(name: &str, known: &[(&str, Takes)]) -> Option<String> {
    let names: Vec<&str> = known.iter().map(|(n, _)| *n).collect();
    suggest::nearest(name, names.iter().copied()).map(|n| format!("did you mean --{n}?")).or_else(
        || match names.as_slice() {
            [] => Some("this instruction takes no flags".into()),
            names => Some(format!("it takes --{}", names.join(", --"))),
        },
    )
}
