//! Unpacks local archives that `ADD` finds among its sources.

use std::io::{BufReader, Read};
use std::os::fd::AsFd;

use ashlar_layers::{KnownFiles, UnpackOptions, decompress, unpack_tar};
use rustix::fs::OFlags;

use super::copy::Copier;
use super::error::{FileOpError, Result};
use super::tree::Tree;
use crate::entry::Kind;
use crate::error::ContextError;
use crate::path::{self, shown};
use crate::select::Source;

/// Length of a tar header (POSIX.1-1988, "ustar").
const HEADER_BYTES: usize = 512;

/// Where a header keeps the sum of its bytes.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Read from the archive at once.
const BUFFER_BYTES: usize = 128 * 1024;

/// Unpacks the source at `destination` when it is an archive, whatever its name. Returns whether it
/// was one; `--chmod` does not apply to what is in it, as in BuildKit.
pub(super) fn try_unpack(
    tree: &mut Tree<'_>,
    copier: &Copier<'_>,
    source: &Source,
    destination: &[u8],
    known: &mut KnownFiles,
) -> Result<bool> {
    let Some(Kind::File { .. }) = source.entries.first().map(|e| &e.kind) else {
        return Ok(false);
    };
    let open = || -> std::io::Result<std::fs::File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(std::fs::File::from(copier.from.open_plain(&source.top, flags)?))
    };
    let fail = |e: std::io::Error| ContextError::io("read", &source.path, e);
    if !is_archive(open().map_err(fail)?) {
        return Ok(false);
    }
    let dest = tree.resolve(&path::clean(destination))?.path;
    tree.make_dirs(&dest, copier.of_parents_of_archive())?;
    tree.forget_fresh();
    let (_, plain) = decompress(open().map_err(fail)?).map_err(fail)?;
    // As in BuildKit, the destination is the archive's root: its links don't lead to elsewhere in
    // the tree. Devices are as harmless as those of image layers: nothing is mounted with them.
    let root = tree.open_dir(&dest)?;
    let mut options = UnpackOptions::archive(Vec::new());
    options.devices = true;
    options.owner = copier.owner;
    options.stop = copier.stop.clone();
    options.limits.path_bytes = options.limits.path_bytes.saturating_sub(dest.len() + 1);
    let input = BufReader::with_capacity(BUFFER_BYTES, plain);
    let unpacked = unpack_tar(input, root.fd.as_fd(), &options)
        .map_err(|error| FileOpError::Unpack { path: shown(&source.path), source: error })?;
    known.extend_below(&dest, unpacked.known);
    Ok(true)
}

/// Whether the file, once decompressed, begins with a tar header.
fn is_archive(file: std::fs::File) -> bool {
    let Ok((_, plain)) = decompress(file) else { return false };
    let mut header = Vec::with_capacity(HEADER_BYTES);
    let read = plain.take(HEADER_BYTES as u64).read_to_end(&mut header);
    read.is_ok() && header.len() == HEADER_BYTES && has_checksum(&header)
}

fn has_checksum(header: &[u8]) -> bool {
    let field = &header[CHECKSUM];
    let digits: Vec<u8> =
        field.iter().copied().skip_while(|b| *b == b' ').take_while(u8::is_ascii_digit).collect();
    let stated = std::str::from_utf8(&digits).ok().and_then(|d| u64::from_str_radix(d, 8).ok());
    let byte = |(at, b): (usize, &u8)| if CHECKSUM.contains(&at) { 32 } else { u64::from(*b) };
    stated == Some(header.iter().enumerate().map(byte).sum())
}
