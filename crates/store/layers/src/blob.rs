//! A layer's tar, compressed, with both of its digests out of one pass.

use std::io::Write;
use std::os::fd::BorrowedFd;

use ashlar_core::Digest;
use serde::{Deserialize, Serialize};

use crate::compress::{Compression, compress};
use crate::entries::Entries;
use crate::error::Result;
use crate::write::{TarOptions, write_tar};

/// A layer as an image refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBlob {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// Bytes of the uncompressed tar.
    pub tar_bytes: u64,
    /// SHA-256 of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub bytes: u64,
    /// How the blob is compressed.
    pub compression: Compression,
}

/// Writes the layer `entries`, whose files are below `root`, to `out`.
///
/// The same entries, files, options and versions of the libraries give the same blob on any machine.
///
/// # Errors
/// As [`write_tar`], and when `out` fails.
pub fn write_blob(
    entries: &Entries,
    root: BorrowedFd<'_>,
    compression: Compression,
    options: &TarOptions,
    out: &mut (impl Write + Send),
) -> Result<LayerBlob> {
    let ((), sums) =
        compress(compression, out, |tar| write_tar(entries, root, tar, options).map(drop))?;
    Ok(LayerBlob {
        diff_id: sums.input,
        tar_bytes: sums.input_bytes,
        digest: sums.output,
        bytes: sums.output_bytes,
        compression,
    })
}
