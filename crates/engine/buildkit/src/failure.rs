//! From a daemon's errors to failures of a build.
//!
//! Texts alone say too little: the Dockerfile's line and the exit code lie in typed details of the
//! gRPC status, as BuildKit's `grpcerrors` writes them: JSON of its `errdefs` and `gatewayapi` types.

use std::error::Error as _;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::Diagnostic;
use ashlar_native::log::Masker;
use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::pb;
use prost::Message as _;
use serde::Deserialize;
use tonic::{Code, Status};

use crate::progress::{FailedStep, location};

/// The longest text of a daemon that is passed on, in characters.
const TEXT_CHARS_MAX: usize = 4000;

/// The longest reason why a daemon was lost, in characters.
const REASON_CHARS_MAX: usize = 500;

/// The longest detail that is read, in bytes: they quote the whole Dockerfile.
const DETAIL_BYTES_MAX: usize = 8 << 20;

/// How errors end that are those of the daemon's machine, in the words of the operating system.
const MACHINE_IS_AT_FAULT: [&str; 7] = [
    "no space left on device",
    "disk quota exceeded",
    "input/output error",
    "read-only file system",
    "cannot allocate memory",
    "too many open files",
    "structure needs cleaning",
];

/// What the frontend says of a Dockerfile as a whole, with no line.
const FRONTEND_COMPLAINTS: [&str; 5] = [
    "target stage",
    "no build stage in current context",
    "file with no instructions",
    "the Dockerfile cannot be empty",
    "circular dependency",
];

/// What the details of a status say.
#[derive(Debug, Default)]
struct Details {
    ranges: Vec<pb::Range>,
    exit_code: Option<i32>,
    vertex: Option<String>,
}

/// `errdefs.Source`: a place in a definition.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Source {
    ranges: Vec<Range>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Position {
    line: i32,
}

/// `errdefs.Vertex`: what failed.
#[derive(Deserialize)]
struct Vertex {
    digest: String,
}

/// `gatewayapi.ExitMessage`: how a process ended.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Exit {
    code: i32,
}

impl Details {
    fn of(status: &Status) -> Self {
        let mut details = Self::default();
        let Ok(whole) = rpc::Status::decode(status.details()) else { return details };
        for any in whole.details.iter().filter(|a| a.value.len() <= DETAIL_BYTES_MAX) {
            let name = any.type_url.rsplit('/').next().unwrap_or_default();
            match name.trim_end_matches("+json") {
                // The innermost place comes first.
                "errdefs.Source" if details.ranges.is_empty() => {
                    let source: Source = read(&any.value).unwrap_or_default();
                    details.ranges = source.ranges.into_iter().map(range).collect();
                }
                "errdefs.Vertex" if details.vertex.is_none() => {
                    details.vertex = read(&any.value).map(|v: Vertex| v.digest);
                }
                "gatewayapi.ExitMessage" => {
                    details.exit_code = read(&any.value).map(|e: Exit| e.code);
                }
                _ => {}
            }
        }
        details
    }
}

/// Reads a detail; one of another shape says nothing.
fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    serde_json::from_slice(bytes).ok()
}

fn range(range: Range) -> pb::Range {
    let at = |p: Position| Some(pb::Position { line: p.line, character: 0 });
    pb::Range { start: at(range.start), end: at(range.end) }
}

/// Returns the vertex that a daemon says failed.
pub(crate) fn vertex_of(status: &Status) -> Option<String> {
    Details::of(status).vertex
}

/// The daemon's own words, without what its clients put before them.
fn words(status: &Status) -> &str {
    status.message().strip_prefix("failed to solve: ").unwrap_or(status.message())
}

/// Says whether a process of the build ended badly: the text quotes its command then, which may hold
/// any words.
fn is_of_process(status: &Status) -> bool {
    const QUOTES: [&str; 2] = ["process \"", "executor failed running ["];
    Details::of(status).exit_code.is_some() || QUOTES.iter().any(|q| words(status).starts_with(q))
}

/// Says whether a call broke off because the daemon is gone, and not by its own words.
pub(crate) fn is_lost(status: &Status) -> bool {
    // A status that came over the wire has no cause; one that was made here does.
    if status.source().is_some() || is_stopped(status) {
        return true;
    }
    // A registry that is out of reach says so in the same words as a daemon.
    !is_of_process(status)
        && !is_unresolved(status)
        && (status.code() == Code::Unavailable
            // Streams that end in the middle of a message.
            || words(status).starts_with("h2 protocol error"))
}

/// Says whether the daemon gave a build up that nobody here had stopped, as one does that is told to
/// end. Whatever it was doing says the same at the end of its text, a process and a pull alike.
fn is_stopped(status: &Status) -> bool {
    status.code() == Code::Cancelled || status.message().ends_with("context canceled")
}

/// Says whether the daemon has no exporter of this kind.
pub(crate) fn lacks_exporter(status: &Status) -> bool {
    const TEXTS: [&str; 2] =
        ["exporter \"oci\" could not be found", "exporter \"moby\" could not be found"];
    TEXTS.contains(&words(status))
}

/// Says whether the image that was made went out of the daemon's own store before it had its name.
pub(crate) fn is_vanished(status: &Status) -> bool {
    let text = words(status);
    text.starts_with("failed to get digest ") && text.ends_with("no such file or directory")
}

