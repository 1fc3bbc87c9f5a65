//! Uploads: one request for small blobs, parts for large ones, and nothing to be seen before the
//! digest was found right.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use ashlar_blobs::RemoteError;
use ashlar_core::{Digest, Hasher};
use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStoreExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::objects::Objects;
use crate::runtime;

/// Bytes of a part, and of the largest blob that is sent in one request.
const PART_BYTES: u64 = 8 << 20;
/// Parts that one upload may have (S3: 10,000).
const PARTS_MAX: u64 = 9_000;
/// Parts that all uploads of a store hold in memory.
pub(crate) const PARTS_AT_ONCE: usize = 8;

/// Sends a blob.
pub(crate) fn upload(
    objects: &Objects,
    digest: &Digest,
    content: &mut (dyn Read + Send),
    size: u64,
) -> Result<(), RemoteError> {
    if size > PART_BYTES {
        return in_parts(objects, digest, content, size);
    }
    let permit = permit(objects)?;
    let bytes = read(content, size)?;
    check(digest, Digest::of(&bytes))?;
    let (store, key) = (Arc::clone(&objects.store), objects.key(digest));
    objects.ask("store a blob", async move {
        let stored = store.put(&key, bytes.into()).await;
        drop(permit);
        stored.map(drop)
    })
}

fn check(expected: &Digest, actual: Digest) -> Result<(), RemoteError> {
    match actual == *expected {
        true => Ok(()),
        false => Err(RemoteError::Mismatch { expected: *expected, actual }),
    }
}

/// Reads up to so many bytes.
fn read(content: &mut (dyn Read + Send), most: u64) -> io::Result<Bytes> {
    let mut bytes = Vec::with_capacity(usize::try_from(most).unwrap_or(0));
    content.take(most).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn permit(objects: &Objects) -> Result<OwnedSemaphorePermit, RemoteError> {
    let parts = Arc::clone(&objects.parts);
    let got = runtime::wait(&objects.handle, parts.acquire_owned())?;
    // Nobody closes it.
    got.map_err(|e| RemoteError::Local(io::Error::other(e)))
}

type Sent = JoinHandle<object_store::Result<()>>;

fn in_parts(
    objects: &Objects,
    digest: &Digest,
    content: &mut (dyn Read + Send),
    size: u64,
) -> Result<(), RemoteError> {
    let (store, key) = (Arc::clone(&objects.store), objects.key(digest));
    let begin = async move { store.put_multipart(&key).await };
    let mut upload = objects.ask("store a blob", begin)?;
    let mut under_way = VecDeque::new();
    let sent = send_parts(objects, &mut upload, &mut under_way, digest, content, size);
    let finish = async move {
        match sent {
            Ok(()) => (upload.complete().await.map(drop), None),
            Err(error) => {
                give_up(upload, under_way, &error).await;
                (Ok(()), Some(error))
            }
        }
    };
    match runtime::wait(&objects.handle, finish)? {
        (_, Some(error)) => Err(error),
        (done, None) => done.map_err(|e| objects.failed("store a blob", e)),
    }
}

/// Ends an upload that nobody wants any more. A part that arrives after the end would lie there
/// unseen, so all of them are waited for; not where the store does not answer anyway.
async fn give_up(
    mut upload: Box<dyn MultipartUpload>,
    under_way: VecDeque<Sent>,
    error: &RemoteError,
) {
    for part in under_way {
        if matches!(error, RemoteError::Unavailable { .. }) {
            part.abort();
        }
        // However it ended: nothing of it is wanted.
        let _ = part.await;
    }
    if let Err(error) = upload.abort().await {
        // For the bucket's life cycle.
        tracing::debug!(%error, "an upload could not be aborted");
    }
}

fn send_parts(
    objects: &Objects,
    upload: &mut Box<dyn MultipartUpload>,
    under_way: &mut VecDeque<Sent>,
    digest: &Digest,
    content: &mut (dyn Read + Send),
    size: u64,
) -> Result<(), RemoteError> {
    let part_bytes = PART_BYTES.max(size.div_ceil(PARTS_MAX));
    let mut hasher = Hasher::new();
    loop {
        // Before the reading: what was read waits in memory.
        let permit = permit(objects)?;
        let bytes = read(content, part_bytes)?;
        if bytes.is_empty() {
            break;
        }
        hasher.update(&bytes);
        let part = upload.put_part(bytes.into());
        under_way.push_back(objects.handle.spawn(async move {
            let sent = part.await;
            drop(permit);
            sent
        }));
        // The oldest ones that are done: their failure ends the upload early.
        while under_way.front().is_some_and(JoinHandle::is_finished) {
            take(objects, under_way)?;
        }
    }
    while !under_way.is_empty() {
        take(objects, under_way)?;
    }
    check(digest, hasher.finish())
}

fn take(objects: &Objects, under_way: &mut VecDeque<Sent>) -> Result<(), RemoteError> {
    let Some(oldest) = under_way.pop_front() else { return Ok(()) };
    let done = runtime::wait(&objects.handle, oldest)?;
    done.map_err(|e| RemoteError::Local(io::Error::other(e)))?
        .map_err(|e| objects.failed("store a blob", e))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::Mutex;

    use object_store::{PutPayload, PutResult, UploadPart};
    use tokio::runtime::Builder;
    use tokio::sync::oneshot;

    use super::*;

    type Said = Arc<Mutex<Vec<&'static str>>>;
    type Done<'a, T> = Pin<Box<dyn Future<Output = object_store::Result<T>> + Send + 'a>>;

    #[derive(Debug)]
    struct Told(Said);

    impl MultipartUpload for Told {
        fn put_part(&mut self, _: PutPayload) -> UploadPart {
            Box::pin(async { Ok(()) })
        }

        fn complete<'a: 'b, 'b>(&'a mut self) -> Done<'b, PutResult>
        where
            Self: 'b,
        {
            unreachable!("nobody completes what is given up")
        }

        fn abort<'a: 'b, 'b>(&'a mut self) -> Done<'b, ()>
        where
            Self: 'b,
        {
            self.0.lock().unwrap().push("abort");
            Box::pin(async { Ok(()) })
        }
    }

    /// Gives up an upload with a part that ends only when it is let, and with one that never does
    /// when `away`.
    fn said_after(away: bool) -> Vec<&'static str> {
        let said = Said::default();
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (go, wait) = oneshot::channel::<()>();
            let told = said.clone();
            let part = tokio::spawn(async move {
                let _ = wait.await;
                told.lock().unwrap().push("part");
                Ok(())
            });
            let error = match away {
                true => RemoteError::Unavailable {
                    place: "here".into(),
                    doing: "store a blob",
                    source: "away".into(),
                },
                false => RemoteError::Local(io::Error::other("the disk broke")),
            };
            let upload: Box<dyn MultipartUpload> = Box::new(Told(said.clone()));
            let end = tokio::spawn(async move { give_up(upload, [part].into(), &error).await });
            // The upload is being given up by now.
            tokio::task::yield_now().await;
            if !away {
                go.send(()).unwrap();
            }
            end.await.unwrap();
        });
        let said = said.lock().unwrap();
        said.clone()
    }

    #[test]
    fn an_upload_is_aborted_after_its_parts_have_ended() {
        assert_eq!(said_after(false), ["part", "abort"]);
        assert_eq!(said_after(true), ["abort"]);
    }
}
