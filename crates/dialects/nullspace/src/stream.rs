//! Logs as server-sent events.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ashlar_service::Actor;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::app::App;
use crate::errors::Answer;
use crate::logs::{LogReader, Owned, PIECE};
use crate::wire::LogEntry;

/// How long a stream may be silent: the SDK gives up after 30 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// What followers are told last when the server stops before the build has ended.
const GOODBYE: &[u8] = b": the server stops; go on after the last id\n\n";
/// Writes that may wait for a slow client.
const WRITES_WAITING: usize = 16;
/// Bytes of entries that go out in one write, but for the last entry of each.
pub(crate) const WRITE_BYTES: usize = 64 << 10;

/// An answer ends before it is whole; the server's log says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub(crate) struct BrokeOff;

/// Where an answer's pieces are handed in.
pub(crate) type Sender = mpsc::Sender<Result<Bytes, BrokeOff>>;

/// Pieces on their way to a client. When the client goes away, the sender sees it.
pub(crate) struct Frames(mpsc::Receiver<Result<Bytes, BrokeOff>>);

impl Stream for Frames {
    type Item = Result<Bytes, BrokeOff>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// Returns both ends of an answer that is made piece by piece.
pub(crate) fn channel() -> (Sender, Frames) {
    let (sender, receiver) = mpsc::channel(WRITES_WAITING);
    (sender, Frames(receiver))
}

/// Answers with a build's log from an offset on: what there is, and with `follow` what comes.
pub(crate) fn stream(
    app: Arc<App>,
    actor: Actor,
    owned: Owned,
    from: u64,
    follow: bool,
) -> Response {
    let (sender, frames) = channel();
    tokio::spawn(async move {
        let build = owned.build;
        let done = match follow {
            true => follow_log(&app, &actor, owned, from, &sender).await,
            false => replay(app, actor, owned, from, &sender).await,
        };
        if let Err(error) = done {
            tracing::warn!(%build, error = error.message, "a log stream broke off");
        }
    });
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

async fn replay(
    app: Arc<App>,
    actor: Actor,
    owned: Owned,
    from: u64,
    frames: &Sender,
) -> Answer<()> {
    // What is there now and no more, however fast the log grows.
    let until = app.service.row(&actor, owned.build).await?.next_number;
    let mut log = LogReader::new(app, actor, owned, (from, until)).await?;
    while log.more() {
        let (entries, rest) = log.next().await?;
        log = rest;
        if !send(&entries, frames).await? {
            return Ok(());
        }
    }
    Ok(())
}

async fn follow_log(
    app: &App,
    actor: &Actor,
    owned: Owned,
    from: u64,
    frames: &Sender,
) -> Answer<()> {
    let (tenant, build) = (owned.found.tenant, owned.build);
    let mut projector = app.projector(tenant, build, owned.found.id, (from, u64::MAX)).await?;
    let mut follower = app.service.follow(actor, build, projector.next_number()).await?;
    let mut owned = owned;
    let mut stopped = pin!(app.service.stopped());
    while !projector.ended() {
        let read = tokio::select! {
            read = timeout(SILENCE_MAX, follower.next(PIECE)) => read,
            // The build waits to go on, which may be elsewhere; the connection must not wait for it.
            () = &mut stopped => {
                // The client may have gone too.
                let _ = frames.send(Ok(Bytes::from_static(GOODBYE))).await;
                return Ok(());
            }
        };
        let read = match read {
            Ok(read) => read.map_err(crate::errors::ApiError::internal)?,
            Err(_) if frames.send(Ok(Bytes::from_static(b": keep-alive\n\n"))).await.is_ok() => {
                continue;
            }
            // The client has gone; the build goes on.
            Err(_) => return Ok(()),
        };
        if read.is_empty() {
            return Ok(());
        }
        let mut entries = Vec::new();
        read.iter().for_each(|entry| projector.add(entry, &mut entries));
        entries.retain(|e| e.offset >= from);
        owned = app.complete(owned, &mut entries).await?;
        if !send(&entries, frames).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Says whether the client is still there.
async fn send(entries: &[LogEntry], frames: &Sender) -> Answer<bool> {
    // Many entries in one write: a replay of a long log is not a write a line.
    let mut text = String::new();
    for (i, entry) in entries.iter().enumerate() {
        text.push_str(&frame(entry)?);
        let full = text.len() >= WRITE_BYTES || i + 1 == entries.len();
        if full && frames.send(Ok(Bytes::from(std::mem::take(&mut text)))).await.is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns an entry as one event. Its JSON is one line for every client: Python's `splitlines`
/// also splits at U+0085, U+2028 and U+2029, so they are escaped.
fn frame(entry: &LogEntry) -> Answer<String> {
    let json = serde_json::to_string(entry).map_err(crate::errors::ApiError::internal)?;
    let mut text = format!("id: {}\nevent: log\ndata: ", entry.offset);
    for c in json.chars() {
        match c {
            '\u{85}' | '\u{2028}' | '\u{2029}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            // C1 controls and the like pass; JSON has escaped C0 already.
            c => text.push(c),
        }
    }
    text.push_str("\n\n");
    Ok(text)
}
