//! What people and scripts get once a build has ended.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::StepCounts;
use ashlar_core::state::State;
use ashlar_frontend_dockerfile::Source;
use serde_json::json;

use super::Definition;
use crate::output::{JSON_VERSION, clean, note, said, span};
use crate::progress::{Ended, ProgressKind};

/// The longest line of a Dockerfile that a message quotes, in characters.
const EXCERPT_CHARS: usize = 160;
/// The longest Dockerfile that is read again for a message, in bytes.
const DOCKERFILE_BYTES_MAX: u64 = 4 << 20;
/// Characters of a build's id that tell it from others: the time of its start, in milliseconds.
const SHORT_ID_CHARS: usize = 13;

/// Whose end is told.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    /// What was built, when it is known here.
    pub(crate) definition: Option<&'a Definition>,
    /// How it was shown.
    pub(crate) progress: ProgressKind,
    /// The server that built it.
    pub(crate) server: Option<&'a str>,
    /// Names under which that server's registry has the image.
    pub(crate) pulls: &'a [String],
}

/// Writes `--iidfile` and `--metadata-file`.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write_files(
    (iidfile, metadata_file): (Option<&Path>, Option<&Path>),
    end: &Ended<'_>,
    steps: StepCounts,
) -> Result<()> {
    let made = end.made;
    let id = made.image.as_ref().or(made.manifest.as_ref());
    if let (Some(path), Some(id)) = (iidfile, id) {
        write_file("--iidfile", path, id)?;
    }
    if let Some(path) = metadata_file {
        let text = serde_json::to_string_pretty(&json!({
            "version": JSON_VERSION,
            "build": end.build,
            "image": made.image,
            "containerimage.digest": made.manifest,
            "image.name": made.names.join(","),
            "outputs": made.outputs,
            "from_cache": made.from_cache,
            "steps": steps,
        }))?;
        write_file("--metadata-file", path, &text)?;
    }
    Ok(())
}

fn write_file(flag: &str, path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("{flag}: cannot write {}", path.display()))
}

/// Tells people how it ended; in the quiet form, only the image's id.
pub(crate) fn show(subject: &Subject<'_>, end: &Ended<'_>) {
    match (end.state, subject.progress) {
        (State::Succeeded, ProgressKind::Quiet) => {
            if let Some(id) = end.made.image.as_ref().or(end.made.manifest.as_ref()) {
                // Nobody may be listening any more.
                let _ = crate::output::line(id);
            }
        }
        (State::Succeeded, _) => note(success(end, subject)),
        (State::Cancelled, _) => note(format!(
            "cancelled after {}; finished steps are kept\nhint: run the same command again to go on",
            span(end.took)
        )),
        (State::Skipped, _) => note("error: the server's policy for the scope skipped the build"),
        _ => {
            if let Some(failure) = end.failure {
                note(failed(subject, failure, end.build));
            }
        }
    }
}

fn success(end: &Ended<'_>, subject: &Subject<'_>) -> String {
    let made = end.made;
    let mut text = String::new();
    let cached = if made.from_cache { ", all from cache" } else { "" };
    let _ = write!(text, "built in {}{cached}", span(end.took));
    if let Some(id) = &made.image {
        let _ = write!(text, "\nimage  {id}");
    }
    made.names.iter().for_each(|n| text += &format!("\nname   {n}"));
    made.outputs.iter().for_each(|o| text += &format!("\noutput {o}"));
    let short = short(end.build);
    subject.pulls.iter().for_each(|n| text += &format!("\npull   {n}"));
    if let Some(server) = subject.server {
        let _ = write!(
            text,
            "\nbuild  {}\nnext   ashlar builds show {short} --server {server}",
            end.build
        );
        return text;
    }
    match (made.names.first(), &made.image) {
        (Some(name), Some(_)) => {
            let _ = write!(text, "\nnext   ashlar images run {name}");
        }
        (None, Some(id)) => {
            let short = id.trim_start_matches("sha256:").get(..12).unwrap_or(id);
            let _ = write!(text, "\nnext   ashlar images run {short}");
        }
        _ => {
            let _ = write!(text, "\nnext   ashlar builds show {short}");
        }
    }
    text
}

