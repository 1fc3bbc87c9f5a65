//! The store itself: keys, requests, errors.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use ashlar_blobs::{BlobInfo, Remote, RemoteError};
use ashlar_core::Digest;
use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::{runtime, upload};

/// Pieces of a blob that wait to be written while more come.
const PIECES_MAX: usize = 8;
/// How often a transfer that broke off is gone on with.
const RESUMES_MAX: u32 = 5;

/// Blobs in an object store.
#[derive(Debug)]
pub(crate) struct Objects {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) handle: Handle,
    /// Bounds what all uploads hold in memory.
    pub(crate) parts: Arc<Semaphore>,
    prefix: Path,
    place: String,
}

impl Objects {
    pub(crate) fn new(
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        place: String,
    ) -> io::Result<Self> {
        let (handle, parts) = (runtime::handle()?, Arc::new(Semaphore::new(upload::PARTS_AT_ONCE)));
        Ok(Self { store, handle, parts, prefix, place })
    }

    fn root(&self) -> Path {
        self.prefix.clone().join("blobs").join("sha256")
    }

    pub(crate) fn key(&self, digest: &Digest) -> Path {
        let hex = digest.hex();
        self.root().join(&hex[..2]).join(hex)
    }

    /// Runs one request and waits for its answer.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T, RemoteError> {
        runtime::wait(&self.handle, request)?.map_err(|e| self.failed(doing, e))
    }

    pub(crate) fn failed(&self, doing: &'static str, source: Error) -> RemoteError {
        RemoteError::Unavailable { place: self.place.clone(), doing, source: Box::new(source) }
    }

    /// Writes what one request gives, and moves `at` along.
    fn fetch_some(
        &self,
        digest: &Digest,
        at: &mut u64,
        to: &mut dyn Write,
    ) -> Result<(), RemoteError> {
        let (store, key, from) = (Arc::clone(&self.store), self.key(digest), *at);
        let (pieces, mut incoming) = mpsc::channel::<object_store::Result<Bytes>>(PIECES_MAX);
        self.handle.spawn(async move {
            let range = (from > 0).then_some(GetRange::Offset(from));
            let mut stream =
                match store.get_opts(&key, GetOptions { range, ..Default::default() }).await {
                    Ok(answer) => answer.into_stream(),
                    Err(error) => return drop(pieces.send(Err(error)).await),
                };
            while let Some(piece) = stream.next().await {
                let is_last = piece.is_err();
                if pieces.send(piece).await.is_err() || is_last {
                    return;
                }
            }
        });
        while let Some(piece) = self.next(&mut incoming)? {
            let piece = piece.map_err(|e| match e {
                Error::NotFound { .. } => RemoteError::Missing(*digest),
                error => self.failed("read a blob", error),
            })?;
            to.write_all(&piece)?;
            *at += piece.len() as u64;
        }
        Ok(())
    }

    fn next<T: Send>(&self, incoming: &mut mpsc::Receiver<T>) -> io::Result<Option<T>> {
        // On a thread that may block this waits; on one that may not it says so.
        match Handle::try_current() {
            Ok(_) => Ok(tokio::task::block_in_place(|| incoming.blocking_recv())),
            Err(_) => Ok(incoming.blocking_recv()),
        }
    }

    fn info(meta: &ObjectMeta) -> Option<BlobInfo> {
        let digest = Digest::from_hex(meta.location.filename()?).ok()?;
        Some(BlobInfo { digest, size: meta.size, modified: meta.last_modified.into() })
    }
}

impl Remote for Objects {
    fn check(&self) -> Result<(), RemoteError> {
        let store = Arc::clone(&self.store);
        // A prefix that nothing has: the answer is short, and tells whether the bucket is there.
        let nothing = self.prefix.clone().join("check");
        let request = async move { store.list_with_delimiter(Some(&nothing)).await };
        self.ask("be listed", request).map(drop)
    }

    fn look(&self, digest: &Digest) -> Result<Option<BlobInfo>, RemoteError> {
        let (store, key) = (Arc::clone(&self.store), self.key(digest));
        let request = async move {
            match store.head(&key).await {
                Err(Error::NotFound { .. }) => Ok(None),
                other => other.map(Some),
            }
        };
        Ok(self.ask("look for a blob", request)?.as_ref().and_then(Self::info))
    }

    fn fetch(&self, digest: &Digest, from: u64, to: &mut dyn Write) -> Result<(), RemoteError> {
        if from > 0 {
            let there = self.look(digest)?.ok_or(RemoteError::Missing(*digest))?;
            if there.size <= from {
                return Ok(());
            }
        }
        let (mut at, mut tries) = (from, 0);
        loop {
            let before = at;
            match self.fetch_some(digest, &mut at, to) {
                Err(RemoteError::Unavailable { .. }) if at > before && tries < RESUMES_MAX => {
                    tries += 1;
                    tracing::debug!(%digest, at, "going on with a transfer that broke off");
                }
                other => return other,
            }
        }
    }

    fn upload(
        &self,
        digest: &Digest,
        content: &mut (dyn Read + Send),
        size: u64,
    ) -> Result<(), RemoteError> {
        upload::upload(self, digest, content, size)
    }

    fn remove(&self, digest: &Digest) -> Result<bool, RemoteError> {
        let there = self.look(digest)?.is_some();
        let (store, key) = (Arc::clone(&self.store), self.key(digest));
        let request = async move {
            match store.delete(&key).await {
                Err(Error::NotFound { .. }) => Ok(()),
                other => other,
            }
        };
        self.ask("remove a blob", request).map(|()| there)
    }

    fn list(&self, visit: &mut dyn FnMut(BlobInfo) -> ControlFlow<()>) -> Result<(), RemoteError> {
        let (store, root) = (Arc::clone(&self.store), self.root());
        let (found, mut incoming) = mpsc::channel(PIECES_MAX);
        self.handle.spawn(async move {
            let mut stream = store.list(Some(&root));
            while let Some(meta) = stream.next().await {
                if found.send(meta).await.is_err() {
                    return;
                }
            }
        });
        while let Some(meta) = self.next(&mut incoming)? {
            let meta = meta.map_err(|e| self.failed("be listed", e))?;
            // Other objects below the prefix are somebody else's.
            if Self::info(&meta).is_some_and(|info| visit(info).is_break()) {
                break;
            }
        }
        Ok(())
    }
}
