//! `GET /api/v1/builds/{build}/logs`: the log as JSON, text, HTML, raw bytes or a stream.

use std::convert::Infallible;
use std::sync::Arc;

use ashlar_core::BuildId;
use ashlar_core::journal::{LogLine, Stream as Origin};
use ashlar_service::{Actor, LogLineAt, Most, Service, line_bytes};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, future, stream};
use serde::{Deserialize, Serialize};

use super::events::{Cut, PAGE_BYTES, entries, keep_alive, last_event, up_to_cut, with_goodbye};
use super::html::Looks;
use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::{Problem, params};

/// Lines of one JSON answer when the client does not say.
const LIMIT_DEFAULT: usize = 1000;
/// Lines of one JSON answer at most.
const LIMIT_MAX: usize = 10_000;
/// Entries that are read at once for a JSON answer, at least and at most.
const ENTRIES_AT_ONCE: (usize, usize) = (100, 1000);
/// Bytes that are read at once for a JSON answer at least: of a step's lines few may be among them.
const BYTES_AT_ONCE: usize = 64 * 1024;
/// Entries that one JSON answer looks through about: a step may have few lines in a long log.
const ENTRIES_LOOKED_AT_MAX: u64 = 50_000;
/// Lines that are sent in one piece at most.
const LINES_AT_ONCE: usize = 256;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    from: Option<u64>,
    since: Option<String>,
    limit: Option<usize>,
    /// Only lines of this step.
    step: Option<u32>,
    /// Only lines with this text.
    search: Option<String>,
    format: Option<Format>,
    #[serde(default)]
    follow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Text,
    Html,
    Raw,
    Sse,
}

#[derive(Serialize)]
struct Lines {
    lines: Vec<Line>,
    /// Where to go on; absent when the build has ended and there is no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// A line as JSON shows it.
#[derive(Serialize)]
struct Line {
    number: u64,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<u32>,
    stream: &'static str,
    level: ashlar_core::journal::Level,
    text: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

impl From<LogLineAt> for Line {
    fn from(at: LogLineAt) -> Self {
        Self {
            number: at.number,
            time: at.time.rfc3339(),
            step: at.line.step.map(|s| s.0),
            stream: origin(at.line.stream),
            level: at.line.level,
            text: at.line.text,
            partial: at.line.partial,
        }
    }
}

const fn origin(stream: Origin) -> &'static str {
    match stream {
        Origin::Stdout => "stdout",
        Origin::Stderr => "stderr",
        Origin::Service => "service",
    }
}

pub(crate) async fn logs(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(build): Path<String>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let (build, asked) = (params::build(&build)?, asked?.0);
    let service = &shared.service;
    if let Some(removed) = service.log_removed(&actor, build).await? {
        return Err(removed.into());
    }
    let from = match (&asked.since, last_event(&headers)?) {
        (_, Some(last)) => last.saturating_add(1),
        (Some(time), None) => {
            service.number_at(&actor, build, params::time("since", time)?).await?
        }
        (None, None) => asked.from.unwrap_or(0),
    };
    let format = format(&asked, &headers)?;
    if let Some(text) = &asked.search {
        if format != Format::Json {
            let why = "goes with the format 'json' alone, since it may end before the log does";
            return Err(Problem::invalid("search", why));
        }
        let limit = asked.limit.unwrap_or(LIMIT_DEFAULT);
        let found = service.search_log(&actor, build, text, from, limit).await?;
        let lines = found.lines.into_iter().filter(|l| asked.wants(&l.line));
        let lines = lines.map(Line::from).collect();
        return Ok(Json(Lines { lines, next: found.next }).into_response());
    }
    if format == Format::Json {
        return Ok(Json(page(service, &actor, build, from, &asked).await?).into_response());
    }
    let row = service.row(&actor, build).await?;
    // Without `follow` a stream ends with what there is now.
    let end = if asked.follow || format == Format::Sse { u64::MAX } else { row.next_number };
    if from >= end {
        return Ok(streamed(format, shared.service, stream::empty()));
    }
    let follower = service.follow(&actor, build, from).await?;
    // Numbers have no gaps, so their count says where to stop, without a wait for one more.
    let count = usize::try_from(end - from).unwrap_or(usize::MAX);
    let limit = asked.limit.unwrap_or(usize::MAX);
    let follows = end == u64::MAX;
    let lines = entries(follower, service.clone(), actor)
        .take(count)
        .filter_map(|e| future::ready(e.map(LogLineAt::of).transpose()))
        .filter(move |l| future::ready(l.as_ref().map_or(true, |l| asked.wants(&l.line))))
        .take(limit);
    if follows {
        return Ok(streamed(format, shared.service, lines));
    }
    // What cannot be read at all is no answer with nothing in it.
    let mut lines = Box::pin(lines);
    let first = lines.next().await.transpose()?;
    Ok(streamed(format, shared.service, stream::iter(first.map(Ok)).chain(lines)))
}

/// Reads lines until there are as many as wanted, or as fit one answer, or no more now.
async fn page(
    service: &Service,
    actor: &Actor,
    build: BuildId,
    from: u64,
    asked: &Asked,
) -> Result<Lines, Problem> {
    let limit = asked.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX);
    // Looked at before the log: once a build has ended, no line is written any more.
    let row = service.row(actor, build).await?;
    let (mut lines, mut next, mut left) = (Vec::new(), from, PAGE_BYTES);
    let end = row.next_number.min(from.saturating_add(ENTRIES_LOOKED_AT_MAX));
    while lines.len() < limit && left > 0 && next < end {
        let count = (limit - lines.len()).clamp(ENTRIES_AT_ONCE.0, ENTRIES_AT_ONCE.1);
        let most = Most { entries: count, bytes: left.max(BYTES_AT_ONCE) };
        let (read, after) = service.log(actor, build, next, most).await?;
        if after == next {
            break;
        }
        next = after;
        for line in read.into_iter().filter(|l| asked.wants(&l.line)) {
            left = left.saturating_sub(line_bytes(&line.line));
            lines.push(Line::from(line));
        }
        if lines.len() > limit {
            lines.truncate(limit);
            next = lines.last().map_or(from, |l| l.number + 1);
        }
    }
    let is_all = row.state.is_terminal() && next >= row.next_number;
    Ok(Lines { lines, next: (!is_all).then_some(next) })
}

