//! Hashes files of a context and notices when they change meanwhile.

use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

use ashlar_core::{Digest, Hasher};
use ashlar_layers::Stop;
use rustix::fs::{Advice, Mode, OFlags};
use rustix::io::Errno;

use super::stat_cache::StatCache;
use crate::entry::{Entry, Stamp};
use crate::error::ContextError;
use crate::root::{file_type, stat_fd};
use crate::walk::Digester;

/// How often a file that changes while it is read is read anew.
const TRIES_MAX: usize = 3;

/// Bytes that are read at once.
pub(crate) const READ_BYTES: usize = 256 * 1024;

thread_local! {
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Runs `work` with this thread's read buffer.
pub(crate) fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(READ_BYTES, 0);
        work(buffer)
    })
}

/// Looks digests up, and reads the file where none is known.
impl Digester for StatCache {
    fn digest(
        &self,
        dir: &OwnedFd,
        name: &[u8],
        entry: &mut Entry,
        full: &[u8],
        stop: &Stop,
    ) -> Result<Digest, ContextError> {
        if let Some(known) = self.get(&entry.stamp) {
            entry.reused = true;
            return Ok(known);
        }
        let started = SystemTime::now();
        let (content, stamp) = hash_stable(dir, name, &entry.stamp, full, stop)?;
        entry.stamp = stamp;
        self.put(stamp, content, started);
        Ok(content)
    }
}

/// Reads until the file was the same before and after.
fn hash_stable(
    dir: &OwnedFd,
    name: &[u8],
    seen: &Stamp,
    full: &[u8],
    stop: &Stop,
) -> Result<(Digest, Stamp), ContextError> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(|e| match e {
        Errno::LOOP | Errno::NOENT | Errno::NXIO => ContextError::changed(full),
        other => ContextError::io("open", full, other),
    })?;
    let fail = |e| ContextError::io("read", full, e);
    let mut before = *seen;
    for _ in 0..TRIES_MAX {
        let (content, bytes) = hash(&file, stop).map_err(|e| match e {
            Errno::CANCELED => ContextError::Stopped,
            other => fail(other),
        })?;
        let stat = stat_fd(file.as_fd()).map_err(fail)?;
        let after = Stamp::of(&stat);
        if !file_type(&stat).is_file() {
            break;
        }
        if after == before && bytes == after.size {
            return Ok((content, after));
        }
        before = after;
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).map_err(fail)?;
    }
    Err(ContextError::changed(full))
}

/// Fails with `ECANCELED` when asked to stop: a sparse file may be larger than any disk.
fn hash(file: &OwnedFd, stop: &Stop) -> rustix::io::Result<(Digest, u64)> {
    with_buffer(|buffer| {
        let mut hasher = Hasher::new();
        let mut total = 0;
        loop {
            let n = match rustix::io::read(file, &mut *buffer) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            stop.check().map_err(|_| Errno::CANCELED)?;
            hasher.update(&buffer[..n]);
            total += n as u64;
            if n == buffer.len() && total == n as u64 {
                // A big file: tell the kernel to read ahead.
                let _only_a_hint = rustix::fs::fadvise(file, 0, None, Advice::Sequential);
            }
            if n == 0 {
                return Ok((hasher.finish(), total));
            }
        }
    })
}