/// Says whether an image could not be had: another mirror may have it.
pub(crate) fn is_unresolved(status: &Status) -> bool {
    const SIGNS: [&str; 5] = [
        "failed to resolve source metadata for",
        "failed to load cache key: ",
        "failed to do request: ",
        "pull access denied",
        "failed to copy: ",
    ];
    !is_of_process(status) && SIGNS.iter().any(|s| status.message().contains(s))
}

/// Says whether the image of a `# syntax=` line could not be had.
pub(crate) fn is_syntax_unresolved(status: &Status, image: &str) -> bool {
    let bare = image.strip_prefix("docker.io/").unwrap_or(image);
    is_unresolved(status) && status.message().contains(bare)
}

/// Makes a failure of what the daemon said.
pub(crate) fn of_status(
    status: &Status,
    step: Option<FailedStep>,
    file: &str,
    masker: &Masker,
) -> Failure {
    let details = Details::of(status);
    let text = clean(status.message(), masker);
    let exit_code = details.exit_code.or_else(|| exit_code_in(&text));
    let signs = Signs {
        exited: exit_code.is_some(),
        has_place: !details.ranges.is_empty(),
        is_step: step.as_ref().is_some_and(|s| s.step.is_some()),
    };
    let kind = kind_of(status.code(), &text, signs);
    let place = location(file, &details.ranges);
    let message = match kind {
        FailureKind::Definition => {
            let diagnostic = Diagnostic { location: place.clone(), ..Diagnostic::new(text) };
            diagnostic.to_string()
        }
        _ => text,
    };
    let mut failure = Failure { location: place, exit_code, ..Failure::new(kind, message) };
    if let Some(step) = step.filter(|s| s.step.is_some()) {
        failure.step = step.step;
        failure.command = Some(step.name);
        failure.last_lines = step.last_lines;
    }
    failure.hint = hint(kind, &failure.message);
    failure
}

/// Makes words of a daemon, or of this machine, fit for a build's log: on one line, not too long.
pub(crate) fn reason(text: &str, masker: &Masker) -> String {
    let line = clean(text, masker).split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(REASON_CHARS_MAX).collect()
}

/// Makes the failure of a build whose daemons are all gone.
pub(crate) fn no_daemon(reasons: &[String]) -> Failure {
    let text = format!("no BuildKit daemon can run the build: {}", reasons.join("; "));
    let text: String = text.chars().take(TEXT_CHARS_MAX).collect();
    Failure::new(FailureKind::Interrupted, text)
        .hint("see whether the daemons run and answer at their addresses, then build again")
}

/// What is known of an error besides its text.
#[derive(Clone, Copy)]
struct Signs {
    /// A process ended with a code.
    exited: bool,
    /// It names lines of the Dockerfile.
    has_place: bool,
    /// It failed a step of the Dockerfile.
    is_step: bool,
}

fn kind_of(code: Code, text: &str, signs: Signs) -> FailureKind {
    let says = |signs: &[&str]| signs.iter().any(|s| text.contains(s));
    if signs.exited {
        return FailureKind::Step;
    }
    // What a system call answered comes last, whatever names were quoted before it.
    if MACHINE_IS_AT_FAULT.iter().any(|s| text.ends_with(s)) {
        return FailureKind::Internal;
    }
    if says(&["401 Unauthorized", "403 Forbidden", "authorization failed", "insufficient_scope"]) {
        return FailureKind::Auth;
    }
    if says(&["entitlement", "dockerfile parse error", "failed to parse", "unknown instruction"]) {
        return FailureKind::Definition;
    }
    if says(&["secret ", "unset ssh forward key"]) && says(&["not found", "unset ssh"]) {
        return FailureKind::Definition;
    }
    if says(&[
        "failed to resolve source metadata",
        "failed to load cache key",
        "pull access denied",
        "failed to read dockerfile",
        "failed to fetch",
        "invalid response status",
        "no such host",
    ]) {
        return FailureKind::Source;
    }
    if says(&["error from sender", "of the context"]) {
        return FailureKind::Source;
    }
    if signs.is_step {
        return FailureKind::Step;
    }
    if signs.has_place || code == Code::InvalidArgument || says(&FRONTEND_COMPLAINTS) {
        return FailureKind::Definition;
    }
    match code {
        Code::Internal | Code::ResourceExhausted | Code::DataLoss => FailureKind::Internal,
        _ if says(&["exporting", "exporter"]) => FailureKind::Export,
        // Nothing says that the user could mend it.
        _ => FailureKind::Internal,
    }
}

fn hint(kind: FailureKind, text: &str) -> Option<String> {
    let hint = match kind {
        FailureKind::Auth => "give the build a login for that registry",
        FailureKind::Source if text.contains("resolve source metadata") => {
            "see whether the daemon reaches that registry: its own mirrors and plain-http settings hold"
        }
        FailureKind::Definition if text.contains("entitlement") => {
            "allow it for the build, and in the daemon's own settings"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Reads `... exit code: 3` of daemons that give no details.
fn exit_code_in(text: &str) -> Option<i32> {
    let (_, after) = text.rsplit_once("exit code: ")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Takes the daemon's preamble and secrets out of a text.
pub(crate) fn clean(text: &str, masker: &Masker) -> String {
    let masked = masker.mask(text.as_bytes());
    let text = String::from_utf8_lossy(&masked);
    let text = text.strip_prefix("failed to solve: ").unwrap_or(&text);
    text.chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
