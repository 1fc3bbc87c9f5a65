//! `FROM`.

use super::ast::Stage;
use super::flags::{Flags, Takes};
use crate::lexer::Line;
use crate::lexer::split::{Split, plain_words};
use crate::lint::{Lint, Rule};
use crate::source::{Problem, SourceText};

pub(super) fn from(line: &Line, split: &Split) -> Result<Stage, Problem> {
    let words = plain_words(&split.rest);
    let (base, name) = match words.as_slice() {
        [base] => (base, None),
        [base, as_, name] if as_.text.eq_ignore_ascii_case("as") => {
            let lower = name.text.to_lowercase();
            if !is_stage_name(&lower) {
                let message = format!(
                    "invalid name for build stage: {:?}, name can't start with a number or contain \
                     symbols",
                    name.text
                );
                return Err(Problem::new(message).at(name.span));
            }
            (base, Some(lower))
        }
        _ => {
            let problem = Problem::new("FROM requires either one or three arguments");
            let span = if words.is_empty() { split.keyword.span } else { split.rest.span };
            return Err(problem.at(span).hint("write FROM image or FROM image AS stage"));
        }
    };
    let flags = Flags::read(split, &[("platform", Takes::Value)])?;
    let description = name.as_deref().and_then(|n| description(&line.comments, n));
    Ok(Stage {
        line: line.clone(),
        keyword: split.keyword.clone(),
        base: base.clone(),
        name,
        platform: flags.filled("platform"),
        description,
        instructions: Vec::new(),
    })
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
}

/// Returns the comment that begins with `name` and a space.
pub(super) fn description(comments: &[String], name: &str) -> Option<String> {
    let about = |c: &String| c.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    (!name.is_empty()).then(|| comments.iter().find_map(about)).flatten()
}

/// Warns of odd letter cases in `FROM x AS y`.
pub(super) fn check_casing(stage: &Stage, source: &SourceText, lint: &mut Lint) {
    let words: Vec<&str> = stage.line.text.split_whitespace().collect();
    let [.., as_, name] = words.as_slice() else { return };
    if stage.name.is_none() {
        return;
    }
    if *name != name.to_lowercase() {
        let text = format!("Stage name '{name}' should be lowercase");
        lint.warn(Rule::StageNameCasing, &stage.line, source, text);
    }
    let from = stage.keyword.text.as_str();
    let lower = from == from.to_lowercase();
    let upper = from == from.to_uppercase();
    let fits = if lower { *as_ == as_.to_lowercase() } else { *as_ == as_.to_uppercase() };
    if (lower || upper) && !fits {
        let text = format!("'{as_}' and '{from}' keywords' casing do not match");
        lint.warn(Rule::FromAsCasing, &stage.line, source, text);
    }
    check_description(
        "FROM",
        &[stage.name.as_deref().unwrap_or_default()],
        &stage.line,
        source,
        lint,
    );
}

/// Warns when the comment above does not begin with the name that is defined.
pub(super) fn check_description(
    keyword: &str,
    names: &[&str],
    line: &Line,
    source: &SourceText,
    lint: &mut Lint,
) {
    let (Some(comment), [first, rest @ ..]) = (line.comments.last(), names) else { return };
    if names.contains(&comment.split(' ').next().unwrap_or_default()) {
        return;
    }
    let example = if rest.is_empty() { first } else { "<arg_key>" };
    let text =
        format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    lint.warn(Rule::InvalidDefinitionDescription, line, source, text);
}
