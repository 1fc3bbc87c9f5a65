//! A store elsewhere (an object store, a shared directory) behind the one in the data directory.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;

use ashlar_core::Digest;

use crate::store::BlobInfo;

/// Blobs that several machines share. All functions block and may be called from many threads.
///
/// Whoever implements it need not check digests on reading: [`BlobStore`](crate::BlobStore) lets no
/// byte be seen that it has not checked.
pub trait Remote: Send + Sync + Debug {
    /// Says whether the store answers and may be used.
    ///
    /// # Errors
    /// With the reason.
    fn check(&self) -> Result<(), RemoteError>;

    /// Returns name, size and age of a blob, if it is there and whole.
    ///
    /// # Errors
    /// When the store does not answer.
    fn look(&self, digest: &Digest) -> Result<Option<BlobInfo>, RemoteError>;

    /// Writes the blob's bytes from an offset on.
    ///
    /// # Errors
    /// [`RemoteError::Missing`]; when the store does not answer or writing fails.
    fn fetch(&self, digest: &Digest, from: u64, to: &mut dyn Write) -> Result<(), RemoteError>;

    /// Stores a blob of `size` bytes, which is seen by nobody before all of it is there. One that
    /// is there already is stored again and is young again.
    ///
    /// # Errors
    /// [`RemoteError::Mismatch`] when `content` has another digest, and nothing is stored; when the
    /// store does not answer or reading fails.
    fn upload(
        &self,
        digest: &Digest,
        content: &mut (dyn Read + Send),
        size: u64,
    ) -> Result<(), RemoteError>;

    /// Removes a blob; tells whether it was there.
    ///
    /// # Errors
    /// When the store does not answer.
    fn remove(&self, digest: &Digest) -> Result<bool, RemoteError>;

    /// Calls `visit` with every blob, in no order, until it says that this is enough. Blobs that
    /// are not visited yet wait elsewhere, however many there are.
    ///
    /// # Errors
    /// When the store does not answer.
    fn list(&self, visit: &mut dyn FnMut(BlobInfo) -> ControlFlow<()>) -> Result<(), RemoteError>;
}

/// A store elsewhere did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The blob is not there.
    #[error("blob {0} is not in the blob store")]
    Missing(Digest),
    /// What was to be stored has another digest.
    #[error("content has digest {actual}, expected {expected}")]
    Mismatch {
        /// Digest that the caller named.
        expected: Digest,
        /// Digest of the bytes.
        actual: Digest,
    },
    /// The store does not answer, or refuses.
    #[error("the blob store at {place} cannot {doing}")]
    Unavailable {
        /// The store's address, without credentials.
        place: String,
        /// What was being done, as a verb.
        doing: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This side could not read or write.
    #[error("cannot read or write the local copy")]
    Local(#[from] io::Error),
}
