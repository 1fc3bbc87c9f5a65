//! Context files by content: their ids, preflight and upload.
//!
//! A blob's id says what it must be (`sha256-<hex>-<size>`), so that a preflight writes nothing. A
//! forced upload gets a generation of its own (`...-<uuid>`), which exists once its bytes have come.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ashlar_core::{Digest, Hasher};
use ashlar_service::{Actor, BlobUpload, ErrorKind, Service};
use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::StatusCode;
use serde_json::Value;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::app::App;
use crate::context::{check_path, read_mode};
use crate::documents::ForcedBlob;
use crate::errors::{Answer, ApiError, code};
use crate::fields::Fields;
use crate::wire::{PreflightAnswer, PreflightFile};

/// Pieces of an upload that may wait for the disk.
const PIECES_WAITING: usize = 16;
/// How long an upload waits for another one of the same content.
const BUSY_MAX: Duration = Duration::from_secs(20);
/// How often it looks.
const BUSY_POLL: Duration = Duration::from_millis(20);
/// When whoever waited in vain may try again, in seconds.
const BUSY_RETRY_SECS: u64 = 5;
/// How long an upload may bring nothing: whoever waits for it then still gets a turn.
const STALL_MAX: Duration = Duration::from_secs(15);

/// What a blob's id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlobId {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// The generation of a forced upload.
    pub(crate) generation: Option<Uuid>,
}

impl BlobId {
    /// Reads an id.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("sha256-")?.split('-');
        let (hex, size) = (parts.next()?, parts.next()?);
        let plain = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if hex.len() != 64 || !hex.bytes().all(plain) {
            return None;
        }
        let generation = match parts.next() {
            None => None,
            Some(digits) if digits.len() == 32 && digits.bytes().all(plain) => {
                Some(Uuid::try_parse(digits).ok()?)
            }
            Some(_) => return None,
        };
        let id = Self { digest: Digest::from_hex(hex).ok()?, size: size.parse().ok()?, generation };
        // One text an id.
        (parts.next().is_none() && id.to_string() == text).then_some(id)
    }

    /// Returns the id of the note that a build has named this generation.
    pub(crate) fn note_id(&self) -> Uuid {
        let digest = Digest::of(self.to_string());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.as_bytes()[..16]);
        Uuid::from_bytes(bytes)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256-{}-{}", self.digest.hex(), self.size)?;
        self.generation.map_or(Ok(()), |generation| write!(f, "-{}", generation.simple()))
    }
}

/// One entry of a preflight.
struct Wanted {
    path: String,
    mode: Option<String>,
    /// None for a directory.
    blob: Option<BlobId>,
}

impl App {
    /// Says which files of a context have to be uploaded, in the request's order.
    pub(crate) async fn preflight(&self, actor: &Actor, body: &Value) -> Answer<PreflightAnswer> {
        let wanted: Vec<Wanted> = Fields::new("", body)?
            .objects("files")?
            .iter()
            .map(read_wanted)
            .collect::<Answer<_>>()?;
        let plain = wanted.iter().filter_map(|w| w.blob).filter(|b| b.generation.is_none());
        let digests = plain.map(|b| b.digest).collect();
        let missing = self.service.missing_blobs(actor, digests).await?.0;
        let missing: std::collections::BTreeSet<Digest> = missing.into_iter().collect();
        let files = wanted.into_iter().map(|w| PreflightFile {
            entry_type: if w.blob.is_some() { "file" } else { "dir" },
            missing: w.blob.is_some_and(|b| b.generation.is_some() || missing.contains(&b.digest)),
            blob_id: w.blob.map(|b| b.to_string()),
            path: w.path,
            mode: w.mode,
        });
        Ok(PreflightAnswer { files: files.collect() })
    }

