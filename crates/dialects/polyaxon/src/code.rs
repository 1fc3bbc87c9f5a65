//! A project's code: what is there, and back again as an archive.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::pin::Pin;
use std::task::{Poll, ready};

use ashlar_core::Digest;
use ashlar_service::{ContextFile, ContextManifest, EntryKind, Error};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_core::Stream;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::body::Fields;
use crate::builds;
use crate::create::{BRANCH, find_commit, tree};
use crate::dispatch::{Context, Subject};
use crate::error::{Answer, Refusal, empty, reply};
use crate::model::FoundProject;
use crate::patch::edit_details;
use crate::wire;

/// The largest file that can be given back, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// What is sent at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that wait for a slow client.
const CHUNKS_WAITING: usize = 8;
/// The time of all files: contexts have none of their own.
const FILE_TIME_SECONDS: u64 = 315_619_200;
/// The keys of a code reference that somebody may post.
const REFERENCE: [&str; 7] =
    ["commit", "head", "branch", "git_url", "is_dirty", "repo", "external_repo"];

/// A body that is sent as it is made.
pub(crate) struct Chunks(pub(crate) mpsc::Receiver<io::Result<Bytes>>);

impl Stream for Chunks {
    type Item = io::Result<Bytes>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        Poll::Ready(ready!(self.0.poll_recv(cx)))
    }
}

pub(crate) fn repo(found: &FoundProject) -> Answer {
    if found.project.head.is_none() {
        return Err(Refusal::NotFound);
    }
    let body = json!({
        "project": format!("{}.{}", found.owner, found.project.name),
        "created_at": wire::instant(found.created_at),
        "updated_at": wire::instant(found.updated_at),
        "is_public": found.project.is_public,
    });
    Ok(reply(StatusCode::OK, &body))
}

/// Code comes by upload here, never from a repository somewhere else.
pub(crate) fn external(found: &FoundProject) -> Answer {
    if found.project.head.is_some() {
        let text = "The project has uploaded code already.".to_owned();
        return Err(Refusal::Detail(StatusCode::FORBIDDEN, text));
    }
    Err(Refusal::Text("Could not clone the repository; upload the code instead.".into()))
}

pub(crate) fn sync(found: &FoundProject) -> Answer {
    match found.project.head {
        Some(_) => Ok(empty(StatusCode::OK)),
        None => Err(Refusal::NotFound),
    }
}

/// Gives a commit's files as a gzip tar, with its length: the CLI's progress bar insists on one.
pub(crate) async fn download(context: &Context, found: &FoundProject) -> Answer {
    let wanted = context.asked.parameter("commit").filter(|sha| !sha.is_empty());
    let head = found.project.head.as_deref().ok_or(Refusal::NotFound)?;
    let commit = find_commit(context, found, wanted.unwrap_or(head)).await?;
    let commit = commit.ok_or(Refusal::NotFound)?;
    let tree = tree(context, Some(&commit)).await?;
    let (context, handle) = (context.clone(), Handle::current());
    let made = tokio::task::spawn_blocking(move || {
        archive(&tree, |digest| {
            let read = context.service.read_blob(&context.actor, digest, FILE_BYTES_MAX);
            handle.block_on(read)
        })
    });
    let (file, bytes) = made.await.map_err(|e| Error::Internal(Box::new(e)))??;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/gzip"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    let length = HeaderName::from_static("x-polyaxon-content-length");
    headers.insert(length, HeaderValue::from(bytes));
    let name = format!("attachment; filename={}.tar.gz", found.project.name);
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok((headers, Body::from_stream(sent(file))).into_response())
}

/// Sends a file from its beginning.
fn sent(mut file: File) -> Chunks {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let chunk = match file.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => Ok(Bytes::copy_from_slice(&buffer[..n])),
                Err(error) => Err(error),
            };
            let failed = chunk.is_err();
            // The client may have gone.
            if sender.blocking_send(chunk).is_err() || failed {
                return;
            }
        }
    });
    Chunks(receiver)
}

/// Writes a tree as a gzip tar without a leading folder; returns the file and its length.
fn archive(
    tree: &ContextManifest,
    read: impl Fn(Digest) -> Result<Vec<u8>, Error>,
) -> Result<(File, u64), Error> {
    let broken = |e: io::Error| Error::Internal(Box::new(e));
    let file = tempfile::tempfile().map_err(broken)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
    for file in &tree.files {
        let bytes = match &file.kind {
            EntryKind::File { digest, .. } => read(*digest)?,
            _ => Vec::new(),
        };
        append(&mut archive, file, &bytes).map_err(broken)?;
    }
    let encoder = archive.into_inner().map_err(broken)?;
    let mut file = encoder.finish().map_err(broken)?;
    let bytes = file.stream_position().map_err(broken)?;
    file.rewind().map_err(broken)?;
    Ok((file, bytes))
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    file: &ContextFile,
    bytes: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(FILE_TIME_SECONDS);
    match &file.kind {
        EntryKind::File { .. } => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(file.mode.unwrap_or(0o644));
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, &file.path, bytes)
        }
        EntryKind::Dir => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(file.mode.unwrap_or(0o755));
            header.set_size(0);
            archive.append_data(&mut header, &file.path, bytes)
        }
        EntryKind::Symlink { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            archive.append_link(&mut header, &file.path, target)
        }
    }
}

/// Says which code a build has; `polyaxon build code` asks, then downloads that commit.
pub(crate) async fn reference(subject: Subject<'_>) -> Answer {
    let Subject { context, project, build } = subject;
    let details = builds::details(context, build.id()).await?;
    let body = reference_body(project, &build.build, details.code_reference.as_ref());
    Ok(reply(StatusCode::OK, &body))
}

fn reference_body(
    project: &FoundProject,
    build: &crate::model::Build,
    posted: Option<&Value>,
) -> Value {
    let mut map = wire::object(json!({
        "id": build.number,
        "commit": build.commit,
        "head": project.project.head,
        "branch": BRANCH,
        "git_url": null,
        "is_dirty": false,
        "repo": project.project.head.as_ref().map(|_| project.project.number),
        "external_repo": null,
    }));
    if let Some(Value::Object(posted)) = posted {
        map.extend(posted.clone());
    }
    Value::Object(map)
}

/// Keeps the code reference of a build that was built elsewhere.
pub(crate) async fn post_reference(subject: Subject<'_>, fields: &Fields) -> Answer {
    let Subject { context, project, build } = subject;
    context.may_change()?;
    let commit = fields.text("commit")?;
    let known = |(name, value): (&String, &Value)| {
        let plain = !value.is_object() && !value.is_array() && !value.is_null();
        (plain && REFERENCE.contains(&name.as_str())).then(|| (name.clone(), value.clone()))
    };
    let posted: Map<String, Value> = fields.0.iter().filter_map(known).collect();
    let posted = Value::Object(posted);
    edit_details(context, &build, |d| d.code_reference = Some(posted.clone())).await?;
    let build = builds::edit(context, build, |b| {
        if commit.is_some() {
            b.commit.clone_from(&commit);
        }
        builds::touch(b);
    });
    let build = build.await?;
    let body = reference_body(project, &build.build, Some(&posted));
    Ok(reply(StatusCode::CREATED, &body))
}