/// Returns the start of an id that is enough to name it.
pub(crate) fn short(build: &str) -> &str {
    build.get(..SHORT_ID_CHARS).unwrap_or(build)
}

/// Returns the whole message about a failure.
fn failed(subject: &Subject<'_>, failure: &Failure, build: &str) -> String {
    let mut text = String::from("error: ");
    match &failure.location {
        // A diagnostic of the frontend brings its place with it.
        Some(at) if failure.kind != FailureKind::Definition => {
            let _ =
                write!(text, "{}:{}:{}: {}", at.file, at.line, at.column.max(1), failure.message);
            if let Some(line) = subject.definition.and_then(|d| source_line(d, at.line)) {
                text += &excerpt(at.line, at.column, at.end_column, &line);
            }
        }
        _ => text += &failure.message,
    }
    if let Some(command) = &failure.command {
        let _ = write!(text, "\n step: {}", clean(command));
    }
    if let Some(code) = failure.exit_code {
        let _ = write!(text, "\n exit code: {code}");
    }
    if !failure.last_lines.is_empty() {
        text += "\n last lines:";
        failure.last_lines.iter().for_each(|l| text += &format!("\n   | {}", said(l, false)));
    }
    // The next command is written out below.
    if let Some(hint) = failure.hint.as_ref().filter(|h| !h.contains("ashlar debug")) {
        let _ = write!(text, "\nhint: {hint}");
    }
    let id = short(build);
    if let Some(server) = subject.server {
        let _ = write!(text, "\nread the whole log: ashlar builds logs {id} --server {server}");
        return text;
    }
    if failure.exit_code.is_some() || failure.limit.is_some() {
        let _ = write!(text, "\nlook into the failed step: ashlar debug {id}");
    }
    let _ = write!(text, "\nread the whole log:        ashlar builds logs {id}");
    text
}

fn excerpt(number: u32, column: u32, end: u32, line: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let shown: String = line.chars().take(EXCERPT_CHARS).map(clean).collect();
    let start = column.max(1) as usize - 1;
    if column == 0 {
        return format!("\n{number:>5} | {}", shown.trim_end());
    }
    let width = shown.trim_end().chars().count();
    if start >= width.max(1) {
        return format!("\n{number:>5} | {}", shown.trim_end());
    }
    let carets = (end.saturating_sub(column.max(1)) as usize).clamp(1, (width - start).max(1));
    let pad = " ".repeat(start);
    format!("\n{number:>5} | {}\n      | {pad}{}", shown.trim_end(), "^".repeat(carets))
}

/// Reads a line of the Dockerfile again, if it is still there.
fn source_line(definition: &Definition, line: u32) -> Option<String> {
    let text = match &definition.request.source {
        Source::Text(text) => text.clone(),
        Source::Context { context, path } => {
            let file = definition.contexts.get(context)?.join(path);
            let small = std::fs::metadata(&file).is_ok_and(|m| m.len() <= DOCKERFILE_BYTES_MAX);
            if !small {
                return None;
            }
            std::fs::read_to_string(file).ok()?
        }
    };
    text.lines().nth(line.checked_sub(1)? as usize).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_command() {
        assert_eq!(excerpt(3, 1, 4, "RUN false"), "\n    3 | RUN false\n      | ^^^");
        assert_eq!(excerpt(3, 5, 5, "RUN x"), "\n    3 | RUN x\n      |     ^");
        assert_eq!(excerpt(3, 50, 60, "RUN"), "\n    3 | RUN");
    }

    #[test]
    fn ids_are_cut_to_their_time() {
        assert_eq!(short("0194a1b2-0000-7000-8000-1234567890ab"), "0194a1b2-0000");
    }
}
