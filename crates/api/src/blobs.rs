//! Blobs: what is missing, uploads that can be resumed, downloads.

use ashlar_core::Digest;
use ashlar_service::{BlobUpload, Error};
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::{Body, Path};
use crate::{Problem, files, params};

/// Bytes that are taken from a connection at once.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes of a refused body that are read, so that the client hears why.
const REFUSED_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Digests {
    digests: Vec<Digest>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Missing {
    missing: Vec<Digest>,
}

pub(crate) async fn missing(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    asked: Result<Body<Digests>, Problem>,
) -> Result<Json<Missing>, Problem> {
    let missing = shared.service.missing_blobs(&actor, asked?.0.digests).await?;
    Ok(Json(Missing { missing: missing.0 }))
}

pub(crate) async fn read(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(digest): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let digest = params::digest(&digest)?;
    let (file, size) = shared.service.open_blob(&actor, digest).await?;
    files::answer(file, size, "application/octet-stream", &headers, method != Method::HEAD)
}

#[derive(Debug, Serialize)]
pub(crate) struct Progress {
    complete: bool,
    offset: u64,
}

/// Says how far an upload is: where to go on after a break.
pub(crate) async fn progress(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(digest): Path<String>,
) -> Result<Json<Progress>, Problem> {
    let digest = params::digest(&digest)?;
    let look = move || {
        let upload = shared.service.begin_blob(&actor, digest)?;
        Ok::<_, Error>(Progress { complete: upload.is_complete(), offset: upload.offset() })
    };
    Ok(Json(tokio::task::spawn_blocking(look).await.map_err(Error::internal)??))
}

/// Takes a blob, from its beginning or, with `Content-Range: bytes N-M/SIZE`, from where an
/// earlier request broke off. It becomes visible when its last byte is there and its digest right.
pub(crate) async fn upload(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(digest): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let digest = params::digest(&digest)?;
    let part = part(request.headers())?;
    let place = match shared.service.upload_place(&actor).await {
        Ok(place) => place,
        Err(error) => {
            ashlar_http::discard(request.into_body(), REFUSED_BYTES_MAX).await;
            return Err(error.into());
        }
    };
    let stream = request.into_body().into_data_stream().map_err(std::io::Error::other);
    let mut reader = SyncIoBridge::new(StreamReader::new(stream));
    let take = move || {
        let upload = shared.service.begin_blob(&actor, digest);
        let received = upload.and_then(|upload| receive(upload, &mut reader, part));
        drop(place);
        (received, reader.into_inner())
    };
    let (received, rest) = tokio::task::spawn_blocking(take).await.map_err(Error::internal)?;
    if received.is_err() {
        // A client that still sends would see a broken connection instead of the reason.
        let mut rest = rest.take(REFUSED_BYTES_MAX);
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    }
    Ok(received?.into_response())
}

/// A part of a blob: its first byte, and the whole size when it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    from: u64,
    size: Option<u64>,
}

fn part(headers: &HeaderMap) -> Result<Option<Part>, Problem> {
    let Some(value) = headers.get(header::CONTENT_RANGE) else { return Ok(None) };
    let read = || {
        let (range, size) = value.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
        let from = range.split_once('-')?.0.parse().ok()?;
        let size = if size == "*" { None } else { Some(size.parse().ok()?) };
        Some(Part { from, size })
    };
    let part = read();
    part.map(Some).ok_or_else(|| Problem::invalid("Content-Range", "write 'bytes FIRST-LAST/SIZE'"))
}

fn receive(
    mut upload: BlobUpload,
    mut body: impl std::io::Read,
    part: Option<Part>,
) -> Result<StatusCode, Error> {
    if upload.is_complete() {
        std::io::copy(&mut body, &mut std::io::sink()).map_err(|e| Error::invalid("body", e))?;
        return Ok(StatusCode::NO_CONTENT);
    }
    match part {
        None => upload.restart()?,
        Some(part) if part.from != upload.offset() => {
            let offset = upload.offset();
            return Err(Error::Conflict(format!("the upload goes on at byte {offset}")));
        }
        Some(_) => {}
    }
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => upload.write(&buffer[..n])?,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::invalid("body", e)),
        }
    }
    if part.and_then(|p| p.size).is_some_and(|size| upload.offset() < size) {
        return Ok(StatusCode::ACCEPTED);
    }
    upload.finish()?;
    Ok(StatusCode::CREATED)
}
