//! Code uploads: a gzip tar in a multipart body becomes the project's newest commit.

use std::io::{self, BufRead as _, BufReader, Read};
use std::sync::Arc;

use ashlar_core::Digest;
use ashlar_service::{Actor, Error, Service};
use axum::body::{Body, Bytes};
use axum::extract::multipart::Field;
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use flate2::bufread::MultiGzDecoder;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::create::find_commit;
use crate::dispatch::{Context, is_conflict};
use crate::error::{Answer, Refusal, empty, reply};
use crate::model::{Commit, FoundProject};
use crate::projects;

/// The largest upload, in bytes; the original's proxy allowed as much.
const UPLOAD_BYTES_MAX: u64 = 4 << 30;
/// What an upload may unpack to, in bytes, with all headers.
const UNPACKED_BYTES_MAX: u64 = 16 << 30;
/// The longest `json` part, in bytes.
const JSON_BYTES_MAX: usize = 64 * 1024;
/// Parts of one body.
const PARTS_MAX: usize = 16;
/// Chunks that wait to be unpacked.
const CHUNKS_WAITING: usize = 8;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Takes an upload.
pub(crate) async fn upload(
    context: &Context,
    found: FoundProject,
    parts: Parts,
    body: Body,
) -> Answer {
    context.may_change()?;
    let request = Request::from_parts(parts, body);
    let mut multipart = match Multipart::from_request(request, &()).await {
        Ok(multipart) => multipart,
        Err(refused) => {
            let status = refused.into_response().status();
            return Err(Refusal::Detail(status, "The body must be multipart/form-data.".into()));
        }
    };
    let (mut tree, mut sync) = (None, false);
    for _ in 0..PARTS_MAX {
        let Some(field) = multipart.next_field().await.map_err(|_| broken())? else { break };
        match field.name() {
            Some("repo") if tree.is_none() => tree = Some(unpacked(context, field).await?),
            Some("json") => sync = wants_sync(field).await?,
            _ => skip(field).await?,
        }
    }
    let tree = tree.ok_or_else(|| Refusal::Field("repo", "No file was submitted.".into()))?;
    commit(context, found, tree).await?;
    match sync {
        // What the original says of a project without continuous integration.
        true => Ok(reply(StatusCode::OK, &json!("Could not trigger the project CI."))),
        false => Ok(empty(StatusCode::OK)),
    }
}

fn broken() -> Refusal {
    Refusal::Detail(StatusCode::BAD_REQUEST, "Multipart form parse error.".into())
}

fn too_large() -> Refusal {
    let what = "the upload".to_owned();
    Error::TooLarge { what, max: UPLOAD_BYTES_MAX, unit: "bytes" }.into()
}

async fn wants_sync(mut field: Field<'_>) -> Result<bool, Refusal> {
    let mut text = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|_| broken())? {
        if text.len() + chunk.len() > JSON_BYTES_MAX {
            return Err(Refusal::Field("json", "It is too long.".into()));
        }
        text.extend_from_slice(&chunk);
    }
    let value: Value = serde_json::from_slice(&text).unwrap_or_default();
    Ok(value["sync"].as_bool().unwrap_or(false))
}

async fn skip(mut field: Field<'_>) -> Result<(), Refusal> {
    let mut room = UPLOAD_BYTES_MAX;
    while let Some(chunk) = field.chunk().await.map_err(|_| broken())? {
        room = room.checked_sub(chunk.len() as u64).ok_or_else(too_large)?;
    }
    Ok(())
}

/// Unpacks an archive while it arrives. When it is refused early the rest is still read: a client
/// that is cut off while it writes never sees why.
async fn unpacked(context: &Context, mut field: Field<'_>) -> Result<Digest, Refusal> {
    let place = context.service.upload_place(&context.actor).await?;
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    let (service, actor) = (Arc::clone(&context.service), context.actor.clone());
    let unpacking = tokio::task::spawn_blocking(move || {
        let _place = place;
        unpack(&service, &actor, receiver)
    });
    let mut room = UPLOAD_BYTES_MAX;
    let end = loop {
        match field.chunk().await {
            Ok(None) => break Ok(()),
            Ok(Some(chunk)) => match room.checked_sub(chunk.len() as u64) {
                Some(left) => {
                    room = left;
                    // Nobody listens any more when the archive was refused.
                    let _ = sender.send(Ok(chunk)).await;
                }
                None => break Err(too_large()),
            },
            Err(_) => break Err(broken()),
        }
    };
    if end.is_err() {
        let _ = sender.send(Err(io::ErrorKind::UnexpectedEof.into())).await;
    }
    drop(sender);
    let tree = unpacking.await.map_err(|e| Error::Internal(Box::new(e)))?;
    end?;
    if room == UPLOAD_BYTES_MAX {
        return Err(Refusal::Field("repo", "The submitted file is empty.".into()));
    }
    Ok(tree?)
}

fn unpack(
    service: &Arc<Service>,
    actor: &Actor,
    chunks: mpsc::Receiver<io::Result<Bytes>>,
) -> Result<Digest, Error> {
    let mut reader = BufReader::new(Arriving { chunks, current: Bytes::new() });
    let start = reader.fill_buf().map_err(|e| Error::invalid("repo", e))?;
    let plain: Box<dyn Read + Send> = match start.starts_with(&GZIP_MAGIC) {
        true => Box::new(MultiGzDecoder::new(reader)),
        false => Box::new(reader),
    };
    service.put_context_tar(actor, &mut Bounded { inner: plain, room: UNPACKED_BYTES_MAX })
}

/// Reads what another task sends.
struct Arriving {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.current = chunk?,
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

/// Fails once too much has come out.
struct Bounded {
    inner: Box<dyn Read + Send>,
    room: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.room = self.room.checked_sub(n as u64).ok_or_else(|| {
            io::Error::other(format!("it unpacks to more than {UNPACKED_BYTES_MAX} bytes"))
        })?;
        Ok(n)
    }
}

/// Makes a tree the newest commit, unless it is that already.
async fn commit(context: &Context, found: FoundProject, tree: Digest) -> Result<(), Refusal> {
    let head = found.project.head.clone();
    if let Some(head) = &head
        && let Some(newest) = find_commit(context, &found, head).await?
        && newest.tree == tree
    {
        return Ok(());
    }
    let new = Commit::new(found.id, head, tree);
    let id = Commit::id(found.id, &new.sha);
    match context.store.add_document(context.tenant(), id, &new).await {
        // The same upload twice at the same time.
        Err(error) if is_conflict(&error) => {}
        other => other?,
    }
    projects::edit(context, found, |project| project.head = Some(new.sha.clone())).await?;
    Ok(())
}
