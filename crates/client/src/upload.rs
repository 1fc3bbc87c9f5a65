//! Uploads: only what the server lacks, several at once, each of them resumed after a break.

use std::collections::{BTreeMap, BTreeSet};
use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ashlar_core::Digest;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Body, Method, header};
use serde::Deserialize;
use serde_json::json;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::time::sleep;
use tokio_util::io::ReaderStream;

use crate::bundle::bundles;
use crate::client::is_done;
use crate::{Client, ContextEntry, Error, Stop};

/// Uploads that run at once.
const PARALLEL: usize = 8;
/// Archives of small files that are made and sent at once.
const BUNDLES_PARALLEL: usize = 2;
/// How often an upload is tried.
pub(crate) const ATTEMPTS: u32 = 5;
/// The wait before an upload is tried again; doubled each time.
pub(crate) const BACKOFF: Duration = Duration::from_millis(200);
/// Bytes that are read of a file at once.
const PIECE_BYTES: usize = 256 << 10;
/// Digests of one question.
const ASKED_AT_ONCE: usize = 50_000;

/// A file to be uploaded when the server lacks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Number of its bytes.
    pub bytes: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// What an upload came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UploadReport {
    /// Files that were sent.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that the server had.
    pub known: u64,
}

#[derive(Deserialize)]
struct Missing {
    missing: Vec<Digest>,
}

#[derive(Deserialize)]
struct Kept {
    digest: Digest,
}

#[derive(Deserialize)]
struct Progress {
    complete: bool,
    offset: u64,
}

impl Client {
    /// Uploads those of some files that the server lacks. `tell` hears how many of how many bytes
    /// have been sent.
    ///
    /// # Errors
    /// When a file cannot be read or has changed since it was hashed; [`Error::Stopped`].
    pub fn upload(
        &self,
        files: &[Upload],
        stop: Stop<'_>,
        tell: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<UploadReport, Error> {
        let by_digest: BTreeMap<Digest, &Upload> = files.iter().map(|f| (f.digest, f)).collect();
        self.wait_unless(stop, async {
            let missing = self.missing(by_digest.keys().copied().collect()).await?;
            let wanted: Vec<&Upload> =
                missing.iter().filter_map(|d| by_digest.get(d).copied()).collect();
            let total: u64 = wanted.iter().map(|f| f.bytes).sum();
            let sent = AtomicU64::new(0);
            let sum = |bytes: u64| {
                let done = sent.fetch_add(bytes, Ordering::Relaxed) + bytes;
                tell(done.min(total), total);
            };
            let (bundles, mut alone) = bundles(&wanted);
            stream::iter(&bundles)
                .map(|files| self.upload_bundle(files, &sum))
                .buffer_unordered(BUNDLES_PARALLEL)
                .try_collect::<Vec<()>>()
                .await?;
            // What has changed on its way is told as for any other file.
            let bundled = bundles.iter().flatten().map(|file| file.digest).collect();
            let late = self.missing(bundled).await?;
            alone.extend(late.iter().filter_map(|d| by_digest.get(d).copied()));
            stream::iter(&alone)
                .map(|file| self.upload_one(file, &sum))
                .buffer_unordered(PARALLEL)
                .try_collect::<Vec<()>>()
                .await?;
            let files = wanted.len() as u64;
            Ok(UploadReport { files, bytes: total, known: by_digest.len() as u64 - files })
        })
    }

    /// Returns which of these blobs the server lacks.
    async fn missing(&self, digests: Vec<Digest>) -> Result<BTreeSet<Digest>, Error> {
        let mut missing = BTreeSet::new();
        for piece in digests.chunks(ASKED_AT_ONCE) {
            let url = self.url(&["blobs", "missing"]);
            let request = self.request(Method::POST, url).json(&json!({ "digests": piece }));
            let answer: Missing = self.json("missing blobs", request).await?;
            missing.extend(answer.missing);
        }
        Ok(missing)
    }

    /// Uploads one file; after a break, what the server has not got yet.
    async fn upload_one(&self, file: &Upload, sent: &impl Fn(u64)) -> Result<(), Error> {
        let mut wait = BACKOFF;
        let mut from = 0;
        for attempt in 1.. {
            match self.send_blob(file, from, sent).await {
                Err(error) if error.may_pass() && attempt < ATTEMPTS => sleep(wait).await,
                // Somebody else uploads the same bytes, or the server has got further than we know.
                Err(Error::Refused(p)) if p.status == 409 && attempt < ATTEMPTS => {
                    sleep(wait).await;
                }
                Err(Error::Refused(p)) if p.status == 400 => return Err(changed(file)),
                other => return other,
            }
            wait *= 2;
            match self.offset(file.digest).await {
                Ok(progress) if progress.complete => return Ok(()),
                Ok(progress) => from = progress.offset.min(file.bytes),
                Err(error) if error.may_pass() => {}
                Err(Error::Refused(p)) if p.status == 409 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn offset(&self, digest: Digest) -> Result<Progress, Error> {
        let url = self.url(&["uploads", &digest.to_string()]);
        self.json("an upload", self.request(Method::GET, url)).await
    }

    async fn send_blob(&self, file: &Upload, from: u64, sent: &impl Fn(u64)) -> Result<(), Error> {
        let failed = |source| Error::File { action: "read", path: file.path.clone(), source };
        let mut open = File::open(&file.path).await.map_err(failed)?;
        open.seek(SeekFrom::Start(from)).await.map_err(failed)?;
        let left = file.bytes.saturating_sub(from);
        let url = self.url(&["blobs", &file.digest.to_string()]);
        let mut request = self.request(Method::PUT, url).header(header::CONTENT_LENGTH, left);
        if from > 0 && left > 0 {
            let range = format!("bytes {from}-{}/{}", file.bytes - 1, file.bytes);
            request = request.header(header::CONTENT_RANGE, range);
        }
        let pieces = ReaderStream::with_capacity(open.take(left), PIECE_BYTES);
        let response = self.send(request.body(Body::wrap_stream(pieces))).await?;
        if is_done(response.status()) {
            sent(left);
            return Ok(());
        }
        // It took what came and waits for more: the file is shorter than it was.
        Err(changed(file))
    }

    /// Keeps a context whose files are all there; returns its digest.
    ///
    /// # Errors
    /// [`Error::Refused`] names the entry that is wrong; [`Error::Stopped`].
    pub fn put_context(&self, entries: &[ContextEntry], stop: Stop<'_>) -> Result<Digest, Error> {
        let url = self.url(&["contexts"]);
        let request = self.request(Method::POST, url).json(&json!({ "files": entries }));
        let kept: Kept = self.wait_unless(stop, self.json("the context", request))?;
        Ok(kept.digest)
    }
}

fn changed(file: &Upload) -> Error {
    let source = std::io::Error::other("it changed while it was uploaded; build again");
    Error::File { action: "read", path: file.path.clone(), source }
}