    /// Takes a blob's bytes.
    pub(crate) async fn upload(&self, actor: &Actor, id: &str, body: Body) -> Answer<()> {
        let wrong = |reason, message: String| {
            ApiError::upload("blob_upload", reason, message).about("blob_id", id)
        };
        actor.needs(ashlar_service::Role::Developer)?;
        let blob = BlobId::parse(id)
            .ok_or_else(|| wrong("unknown_blob", "there is no such blob; preflight it".into()))?;
        let place = self.service.upload_place(actor).await?;
        let (sender, receiver) = mpsc::channel(PIECES_WAITING);
        let (service, owner) = (Arc::clone(&self.service), actor.clone());
        let write = tokio::task::spawn_blocking(move || {
            let _place = place;
            receive(&service, &owner, blob, receiver)
        });
        let sent = send(body, &sender, STALL_MAX).await;
        drop(sender);
        let received = write.await.map_err(ApiError::internal)?;
        if let Err(why) = sent {
            return Err(wrong("incomplete", format!("the upload broke off: {why}")));
        }
        received?.map_err(|why| wrong("content_mismatch", why))?;
        if let Some(generation) = blob.generation {
            let arrived = ForcedBlob { digest: blob.digest };
            match self.objects.add_document(Some(actor.tenant.id), generation, &arrived).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Says which of these blobs have not been uploaded.
    pub(crate) async fn missing(&self, actor: &Actor, blobs: &[BlobId]) -> Answer<Vec<BlobId>> {
        let digests = blobs.iter().map(|b| b.digest).collect();
        let lacking = self.service.missing_blobs(actor, digests).await?.0;
        let lacking: std::collections::BTreeSet<Digest> = lacking.into_iter().collect();
        let mut missing = Vec::new();
        for blob in blobs {
            let arrived = match blob.generation {
                None => true,
                Some(generation) => {
                    let tenant = Some(actor.tenant.id);
                    self.objects.document::<ForcedBlob>(tenant, generation).await?.is_some()
                }
            };
            if !arrived || lacking.contains(&blob.digest) {
                missing.push(*blob);
            }
        }
        Ok(missing)
    }
}

fn read_wanted(f: &Fields<'_>) -> Answer<Wanted> {
    let path = f.text_needed("path")?;
    check_path(&path)?;
    let kind = f.one_of("entry_type", &["file", "dir"])?.unwrap_or("file");
    read_mode(f)?;
    // Given back as it came.
    let mode = f.get("mode").map(|m| m.as_str().map_or_else(|| m.to_string(), str::to_owned));
    if kind == "dir" {
        return Ok(Wanted { path, mode, blob: None });
    }
    let hex = f.text_needed("sha256")?.to_ascii_lowercase();
    let digest = Digest::from_hex(&hex);
    let digest = digest.map_err(|_| {
        ApiError::invalid(format!("{}: must be 64 hexadecimal digits", f.key("sha256")))
    })?;
    let size = f.number("size_bytes")?;
    let size =
        size.ok_or_else(|| ApiError::invalid(format!("{}: is missing", f.key("size_bytes"))))?;
    let forced = f.flag("force_upload")?.unwrap_or(false);
    let generation = forced.then(Uuid::now_v7);
    Ok(Wanted { path, mode, blob: Some(BlobId { digest, size, generation }) })
}

/// Hands a body on piece by piece; ends early when nobody takes it any more, or when nothing comes
/// for a while.
async fn send(
    mut body: Body,
    pieces: &mpsc::Sender<Bytes>,
    patience: Duration,
) -> Result<(), String> {
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx));
        let frame = tokio::time::timeout(patience, frame).await;
        match frame.map_err(|_| format!("nothing came for {} s", patience.as_secs()))? {
            None => return Ok(()),
            Some(Err(error)) => return Err(error.to_string()),
            Some(Ok(frame)) => {
                let Ok(piece) = frame.into_data() else { continue };
                if pieces.send(piece).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// Writes what comes and checks it; the inner error says what of the content is wrong. Blocks.
fn receive(
    service: &Arc<Service>,
    actor: &Actor,
    blob: BlobId,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Answer<Result<(), String>> {
    let mut upload = begin(service, actor, blob.digest, BUSY_MAX)?;
    upload.restart()?;
    let (mut hasher, mut size) = (Hasher::new(), 0_u64);
    while let Some(piece) = pieces.blocking_recv() {
        size += piece.len() as u64;
        if size > blob.size {
            break;
        }
        hasher.update(&piece);
        upload.write(&piece)?;
    }
    if size != blob.size {
        upload.restart()?;
        let said = blob.size;
        return Ok(Err(format!("the content has another size than the {said} bytes announced")));
    }
    if hasher.finish() != blob.digest {
        upload.restart()?;
        return Ok(Err("the content has another digest than the one announced".into()));
    }
    upload.finish()?;
    Ok(Ok(()))
}

/// Begins an upload; waits a while for somebody else who uploads the same content.
fn begin(
    service: &Arc<Service>,
    actor: &Actor,
    digest: Digest,
    patience: Duration,
) -> Answer<BlobUpload> {
    let begun = Instant::now();
    loop {
        match service.begin_blob(actor, digest) {
            Err(e) if e.kind() == ErrorKind::Conflict => {
                if begun.elapsed() >= patience {
                    let message = "the same content is being uploaded; try again a little later";
                    let (status, code) =
                        (StatusCode::SERVICE_UNAVAILABLE, code::FEATURE_UNAVAILABLE);
                    let busy = ApiError::new(status, code, message);
                    return Err(ApiError { retry_after: Some(BUSY_RETRY_SECS), ..busy });
                }
                std::thread::sleep(BUSY_POLL);
            }
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_spelling() {
        let plain = BlobId { digest: Digest::of("x"), size: 1, generation: None };
        let forced = BlobId { generation: Some(Uuid::now_v7()), ..plain };
        for id in [plain, forced] {
            let text = id.to_string();
            assert_eq!(BlobId::parse(&text), Some(id));
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'), "{text}");
        }
        assert_ne!(plain.note_id(), forced.note_id());
        let text = plain.to_string();
        for bad in [
            "",
            "x",
            "sha256-",
            &text[..70],
            &format!("{text}-"),
            &format!("{text}0-x"),
            &text.to_uppercase(),
            &text.replace("-1", "-01"),
            &text.replace("-1", "-+1"),
        ] {
            assert_eq!(BlobId::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn content_that_somebody_else_uploads_is_there_later() {
        let data = tempfile::tempdir().unwrap();
        let service = Service::open(ashlar_service::ServiceConfig::new(data.path())).await.unwrap();
        let (admin, digest) = (service.admin().clone(), Digest::of("x"));
        let first = begin(&service, &admin, digest, Duration::ZERO).unwrap();
        let busy = begin(&service, &admin, digest, Duration::ZERO).unwrap_err();
        assert_eq!((busy.status.as_u16(), busy.code), (503, code::FEATURE_UNAVAILABLE));
        assert_eq!(busy.retry_after, Some(BUSY_RETRY_SECS));
        drop(first);
        begin(&service, &admin, digest, Duration::ZERO).unwrap();
    }

    /// A client that sends nothing and does not go away.
    struct Silent;

    impl futures_core::Stream for Silent {
        type Item = Result<Bytes, std::io::Error>;

        fn poll_next(
            self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            std::task::Poll::Pending
        }
    }

    #[tokio::test]
    async fn an_upload_that_brings_nothing_ends() {
        let (sender, _receiver) = mpsc::channel(1);
        let sent = send(Body::from_stream(Silent), &sender, Duration::from_millis(10)).await;
        assert!(sent.unwrap_err().starts_with("nothing came"));
    }

    #[test]
    fn hashing_in_pieces_gives_the_digest() {
        let mut hasher = Hasher::new();
        hasher.update("ab").update("c");
        assert_eq!(hasher.finish(), Digest::of("abc"));
    }
}
