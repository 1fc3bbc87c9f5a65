//! Blob stores elsewhere: the same suite on a directory and on a real S3 server, and what a
//! [`BlobStore`](ashlar_blobs::BlobStore) does with them.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cache;
mod remote;
mod s3;
