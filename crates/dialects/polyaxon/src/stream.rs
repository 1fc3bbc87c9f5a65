//! A build's log: as a file, and live over a socket.

use std::io;

use ashlar_core::journal::Entry;
use ashlar_service::Most;
use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts as _;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::builds;
use crate::code::Chunks;
use crate::dispatch::{Context, Subject};
use crate::error::{Answer, Refusal};
use crate::log::Lines;
use crate::model::{FoundBuild, FoundProject};
use crate::statuses::Status;

/// What one look takes.
const PIECE: Most = Most { entries: 2000, bytes: 1024 * 1024 };
/// A log of at most this many bytes is sent with its length.
const WHOLE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Chunks that wait for a slow client.
const CHUNKS_WAITING: usize = 4;

/// Gives the log so far as a file.
pub(crate) async fn whole(subject: Subject<'_>) -> Answer {
    let Subject { context, project, build } = subject;
    let lines = Lines::new(builds::details(context, build.id()).await?.generated);
    let mut reader = Reader { context: context.clone(), build, next: 0, lines };
    let mut text = String::new();
    let mut ended = false;
    while !ended && text.len() <= WHOLE_BYTES_MAX {
        match reader.piece().await? {
            Some(piece) => text.push_str(&piece),
            None => ended = true,
        }
    }
    let mut headers = HeaderMap::new();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain);
    let name = format!(
        "attachment; filename={}.{}.builds.{}",
        project.owner, project.project.name, reader.build.build.number
    );
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    let body = if ended { Body::from(text) } else { Body::from_stream(rest(text, reader)) };
    Ok((StatusCode::OK, headers, body).into_response())
}

/// Reads a log that is there.
struct Reader {
    context: Context,
    build: FoundBuild,
    next: u64,
    lines: Lines,
}

impl Reader {
    async fn piece(&mut self) -> Result<Option<String>, Refusal> {
        let (context, id) = (&self.context, self.build.id());
        let entries = context.service.journal_within(&context.actor, id, self.next, PIECE).await?;
        let Some(last) = entries.last() else { return Ok(None) };
        self.next = last.number + 1;
        let mut text = String::new();
        for line in entries.iter().flat_map(|entry| self.lines.feed(entry)) {
            text.push_str(&line);
            text.push('\n');
        }
        Ok(Some(text))
    }
}

fn rest(start: String, mut reader: Reader) -> Chunks {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    tokio::spawn(async move {
        let mut chunk = Ok(Bytes::from(start));
        loop {
            let failed = chunk.is_err();
            // The client may have gone.
            if sender.send(chunk).await.is_err() || failed {
                return;
            }
            chunk = match reader.piece().await {
                Ok(Some(piece)) => Ok(Bytes::from(piece)),
                Ok(None) => return,
                Err(_) => Err(io::Error::other("the log cannot be read on")),
            };
        }
    });
    Chunks(receiver)
}

/// Answers the socket's request.
pub(crate) async fn answer(
    context: Context,
    project: FoundProject,
    target: Result<FoundBuild, Refusal>,
    mut parts: Parts,
) -> Answer {
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(_) => {
            let text = "This is a web socket; connect with an upgrade.".to_owned();
            return Err(Refusal::Detail(StatusCode::BAD_REQUEST, text));
        }
    };
    match target {
        Ok(build) => Ok(upgrade.on_upgrade(move |socket| async move {
            tracing::debug!(project = project.project.name, build = %build.id(), "log socket");
            let mut stream = Stream { socket, shown: None };
            // An error here is a client that has gone, or a build that was deleted meanwhile.
            if stream.run(&context, &build).await.is_err() {
                tracing::debug!(build = %build.id(), "log socket broke");
            }
            stream.close().await;
        })),
        Err(Refusal::NotFound) => Ok(upgrade.on_upgrade(|socket| async move {
            let mut stream = Stream { socket, shown: None };
            let lost = json!({ "status": "error", "log_lines": ["Build was not found"] });
            let _ = stream.send(&lost).await;
            stream.close().await;
        })),
        Err(other) => Err(other),
    }
}

/// The socket is of no use any more.
struct Gone;

struct Stream {
    socket: WebSocket,
    shown: Option<Status>,
}

impl Stream {
    /// Sends the statuses up to `running`, all lines from the first one on, and the last status. A
    /// build that has ended is replayed: one that is answered from a cache ends before `polyaxon
    /// run -l` gets here, and an error would be all that is seen of it.
    async fn run(&mut self, context: &Context, build: &FoundBuild) -> Result<(), Gone> {
        let id = build.id();
        let details = builds::details(context, id).await.map_err(|_| Gone)?;
        let mut projection = builds::projection(&build.build, &details);
        let mut lines = Lines::new(details.generated);
        if !build.status.is_done() {
            self.status(build.status).await?;
        }
        let mut follower = context.service.follow(&context.actor, id, 0).await.map_err(|_| Gone)?;
        loop {
            let entries = tokio::select! {
                entries = follower.next(PIECE.entries) => entries.map_err(|_| Gone)?,
                message = self.socket.recv() => match message {
                    // Pings are answered by the library; nothing else is expected.
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Gone),
                    Some(Ok(_)) => continue,
                },
            };
            if entries.is_empty() {
                break;
            }
            entries.iter().for_each(|entry| projection.feed(entry));
            if let Some(status) = projection.last().filter(|s| !s.is_done()) {
                self.status(status).await?;
            }
            self.lines(&entries, &mut lines).await?;
        }
        match projection.last() {
            Some(status) if status.is_done() => self.status(status).await,
            _ => Ok(()),
        }
    }

    /// Tells a status once; never one that lies before what was told.
    async fn status(&mut self, status: Status) -> Result<(), Gone> {
        let news = self.shown != Some(status)
            && status.may_follow(self.shown.or(Some(Status::Created)))
            || self.shown.is_none();
        if !news {
            return Ok(());
        }
        self.shown = Some(status);
        self.send(&json!({ "status": status.as_str(), "log_lines": null })).await
    }

    async fn lines(&mut self, entries: &[Entry], lines: &mut Lines) -> Result<(), Gone> {
        let said: Vec<String> = entries.iter().flat_map(|entry| lines.feed(entry)).collect();
        match said.as_slice() {
            [] => Ok(()),
            [one] => self.send(&json!({ "log_lines": one })).await,
            many => self.send(&json!({ "log_lines": many })).await,
        }
    }

    async fn send(&mut self, frame: &Value) -> Result<(), Gone> {
        let text = Message::Text(frame.to_string().into());
        self.socket.send(text).await.map_err(|_| Gone)
    }

    async fn close(mut self) {
        // The client may have closed already.
        let _ = self.socket.send(Message::Close(None)).await;
        while let Some(Ok(_)) = self.socket.recv().await {}
    }
}
