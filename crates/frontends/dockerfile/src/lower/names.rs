//! What people see: step names and history texts, worded as BuildKit words them.

use ashlar_core::image::Healthcheck;

use super::env::Env;
use super::state::State;
use crate::expand::{self, Options, Variables};
use crate::parse::duration_text;

/// The longest name of a step, in characters.
const NAME_CHARS_MAX: usize = 4_096;

/// Returns `[stage 2/5] ` before a step's text; the step is counted.
pub(super) fn prefixed(state: &State, number: &mut usize, trigger: bool, text: &str) -> String {
    if state.total == 0 {
        return text.to_owned();
    }
    *number += 1;
    let stage = if state.shown.is_empty() { String::new() } else { format!("{} ", state.shown) };
    let width = state.total.to_string().len();
    let trigger = if trigger { "ONBUILD " } else { "" };
    format!("[{stage}{number:>width$}/{}] {trigger}{text}", state.total)
}

/// Returns an instruction's text with its keyword in capitals and its variables filled in.
pub(super) fn shown(code: &str, env: &dyn Variables, options: &Options) -> String {
    let text = expand::expand(code, env, options).map_or_else(|_| code.to_owned(), |e| e.text);
    let (keyword, rest) = text.split_once(' ').map_or((text.as_str(), None), |(k, r)| (k, Some(r)));
    let rest = rest.map(|r| format!(" {r}")).unwrap_or_default();
    format!("{}{rest}", keyword.to_uppercase()).chars().take(NAME_CHARS_MAX).collect()
}

/// Returns the first line of a body, for the name of a step that runs it.
pub(super) fn summary(body: &str) -> String {
    let mut lines = body.trim().lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first}...") } else { first.to_owned() }
}

/// Returns the history text of a `RUN`: `|2 A=1 B=2 /bin/sh -c make`.
pub(super) fn run(args: &[String], declared: &[(String, Option<String>)], env: &Env) -> String {
    let mut seen: Vec<(&str, String)> = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    for (name, value) in declared {
        if known.insert(name) {
            let last = declared.iter().rfind(|(n, _)| n == name).and_then(|(_, v)| v.clone());
            let value = env.value(name).map(str::to_owned).or(last).or(value.clone());
            seen.push((name, value.unwrap_or_default()));
        }
    }
    let mut words = Vec::new();
    if !seen.is_empty() {
        words.push(format!("|{}", seen.len()));
        words.extend(seen.iter().map(|(n, v)| format!("{n}={v}")));
    }
    words.extend(args.iter().cloned());
    words.join(" ")
}

/// Quotes a text as Go's `%q` does.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Returns a list as Go's `%q` shows it: `["a" "b"]`.
pub(super) fn quoted_list(all: &[String]) -> String {
    let all: Vec<String> = all.iter().map(|s| quoted(s)).collect();
    format!("[{}]", all.join(" "))
}

/// Returns a list as Go's `%v` shows it: `[a b]`.
pub(super) fn plain_list(all: &[String]) -> String {
    format!("[{}]", all.join(" "))
}

/// Returns a health check as the Go format of its struct: strings quoted, the count as a character.
pub(super) fn health(check: &Healthcheck) -> String {
    let time = |t: Option<i64>| quoted(&duration_text(t.unwrap_or(0)));
    format!(
        "HEALTHCHECK &{{{} {} {} {} {} {}}}",
        quoted_list(&check.test),
        time(check.interval),
        time(check.timeout),
        time(check.start_period),
        time(check.start_interval),
        quoted_number(check.retries.unwrap_or(0))
    )
}

/// Quotes a number as Go's `%q` does: as the character of that code.
fn quoted_number(number: i64) -> String {
    let code = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let inner = quoted(code.encode_utf8(&mut [0; 4]));
    match code {
        '\'' => "'\\''".into(),
        '"' => "'\"'".into(),
        _ => format!("'{}'", &inner[1..inner.len() - 1]),
    }
}
