//! What can go wrong with blobs.

use std::io;
use std::path::{Path, PathBuf};

use ashlar_core::Digest;

use crate::remote::RemoteError;

/// The result of an operation on blobs.
pub type Result<T, E = BlobError> = std::result::Result<T, E>;

/// A blob can not be had or stored.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The blob is not in the store.
    #[error("blob {0} is not in the store")]
    Missing(Digest),
    /// The bytes do not have the digest that was asked for.
    #[error("content has digest {actual}, expected {expected}")]
    Mismatch {
        /// Digest that the caller named.
        expected: Digest,
        /// Digest of the bytes.
        actual: Digest,
    },
    /// The stored bytes changed; the file was moved out of the way.
    #[error("blob {digest} was damaged on disk (now {actual}) and was moved to {}", moved_to.display())]
    Corrupt {
        /// Name of the blob.
        digest: Digest,
        /// Digest of what was found.
        actual: Digest,
        /// Where the damaged file lies now.
        moved_to: PathBuf,
    },
    /// The blob is larger than the caller allows to be held in memory.
    #[error("blob {digest} has {size} bytes, more than the {limit} allowed here")]
    TooLarge {
        /// Name of the blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The largest size allowed, in bytes.
        limit: u64,
    },
    /// The store elsewhere did not do what was asked.
    #[error(transparent)]
    Remote(RemoteError),
    /// The store elsewhere has other bytes under this name; they were not taken.
    #[error("blob {digest} is damaged in the blob store (now {actual})")]
    RemoteCorrupt {
        /// Name of the blob.
        digest: Digest,
        /// Digest of what was found.
        actual: Digest,
    },
    /// The file system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Adds what was done to which file to an I/O error.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| BlobError::Io { doing, path: path.to_owned(), source })
    }
}
