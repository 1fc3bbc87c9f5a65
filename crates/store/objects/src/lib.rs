//! Blobs in an S3-compatible object store, or in a directory that several machines share.
//!
//! [`open`] takes the address of `--blob-store` and returns what stands behind a
//! [`BlobStore`](ashlar_blobs::BlobStore). Nothing is asked over the network before the first use,
//! so a server starts, and says what is wrong, while its store does not answer.
//!
//! A blob lies at `PREFIX/blobs/sha256/ab/<hex>`. It appears whole or not at all: small ones in one
//! request, large ones by multipart uploads, of which an interrupted one is seen by nobody (let the
//! bucket's life cycle abort those that are a week old; in a directory they are removed).

mod address;
mod http;
mod objects;
mod runtime;
mod staged;
mod upload;

pub use address::{AddressError, open};
