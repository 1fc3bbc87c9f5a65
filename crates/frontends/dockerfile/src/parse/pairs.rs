//! `name=value` lists of `ENV`, `LABEL` and `ARG`.

use super::ast::{ArgDefinition, Pair};
use super::stage::description;
use crate::lexer::Line;
use crate::lexer::split::{BLANKS, Split, quoted_words};
use crate::source::{Problem, Span, Word};

/// Reads `name=value ...`, or `name value` with all of the rest as the value.
pub(super) fn pairs(keyword: &str, split: &Split, escape: char) -> Result<Vec<Pair>, Problem> {
    let words = quoted_words(&split.rest, escape);
    let Some(first) = words.first() else {
        let message = format!("{keyword} requires at least one argument");
        return Err(Problem::new(message).at(split.keyword.span));
    };
    if !first.text.contains('=') {
        return legacy(keyword, &split.rest).map(|pair| vec![pair]);
    }
    words.iter().map(|word| pair(keyword, word)).collect()
}

fn pair(keyword: &str, word: &Word) -> Result<Pair, Problem> {
    let Some((name, value)) = halves(word) else {
        let message = format!(
            "Syntax error - can't find = in {:?}. Must be of the form: name=value",
            word.text
        );
        return Err(Problem::new(message).at(word.span).hint("quote values that hold spaces"));
    };
    if name.text.is_empty() {
        return Err(blank(keyword, word.span));
    }
    Ok(Pair { name, value, legacy: false })
}

fn blank(keyword: &str, span: Span) -> Problem {
    Problem::new(format!("{keyword} names can not be blank")).at(span)
}

fn halves(word: &Word) -> Option<(Word, Word)> {
    let (name, value) = word.text.split_once('=')?;
    let start = word.span.start;
    let name_span = Span::new(start, start + name.len());
    Some((
        Word::new(name, name_span),
        Word::new(value, Span::new(name_span.end + 1, word.span.end)),
    ))
}

fn legacy(keyword: &str, rest: &Word) -> Result<Pair, Problem> {
    let Some(end) = rest.text.find(BLANKS) else {
        let problem = Problem::new(format!("{keyword} must have two arguments")).at(rest.span);
        return Err(problem.hint(format!("write {keyword} {}=value", rest.text)));
    };
    let value = rest.text[end..].trim_start_matches(BLANKS);
    let at = rest.span.start;
    Ok(Pair {
        name: Word::new(&rest.text[..end], Span::new(at, at + end)),
        value: Word::new(value, Span::new(rest.span.end - value.len(), rest.span.end)),
        legacy: true,
    })
}

/// Reads `name` and `name=value` words.
pub(super) fn args(
    split: &Split,
    line: &Line,
    escape: char,
) -> Result<Vec<ArgDefinition>, Problem> {
    let words = quoted_words(&split.rest, escape);
    if let Some(flag) = split.flags.first() {
        let problem = Problem::new(format!("unknown flag: {}", flag.text)).at(flag.span);
        return Err(problem.hint("ARG takes no flags"));
    }
    if words.is_empty() {
        let problem = Problem::new("ARG requires at least one argument").at(split.keyword.span);
        return Err(problem);
    }
    let one = |word: &Word| {
        let (name, value) = match halves(word) {
            Some((name, _)) if name.text.is_empty() => return Err(blank("ARG", word.span)),
            Some((name, value)) => (name.text, Some(value)),
            None => (word.text.clone(), None),
        };
        let description = description(&line.comments, &name);
        Ok(ArgDefinition { name, value, description })
    };
    words.iter().map(one).collect()
}