impl Asked {
    fn wants(&self, line: &LogLine) -> bool {
        self.step.is_none_or(|step| line.step.is_some_and(|s| s.0 == step))
    }
}

/// Returns the form that is wanted. What follows a log is a stream, of events when nothing is said.
fn format(asked: &Asked, headers: &HeaderMap) -> Result<Format, Problem> {
    match (asked.format, accepted(headers)) {
        (Some(Format::Json), _) if asked.follow => {
            let why = "does not go with the format 'json', which ends; leave out 'format' for a \
                       stream of events";
            Err(Problem::invalid("follow", why))
        }
        (None, Format::Json) if asked.follow => Ok(Format::Sse),
        (asked, accepted) => Ok(asked.unwrap_or(accepted)),
    }
}

fn accepted(headers: &HeaderMap) -> Format {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    match accept.split([',', ';']).next().unwrap_or("").trim() {
        "text/plain" => Format::Text,
        "text/html" => Format::Html,
        "text/event-stream" => Format::Sse,
        "application/octet-stream" => Format::Raw,
        _ => Format::Json,
    }
}

fn streamed(
    format: Format,
    service: Arc<Service>,
    lines: impl Stream<Item = Result<LogLineAt, Cut>> + Send + 'static,
) -> Response {
    if format == Format::Sse {
        let frames = up_to_cut(lines).map(|line| {
            let id = line.number.to_string();
            let data = serde_json::to_string(&Line::from(line)).unwrap_or_default();
            Ok::<_, Infallible>(Event::default().id(id).event("log").data(data))
        });
        return Sse::new(with_goodbye(frames, service)).keep_alive(keep_alive()).into_response();
    }
    let kind = match format {
        Format::Html => "text/html; charset=utf-8",
        Format::Raw => "application/octet-stream",
        _ => "text/plain; charset=utf-8",
    };
    // A cut breaks the connection off: its client must not take what it has for the whole.
    let mut looks = Looks::default();
    let lines = lines.map(move |line| line.map(|line| written(format, line.line, &mut looks)));
    let bytes = lines.ready_chunks(LINES_AT_ONCE).flat_map(|lines| stream::iter(joined(lines)));
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(bytes)).into_response()
}

/// Joins lines up to a cut, which follows by itself.
fn joined(lines: Vec<Result<Vec<u8>, Cut>>) -> impl Iterator<Item = Result<Vec<u8>, Cut>> {
    let mut bytes = Vec::new();
    let cut = lines.into_iter().find_map(|line| match line {
        Ok(line) => {
            bytes.extend_from_slice(&line);
            None
        }
        Err(cut) => Some(cut),
    });
    [Some(Ok(bytes)), cut.map(Err)].into_iter().flatten()
}

fn written(format: Format, line: LogLine, looks: &mut Looks) -> Vec<u8> {
    // What people read has one line a line, also where a stream ended within one.
    let unended = line.unended && format == Format::Raw;
    let end = if line.partial || unended { "" } else { "\n" };
    let mut bytes = match format {
        Format::Raw => line.raw.unwrap_or_else(|| line.text.into_bytes()),
        Format::Html => looks.html(&line).into_bytes(),
        _ => plain(&line.text).into_bytes(),
    };
    bytes.extend_from_slice(end.as_bytes());
    bytes
}

/// Removes terminal sequences.
fn plain(text: &str) -> String {
    super::html::pieces(text).map(|(_, piece)| piece).collect()
}
