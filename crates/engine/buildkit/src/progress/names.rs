//! What the names and texts of a daemon's vertices say.

use std::borrow::Cow;

use ashlar_core::frontend::Location;
use bollard_buildkit_proto::pb;

/// What the daemon says of steps that it stopped because another one failed.
const CANCELLED: [&str; 2] = ["context canceled", "context deadline exceeded"];

/// Takes the name of a step of the Dockerfile apart, which begins with `[2/5]` or `[stage 2/5]`:
/// the stage, the step's number in it, and how many it has.
pub(super) fn place_in_stage(name: &str) -> Option<(&str, u32, u32)> {
    let (inside, _) = name.strip_prefix('[')?.split_once("] ")?;
    let (stage, place) = inside.rsplit_once(' ').unwrap_or(("", inside));
    let (number, total) = place.split_once('/')?;
    Some((stage.trim(), number.parse().ok()?, total.parse().ok()?))
}

/// Returns a name with one space before the step's number: the daemon pads it, as in `[build  1/12]`.
pub(super) fn even(name: &str) -> Cow<'_, str> {
    let Some((stage, _, _)) = place_in_stage(name) else { return Cow::Borrowed(name) };
    let Some((inside, text)) = name.split_once("] ") else { return Cow::Borrowed(name) };
    let place = inside.rsplit([' ', '[']).next().unwrap_or_default();
    let gap = if stage.is_empty() { "" } else { " " };
    Cow::Owned(format!("[{stage}{gap}{place}] {text}"))
}

/// Says whether a step has cache entries: those of bases and directories have none, as natively.
pub(super) fn is_counted(name: &str) -> bool {
    let text = name.split_once("] ").map_or(name, |(_, text)| text);
    !text.starts_with("FROM ") && !text.starts_with("WORKDIR ")
}

pub(super) fn is_cancelled(error: &str) -> bool {
    CANCELLED.iter().any(|c| error.ends_with(c))
}

/// Returns the place that ranges name.
pub(crate) fn location(file: &str, ranges: &[pb::Range]) -> Option<Location> {
    let line = |p: &Option<pb::Position>| p.as_ref().and_then(|p| u32::try_from(p.line).ok());
    let first = ranges.iter().filter_map(|r| line(&r.start)).filter(|l| *l > 0).min()?;
    let last = ranges.iter().filter_map(|r| line(&r.end)).max().unwrap_or(first).max(first);
    Some(Location { file: file.to_owned(), line: first, end_line: last, column: 0, end_column: 0 })
}
