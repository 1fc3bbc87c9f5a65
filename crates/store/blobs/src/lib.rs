//! Content-addressed blobs: immutable bytes named by their SHA-256 digest.
//!
//! [`BlobStore`] keeps them in the data directory and is safe to share between processes; [`Blobs`]
//! is the small part of it that a store elsewhere (an object store) can offer too. All functions
//! block the calling thread. Start with [`BlobStore::open`].
//!
//! # Durability
//! A blob is written under a temporary name and renamed when its digest is known. Nothing is
//! flushed to the disk until [`BlobStore::sync`], which flushes all blobs of this handle at once
//! and marks them as durable. A crash of the program loses nothing; after a power loss (seen by
//! the kernel's boot id) each blob that was not marked is hashed once, on its first use, and
//! set aside when it is torn.
//!
//! # A store elsewhere
//! With a [`Remote`] behind it ([`BlobStore::open_with`]) the data directory is a cache: a blob that
//! is missing is fetched, checked against its digest and only then seen; [`BlobStore::sync`] and
//! [`BlobStore::keep`] return when the blobs are elsewhere. Only what is listed or removed is always
//! what is here.

mod boot;
mod error;
mod ingest;
mod layout;
mod remote;
mod share;
mod store;
mod sweep;
mod verify;
mod writer;

use std::io::Read;

use ashlar_core::Digest;

pub use error::{BlobError, Result};
pub use ingest::{Claim, Ingest};
pub use remote::{Remote, RemoteError};
pub use share::AGE_MIN;
pub use store::{BlobInfo, BlobStore};
pub use verify::VerifiedReader;
pub use writer::BlobWriter;

/// A place for immutable bytes named by their digest.
pub trait Blobs: Send + Sync {
    /// Tells whether the blob is there and whole.
    fn has(&self, digest: &Digest) -> Result<bool>;

    /// Opens the blob for reading from its start.
    ///
    /// # Errors
    /// [`BlobError::Missing`] when it is not there.
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>>;

    /// Stores all that `content` gives; with `expected`, only when that is its digest.
    fn put(&self, content: &mut dyn Read, expected: Option<&Digest>) -> Result<BlobInfo>;

    /// Removes the blob; tells whether it was there.
    fn remove(&self, digest: &Digest) -> Result<bool>;

    /// Lists all blobs, in no order, for garbage collection.
    fn list(&self) -> Result<Vec<BlobInfo>>;
}

impl Blobs for BlobStore {
    fn has(&self, digest: &Digest) -> Result<bool> {
        BlobStore::has(self, digest)
    }

    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.open_read(digest)?))
    }

    fn put(&self, content: &mut dyn Read, expected: Option<&Digest>) -> Result<BlobInfo> {
        self.put_reader(content, expected)
    }

    fn remove(&self, digest: &Digest) -> Result<bool> {
        BlobStore::remove(self, digest)
    }

    fn list(&self) -> Result<Vec<BlobInfo>> {
        BlobStore::list(self)
    }
}
