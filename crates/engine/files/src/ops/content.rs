//! Copies the bytes of a file, holes kept, and tells their digest.

use std::os::fd::{AsFd, OwnedFd};

use ashlar_core::{Digest, Hasher};
use ashlar_layers::Stop;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::context::{READ_BYTES, with_buffer};
use crate::entry::{Entry, Stamp};
use crate::root::stat_fd;

/// Bytes that the kernel is asked to copy at once, so that a stop is noticed.
const RANGE_BYTES: u64 = 64 * 1024 * 1024;

/// What became of a copy.
pub(super) enum Copied {
    Done(Digest),
    /// The source is not what it was when it was scanned.
    Changed,
}

/// Copies all of `from` into the empty file `to`. Fails with `ECANCELED` when asked to stop.
pub(super) fn copy(
    from: &OwnedFd,
    to: &OwnedFd,
    entry: &Entry,
    stop: &Stop,
) -> rustix::io::Result<Copied> {
    let size = entry.stamp.size;
    if size < READ_BYTES as u64 {
        return with_buffer(|buffer| copy_small(from, to, entry, buffer));
    }
    let before = stat_fd(from.as_fd())?;
    if entry.content().is_some() && Stamp::of(&before) != entry.stamp {
        return Ok(Copied::Changed);
    }
    let sparse = before.stx_blocks * 512 < before.stx_size;
    let digest = match entry.content() {
        // The stamps before and after vouch for what was hashed; reading it again would take longer
        // than copying it.
        Some(known) if !sparse => {
            if !copy_in_kernel(from, to, size, stop)? {
                with_buffer(|buffer| copy_range(from, to, None, (0, size), buffer, stop))?;
            }
            known
        }
        known => {
            let read = copy_hashed(from, to, before.stx_size, sparse, stop)?;
            if known.is_some_and(|known| known != read) {
                return Ok(Copied::Changed);
            }
            read
        }
    };
    let after = stat_fd(from.as_fd())?;
    Ok(if Stamp::of(&after) == Stamp::of(&before) { Copied::Done(digest) } else { Copied::Changed })
}

/// A file that fits into the buffer: one read, one write, and its digest is checked for free.
fn copy_small(
    from: &OwnedFd,
    to: &OwnedFd,
    entry: &Entry,
    buffer: &mut [u8],
) -> rustix::io::Result<Copied> {
    let size = entry.stamp.size as usize;
    let mut read = 0;
    // One byte more than there should be: a file that grew is noticed.
    while read <= size {
        match rustix::io::read(from, &mut buffer[read..=size]) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if read == size {
            break;
        }
    }
    let digest = Digest::of(&buffer[..read]);
    if read != size || entry.content().is_some_and(|known| known != digest) {
        return Ok(Copied::Changed);
    }
    write_at(to, &buffer[..read], 0)?;
    Ok(Copied::Done(digest))
}

/// Returns whether the kernel could do it; if not, nothing was written.
fn copy_in_kernel(
    from: &OwnedFd,
    to: &OwnedFd,
    size: u64,
    stop: &Stop,
) -> rustix::io::Result<bool> {
    let (mut read_at, mut write_at) = (0, 0);
    while read_at < size {
        stop.check().map_err(|_| Errno::CANCELED)?;
        let want = (size - read_at).min(RANGE_BYTES) as usize;
        let done =
            rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), want);
        match done {
            // Shorter than it was: the stamp will tell.
            Ok(0) => return Ok(true),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM)
                if write_at == 0 =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn copy_hashed(
    from: &OwnedFd,
    to: &OwnedFd,
    size: u64,
    sparse: bool,
    stop: &Stop,
) -> rustix::io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut at = 0;
    while at < size {
        let (data, end) = if sparse { next_data(from, at, size)? } else { (at, size) };
        hash_zeros(&mut hasher, data - at, stop)?;
        let hasher = Some(&mut hasher);
        with_buffer(|buffer| copy_range(from, to, hasher, (data, end), buffer, stop))?;
        at = end;
    }
    rustix::fs::ftruncate(to, size)?;
    Ok(hasher.finish())
}

/// Returns where the next data after `at` begins and ends.
fn next_data(file: &OwnedFd, at: u64, size: u64) -> rustix::io::Result<(u64, u64)> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) if start < size => {
            let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
            Ok((start, end.clamp(start + 1, size)))
        }
        Ok(_) | Err(Errno::NXIO) => Ok((size, size)),
        Err(error) => Err(error),
    }
}

fn copy_range(
    from: &OwnedFd,
    to: &OwnedFd,
    mut hasher: Option<&mut Hasher>,
    (mut at, end): (u64, u64),
    buffer: &mut [u8],
    stop: &Stop,
) -> rustix::io::Result<()> {
    while at < end {
        stop.check().map_err(|_| Errno::CANCELED)?;
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let n = match rustix::io::pread(from, &mut buffer[..want], at) {
            Err(Errno::INTR) => continue,
            other => other?,
        };
        if n == 0 {
            return Ok(());
        }
        if let Some(hasher) = &mut hasher {
            hasher.update(&buffer[..n]);
        }
        write_at(to, &buffer[..n], at)?;
        at += n as u64;
    }
    Ok(())
}

fn hash_zeros(hasher: &mut Hasher, mut count: u64, stop: &Stop) -> rustix::io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    while count > 0 {
        stop.check().map_err(|_| Errno::CANCELED)?;
        let now = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..now as usize]);
        count -= now;
    }
    Ok(())
}

fn write_at(to: &OwnedFd, mut bytes: &[u8], mut at: u64) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(to, bytes, at) {
            Ok(n) => {
                bytes = &bytes[n..];
                at += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
