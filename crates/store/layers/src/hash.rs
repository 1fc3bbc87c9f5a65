//! Content digests of many files on a few threads.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use ashlar_core::{Digest, Hasher};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{LayerError, Result, lossy};
use crate::scan::SCAN_THREADS;
use crate::stop::Stop;
use crate::walk::Found;

/// Large enough that SHA-256 runs at full speed, small enough for the second-level cache.
const READ_BYTES: usize = 256 * 1024;
/// Files that a thread takes at once, so that the shared counter is not contended.
const BATCH: usize = 32;

/// Opens a regular file beneath `root` with no symbolic link on the way.
pub(crate) fn open_file(root: BorrowedFd<'_>, path: &[u8]) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
        .map(File::from)
        .map_err(|e| LayerError::io("open", path, e))
}

/// Returns the digest of each of `wanted` (index into `found`, expected size).
pub(crate) fn hash_files(
    root: BorrowedFd<'_>,
    found: &[Found],
    wanted: &[(usize, u64)],
    stop: &Stop,
) -> Result<Vec<(usize, Digest)>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Digest)>> {
        let mut buffer = vec![0; READ_BYTES];
        let mut done = Vec::new();
        loop {
            let start = next.fetch_add(BATCH, Ordering::Relaxed);
            let Some(batch) = wanted.get(start..) else { return Ok(done) };
            if batch.is_empty() {
                return Ok(done);
            }
            for &(at, size) in batch.iter().take(BATCH) {
                let digest = hash_file(root, &found[at].entry.path, size, &mut buffer, stop)?;
                done.push((at, digest));
            }
        }
    };
    if wanted.len() <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..SCAN_THREADS).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::with_capacity(wanted.len());
        for worker in workers {
            all.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(all)
    })
}

fn hash_file(
    root: BorrowedFd<'_>,
    path: &[u8],
    size: u64,
    buffer: &mut [u8],
    stop: &Stop,
) -> Result<Digest> {
    let mut hasher = Hasher::new();
    let mut left = size;
    if size > 0 {
        let mut file = open_file(root, path)?;
        loop {
            stop.check()?;
            let got = file.read(buffer).map_err(|e| LayerError::io("read", path, e))?;
            if got == 0 {
                break;
            }
            hasher.update(&buffer[..got]);
            left = left.checked_sub(got as u64).ok_or_else(|| changed(path))?;
            if left == 0 {
                break;
            }
        }
    }
    if left > 0 { Err(changed(path)) } else { Ok(hasher.finish()) }
}

pub(crate) fn changed(path: &[u8]) -> LayerError {
    LayerError::Changed { path: lossy(path) }
}
