//! The wildcards `*` and `?` of `${x#p}`, `${x%p}` and `${x/p/r}`.
//!
//! Patterns become regular expressions, whose matching is linear in the value's length.

use regex::{NoExpand, Regex, RegexBuilder};

use super::{ExpandError, Result};

/// Most memory of one compiled pattern, in bytes.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// Removes the shortest or longest match at the start.
pub(super) fn trim_start(pattern: &str, value: &str, greedy: bool) -> Result<String> {
    let regex = compile(pattern, greedy, true)?;
    let end = regex.find(value).map_or(0, |m| m.end());
    Ok(value[end..].to_owned())
}

/// Removes the shortest or longest match at the end: both are turned round, since a search finds
/// the leftmost match only.
pub(super) fn trim_end(pattern: &str, value: &str, greedy: bool) -> Result<String> {
    let value: String = value.chars().rev().collect();
    let rest = trim_start(&reversed(pattern), &value, greedy)?;
    Ok(rest.chars().rev().collect())
}

/// Replaces the first match or all of them.
pub(super) fn replace(
    pattern: &str,
    value: &str,
    by: &str,
    all: bool,
    bytes_max: usize,
) -> Result<String> {
    let regex = compile(pattern, true, false)?;
    if value.len().saturating_add(1).saturating_mul(by.len().max(1)) > bytes_max.saturating_mul(64)
    {
        return Err(ExpandError::TooLong(bytes_max));
    }
    let limit = usize::from(!all);
    Ok(regex.replacen(value, limit, NoExpand(by)).into_owned())
}

/// Turns a pattern round, keeping each escape before what it escapes.
fn reversed(pattern: &str) -> String {
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => parts.push(chars.next().map_or("\\".into(), |n| format!("\\{n}"))),
            (c, false) => parts.push(c.to_string()),
        }
    }
    parts.into_iter().rev().collect()
}

fn compile(pattern: &str, greedy: bool, anchored: bool) -> Result<Regex> {
    let invalid = |why: String| ExpandError::Pattern(pattern.to_owned(), why);
    let mut out = String::from(if anchored { "^" } else { "" });
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            // `}` and `/` are escaped for the sake of `${}`; the escape is no part of the pattern.
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(c @ ('*' | '?' | '\\')) => {
                    out.push('\\');
                    out.push(c);
                }
                Some(c) => return Err(invalid(format!("invalid escape '\\{c}'"))),
                None => return Err(invalid("it ends with an escape".into())),
            },
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    let built = RegexBuilder::new(&out).size_limit(COMPILED_BYTES_MAX).build();
    built.map_err(|_| invalid("it is too large".into()))
}
