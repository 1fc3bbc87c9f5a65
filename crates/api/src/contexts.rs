//! `POST /api/v1/contexts`: a context as a list of uploaded files, or as a tar archive.

use std::io;

use ashlar_core::Digest;
use ashlar_service::{Actor, ContextManifest, Error, Role};
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use serde::Serialize;
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::app::Shared;
use crate::auth::Caller;
use crate::{Problem, strict};

/// The largest list of files, in bytes of JSON.
const LIST_BYTES_MAX: usize = 128 << 20;

/// A context that is kept.
#[derive(Serialize)]
pub(crate) struct Kept {
    digest: String,
}

pub(crate) async fn put(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    request: Request,
) -> Result<(StatusCode, Json<Kept>), Problem> {
    actor.needs(Role::Developer)?;
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let digest = match kind.unwrap_or("").split(';').next().unwrap_or("").trim() {
        "application/json" => {
            let body = whole(request.into_body(), "the list", LIST_BYTES_MAX).await?;
            let manifest: ContextManifest =
                strict::from_slice(&body).map_err(|e| Problem::invalid("body", e))?;
            shared.service.put_context(&actor, manifest).await?
        }
        "application/x-tar" | "application/tar" | "application/gzip" | "application/zstd"
        | "application/x-gzip" => {
            take_tar(&shared, &actor, request.into_body().into_data_stream()).await?
        }
        _ => {
            let why = "must be application/json or application/x-tar";
            return Err(Problem::invalid("Content-Type", why));
        }
    };
    Ok((StatusCode::CREATED, Json(Kept { digest: digest.to_string() })))
}

/// Reads a body into memory; says why it cannot be had.
pub(crate) async fn whole(body: Body, what: &str, most: usize) -> Result<Vec<u8>, Problem> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.try_next().await.map_err(|e| Problem::invalid("body", e))? {
        if bytes.len() + piece.len() > most {
            let (what, max) = (what.to_owned(), most as u64);
            return Err(Error::TooLarge { what, max, unit: "bytes" }.into());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Keeps the context in a stream of an archive's bytes.
pub(crate) async fn take_tar<S, E>(
    shared: &Shared,
    actor: &Actor,
    stream: S,
) -> Result<Digest, Problem>
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let place = shared.service.upload_place(actor).await?;
    // The field of a form borrows the form, so its bytes go through a pipe to the thread.
    let (reader, writer) = tokio::io::duplex(PIPE_BYTES);
    let (service, actor) = (shared.service.clone(), actor.clone());
    let unpack = tokio::task::spawn_blocking(move || {
        let mut archive = SyncIoBridge::new(reader);
        let kept = service.put_context_tar(&actor, &mut archive)?;
        // What follows the archive is read too, so that the client is not cut off.
        io::copy(&mut archive, &mut io::sink()).map_err(|e| Error::invalid("context", e))?;
        drop(place);
        Ok::<_, Error>(kept)
    });
    let send = async move {
        let mut writer = writer;
        let stream = std::pin::pin!(stream.map_err(io::Error::other));
        let mut source = StreamReader::new(stream);
        tokio::io::copy(&mut source, &mut writer).await
    };
    let (sent, kept) = tokio::join!(send, unpack);
    let kept = kept.map_err(Error::internal)?;
    match (sent, kept) {
        // A broken pipe only says that the thread has given up; why, it says itself.
        (Err(error), Err(_)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Problem::invalid("body", error))
        }
        (_, Err(error)) => Err(error.into()),
        (Err(error), Ok(_)) => Err(Problem::invalid("body", error)),
        (Ok(_), Ok(digest)) => Ok(digest),
    }
}

/// What lies between the connection and the thread.
const PIPE_BYTES: usize = 256 << 10;
