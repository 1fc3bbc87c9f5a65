//! Builds with their logs as they are at one moment.

use std::sync::Arc;

use ashlar_service::Actor;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Serialize;

use crate::app::App;
use crate::errors::{Answer, ApiError};
use crate::logs::{LogReader, Owned};
use crate::stream::{BrokeOff, Frames, Sender, WRITE_BYTES, channel};
use crate::wire::{LogEntry, StatusSnapshot, TemplateBuild};

/// A build at one moment, and the number of the journal's entry that comes after it.
struct Moment {
    owned: Owned,
    build: TemplateBuild,
    until: u64,
}

impl App {
    /// Looks at a build. All that the record says is in the log before `until`: where it shows an
    /// end, that log has the last entry.
    async fn moment(&self, actor: &Actor, id: &str) -> Answer<Moment> {
        let mut owned = self.owned(actor, id).await?;
        let record = self.service.row(actor, owned.build).await?;
        if record.state.is_terminal() {
            owned = self.fresh(owned).await?;
        }
        let build = self.view_of(actor, &owned, &record).await?;
        Ok(Moment { owned, build, until: record.next_number })
    }

    /// Returns a build at the end of its log: nothing is said of what was before, but for the last
    /// entry of a build that has ended.
    pub(crate) async fn end_of_log(&self, actor: &Actor, id: &str) -> Answer<StatusSnapshot> {
        let Moment { owned, build, until } = self.moment(actor, id).await?;
        let projector = self.passed(actor, &owned.found, owned.build, until).await?;
        let mut entries: Vec<LogEntry> = projector.last().cloned().into_iter().collect();
        self.complete(owned, &mut entries).await?;
        Ok(StatusSnapshot { build, entries, next_offset: projector.offset() })
    }
}

/// Answers with a build and its log from an offset on. Of a long log only a piece is in memory: it
/// is sent as it is read.
pub(crate) async fn status(app: Arc<App>, actor: Actor, id: &str, offset: u64) -> Answer<Response> {
    let Moment { owned, build, until } = app.moment(&actor, id).await?;
    let log = LogReader::new(app, actor, owned, (offset, until)).await?;
    let mut text = Text::begin(&build)?;
    let (entries, log) = log.next().await?;
    for entry in &entries {
        text.entry(entry)?;
    }
    if !log.more() {
        text.end(log.end());
        return Ok(json_of(Body::from(text.bytes)));
    }
    let (sender, frames) = channel();
    tokio::spawn(async move { send(text, log, sender).await });
    Ok(json_of(Body::from_stream::<Frames>(frames)))
}

fn json_of(body: Body) -> Response {
    let mut response = Response::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Sends a snapshot's text with the rest of its log. What breaks on the way breaks the answer off,
/// so that nobody takes a part for the whole.
async fn send(text: Text, log: LogReader, sender: Sender) {
    if let Err(error) = sent(text, log, &sender).await {
        tracing::warn!(error = error.message, "a status broke off");
        // The client may have gone too.
        let _ = sender.send(Err(BrokeOff)).await;
    }
}

async fn sent(mut text: Text, mut log: LogReader, sender: &Sender) -> Answer<()> {
    while log.more() {
        let (entries, rest) = log.next().await?;
        log = rest;
        for entry in &entries {
            text.entry(entry)?;
            if text.bytes.len() >= WRITE_BYTES && sender.send(Ok(text.take())).await.is_err() {
                return Ok(());
            }
        }
    }
    text.end(log.end());
    // A client that has gone misses nothing.
    let _ = sender.send(Ok(text.take())).await;
    Ok(())
}

/// The text of a [`StatusSnapshot`], made piece by piece.
struct Text {
    bytes: Vec<u8>,
    first: bool,
}

impl Text {
    fn begin(build: &TemplateBuild) -> Answer<Self> {
        let mut text = Self { bytes: br#"{"build":"#.to_vec(), first: true };
        text.json(build)?;
        text.bytes.extend_from_slice(br#","entries":["#);
        Ok(text)
    }

    fn entry(&mut self, entry: &LogEntry) -> Answer<()> {
        if !std::mem::take(&mut self.first) {
            self.bytes.push(b',');
        }
        self.json(entry)
    }

    fn end(&mut self, next_offset: u64) {
        self.bytes.extend_from_slice(format!(r#"],"next_offset":{next_offset}}}"#).as_bytes());
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.bytes).into()
    }

    fn json(&mut self, value: &impl Serialize) -> Answer<()> {
        serde_json::to_writer(&mut self.bytes, value).map_err(ApiError::internal)
    }
}
