//! The Dockerfile that steps stand for.

use std::fmt::Write as _;

use crate::command;
use crate::paths::is_pattern;
use crate::step::{CopyItem, Step};

/// Writes the Dockerfile that does the same as the steps, on a base without user, working directory
/// and shell of its own. It builds the very same operations, with these exceptions: `copy_items` of
/// several items is one layer here and one an item there; copies of files whose names look like
/// patterns are literal here; and after a `run` with a user, with no `user` step before it, root is
/// named there. `skip_cache` has no counterpart and leaves a comment.
pub fn render_dockerfile(base: &str, steps: &[Step]) -> String {
    let mut text = format!("FROM {base}\n");
    let mut user = None;
    for step in steps {
        render(&mut text, &mut user, step);
    }
    text
}

fn render<'a>(text: &mut String, user: &mut Option<&'a str>, step: &'a Step) {
    match step {
        Step::Workdir { path } => line(text, "WORKDIR", &word(path)),
        Step::User { user: new } => {
            *user = Some(new);
            line(text, "USER", new);
        }
        Step::Copy(item) => line(text, "COPY", &copy(item)),
        Step::CopyItems { items } => items.iter().for_each(|i| line(text, "COPY", &copy(i))),
        Step::SkipCache => text.push_str("# what follows is not taken from the cache\n"),
        Step::Run { command, user: Some(other) } => {
            line(text, "USER", other);
            line(text, "RUN", &run(command));
            line(text, "USER", user.unwrap_or("root"));
        }
        _ => {
            if let Some(command) = command::of(step) {
                line(text, "RUN", &run(&command));
            }
        }
    }
}

fn line(text: &mut String, instruction: &str, rest: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{instruction} {rest}");
}

/// The shell form where it is read as it stands, else the same command line in exec form.
fn run(command: &str) -> String {
    let odd_start = |c: char| c.is_whitespace() || matches!(c, '-' | '[' | '#');
    let odd_end = |c: char| c.is_whitespace() || c == '\\';
    let odd = command.starts_with(odd_start)
        || command.ends_with(odd_end)
        || command.contains("<<")
        || command.chars().any(char::is_control);
    if odd { json(&["/bin/sh", "-c", command]) } else { command.to_owned() }
}

/// A word of `COPY`, `WORKDIR` or `USER`, which expand variables and quotes.
fn word(text: &str) -> String {
    let odd = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | '$' | '#' | '<');
    if !text.contains(odd) {
        return text.to_owned();
    }
    format!("\"{}\"", escape(text, &['"', '\\', '$']))
}

fn escape(text: &str, special: &[char]) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Flags, sources and destination of a copy, not quoted: what histories show.
pub(crate) fn copy_words(item: &CopyItem) -> Vec<String> {
    let sources = item.sources.iter().map(|s| no_heredoc(s.clone()));
    flags(item).into_iter().chain(sources).chain([destination(item)]).collect()
}

/// `COPY` takes what begins with `<<` for a heredoc, also in its JSON form.
fn no_heredoc(path: String) -> String {
    if path.starts_with("<<") { format!("./{path}") } else { path }
}

fn flags(item: &CopyItem) -> Vec<String> {
    let chown = item.user.as_ref().map(|user| format!("--chown={user}"));
    let chmod = item.mode.map(|mode| format!("--chmod={mode}"));
    chown.into_iter().chain(chmod).collect()
}

/// `COPY` of several sources demands a directory by its trailing slash.
fn destination(item: &CopyItem) -> String {
    let slash = if item.sources.len() > 1 && !item.dst.ends_with('/') { "/" } else { "" };
    no_heredoc(format!("{}{slash}", item.dst))
}

fn copy(item: &CopyItem) -> String {
    let paths = item.sources.iter().map(|s| no_heredoc(pattern(s)));
    let paths = paths.chain([destination(item)]);
    let paths: Vec<String> = paths.collect();
    let odd = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | '$' | '<' | '#' | '[');
    let mut words = flags(item);
    if paths.iter().any(|w| w.contains(odd) || w.starts_with('-')) {
        let paths: Vec<_> = paths.iter().map(|w| escape(w, &['"', '\'', '\\', '$'])).collect();
        words.push(json(&paths.iter().map(String::as_str).collect::<Vec<_>>()));
    } else {
        words.extend(paths);
    }
    words.join(" ")
}

/// Makes a pattern that matches just this path (Go's `filepath.Match`).
fn pattern(path: &str) -> String {
    if !is_pattern(path) {
        return path.to_owned();
    }
    let mut out = String::new();
    for c in path.chars() {
        match c {
            '*' | '?' | '[' => out.extend(['[', c, ']']),
            '\\' => out.push_str("\\\\"),
            other => out.push(other),
        }
    }
    out
}

fn json(words: &[&str]) -> String {
    let words = words.iter().map(|w| serde_json::Value::from(*w).to_string());
    format!("[{}]", words.collect::<Vec<_>>().join(", "))
}
