//! `GET /api/v1/builds/{build}/events`: the journal, as JSON or as a stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ashlar_core::journal::Entry;
use ashlar_service::{Actor, Error, Follower, Most, Service};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, future, stream};
use serde::{Deserialize, Serialize};

use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::Path;
use crate::{Problem, params};

/// Entries of one answer when the client does not say.
const LIMIT_DEFAULT: usize = 1000;
/// Bytes of one JSON answer about: it is made in memory.
pub(super) const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Entries that a stream reads at once.
const PIECE: usize = 500;
/// When clients of a stream that the server's stop cut off shall come back.
const RETRY: Duration = Duration::from_secs(2);
/// How long a stream may be silent.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Range {
    /// The first entry's number.
    from: Option<u64>,
    /// Entries from this time on, instead of `from`.
    since: Option<String>,
    limit: Option<usize>,
    #[serde(default)]
    follow: bool,
}

#[derive(Serialize)]
struct Entries {
    entries: Vec<Entry>,
    next: u64,
}

pub(crate) async fn events(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(build): Path<String>,
    headers: HeaderMap,
    range: Result<Query<Range>, QueryRejection>,
) -> Result<Response, Problem> {
    let (build, range) = (params::build(&build)?, range?.0);
    let from = match (&range.since, last_event(&headers)?) {
        (_, Some(last)) => last.saturating_add(1),
        (Some(time), None) => {
            let time = params::time("since", time)?;
            shared.service.number_at(&actor, build, time).await?
        }
        (None, None) => range.from.unwrap_or(0),
    };
    let wants_stream = headers
        .get("accept")
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.contains("text/event-stream"));
    if range.follow || wants_stream {
        let follower = shared.service.follow(&actor, build, from).await?;
        let frames = frames(follower, Arc::clone(&shared.service), actor);
        return Ok(Sse::new(with_goodbye(frames, shared.service))
            .keep_alive(keep_alive())
            .into_response());
    }
    let most = Most { entries: range.limit.unwrap_or(LIMIT_DEFAULT), bytes: PAGE_BYTES };
    let entries = shared.service.journal_within(&actor, build, from, most).await?;
    let next = entries.last().map_or(from, |e| e.number + 1);
    Ok(Json(Entries { entries, next }).into_response())
}

/// Returns the number in `Last-Event-ID`, where a broken stream goes on.
pub(crate) fn last_event(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let number = value.to_str().ok().and_then(|v| v.parse().ok());
    number.map(Some).ok_or_else(|| Problem::invalid("Last-Event-ID", "is not an entry's number"))
}

pub(crate) fn keep_alive() -> KeepAlive {
    KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive")
}

/// Why a stream ends although there is more to come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cut {
    /// The database or the blob store.
    #[error("the journal cannot be read")]
    Unread(#[from] ashlar_service::Error),
    /// The server ends.
    #[error("the server stops")]
    Stopped,
    /// The token was revoked, or is too old by now.
    #[error("the token is not good any more")]
    Lapsed,
}

impl From<Cut> for Problem {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Unread(error) => error.into(),
            Cut::Stopped => Error::Unavailable("the server stops".into()).into(),
            Cut::Lapsed => Error::Unauthorized("the token is not good any more").into(),
        }
    }
}

/// Returns a follower's entries as they come. It ends with the build; or with the reason when it
/// cannot go on: whoever only knows that the stream is over would take it for all there is.
pub(crate) fn entries(
    follower: Follower,
    service: Arc<Service>,
    actor: Actor,
) -> impl Stream<Item = Result<Entry, Cut>> {
    let cut = async move {
        tokio::select! {
            () = service.stopped() => Cut::Stopped,
            () = service.lapsed(&actor) => Cut::Lapsed,
        }
    };
    let pieces = stream::unfold(Some((follower, Box::pin(cut))), |going_on| async {
        let (mut follower, mut cut) = going_on?;
        let read = tokio::select! {
            biased;
            why = &mut cut => Err(why),
            read = follower.next(PIECE) => read.map_err(|error| Cut::Unread(error.into())),
        };
        match read {
            Ok(entries) if entries.is_empty() => None,
            Ok(entries) => Some((Ok(entries), Some((follower, cut)))),
            Err(cut) => {
                tracing::warn!(error = &cut as &dyn std::error::Error, "a stream ends early");
                Some((Err(cut), None))
            }
        }
    });
    pieces.flat_map(|piece| match piece {
        Ok(entries) => stream::iter(entries).map(Ok).left_stream(),
        Err(cut) => stream::once(future::ready(Err(cut))).right_stream(),
    })
}

/// Returns the items of a stream of events up to where it cannot go on: its client sees that the
/// connection ends and goes on from the last number that it saw.
pub(crate) fn up_to_cut<T>(items: impl Stream<Item = Result<T, Cut>>) -> impl Stream<Item = T> {
    items.map(Result::ok).take_while(|item| future::ready(item.is_some())).filter_map(future::ready)
}

/// Ends a stream of events that the server's stop cuts off with a hint when to come back.
pub(crate) fn with_goodbye<S>(
    frames: S,
    service: Arc<Service>,
) -> impl Stream<Item = Result<Event, Infallible>>
where
    S: Stream<Item = Result<Event, Infallible>>,
{
    let goodbye = stream::once(async move {
        let comment = "the server stops; go on from the last id";
        service.is_draining().then(|| Ok(Event::default().retry(RETRY).comment(comment)))
    });
    frames.chain(goodbye.filter_map(future::ready))
}

fn frames(
    follower: Follower,
    service: Arc<Service>,
    actor: Actor,
) -> impl Stream<Item = Result<Event, Infallible>> {
    up_to_cut(entries(follower, service, actor)).map(|entry| {
        let json = serde_json::to_value(&entry).unwrap_or_default();
        let word = json["event"].as_str().unwrap_or("event").to_owned();
        Ok(Event::default().id(entry.number.to_string()).event(word).data(json.to_string()))
    })
}
