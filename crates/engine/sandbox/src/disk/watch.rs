//! Watches how much a step writes.
//!
//! Where the kernel has no limit for the growth of a directory, it is measured again and again from a thread of its own.
//! Overshoot: a step can write for [`POLL_MIN`] plus the duration of one walk before the walk that finds it out, and as
//! long again as the walk itself lasts; walks take at most a [`WALK_SHARE`]th of the time. At 1 GB/s and a walk of 50 ms
//! that is about 0.4 GB. The floor under the free space is checked at each poll and guards the machine meanwhile.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::Quota;
use crate::{LimitHit, Limits};

/// Shortest pause between two measurements.
pub const POLL_MIN: Duration = Duration::from_millis(200);
/// A walk may take one part in this many of the time.
pub const WALK_SHARE: u32 = 4;

/// A running watch; dropping it ends the thread.
pub(crate) struct Watch {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    event: Arc<OwnedFd>,
    hit: Arc<Mutex<Option<LimitHit>>>,
    quota: Option<Arc<Quota>>,
}

impl Watch {
    /// Starts to watch, when the limits ask for it. What a quota counts needs no walk.
    pub(crate) fn start(
        paths: &[PathBuf],
        limits: &Limits,
        quota: Option<Arc<Quota>>,
    ) -> std::io::Result<Option<Self>> {
        if paths.is_empty() || (limits.disk_bytes.is_none() && limits.disk_free_bytes.is_none()) {
            return Ok(None);
        }
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let hit = Arc::new(Mutex::new(None));
        let (stop, stopped) = channel();
        let mut measure = Measure::new(paths, limits, quota.clone());
        let (event_there, hit_there) = (Arc::clone(&event), Arc::clone(&hit));
        let thread = std::thread::Builder::new().name("disk-watch".into()).spawn(move || {
            measure.begin();
            let mut pause = POLL_MIN;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let started = Instant::now();
                if let Some(found) = measure.hit() {
                    *hit_there.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                        Some(found);
                    let _ = rustix::io::write(&*event_there, &1u64.to_ne_bytes());
                    return;
                }
                pause = POLL_MIN.max(started.elapsed() * WALK_SHARE);
            }
        })?;
        Ok(Some(Self { stop: Some(stop), thread: Some(thread), event, hit, quota }))
    }

    /// Becomes readable when a limit is hit.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// The limit that was hit.
    pub(crate) fn hit(&self) -> Option<LimitHit> {
        *self.hit.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether the kernel refused a write, which explains why a step failed.
    pub(crate) fn refused(&self) -> Option<LimitHit> {
        self.quota.as_ref().and_then(|quota| quota.hit())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is measured, and how.
struct Measure {
    paths: Vec<PathBuf>,
    limits: Limits,
    /// Counts one of the paths.
    quota: Option<Arc<Quota>>,
    /// Bytes in the walked paths when the watch began.
    before: u64,
}

impl Measure {
    fn new(paths: &[PathBuf], limits: &Limits, quota: Option<Arc<Quota>>) -> Self {
        Self { paths: paths.to_vec(), limits: limits.clone(), quota, before: 0 }
    }

    fn begin(&mut self) {
        self.before = self.walk();
    }

    /// Bytes in the paths that no quota counts.
    fn walk(&self) -> u64 {
        let counted = self.quota.as_deref().map(Quota::path);
        let walked = self.paths.iter().filter(|path| Some(path.as_path()) != counted);
        walked.map(|path| used_bytes(path)).sum()
    }

    fn hit(&self) -> Option<LimitHit> {
        if let Some(floor) = self.limits.disk_free_bytes {
            for path in &self.paths {
                if let Ok(stat) = rustix::fs::statvfs(path)
                    && stat.f_bavail * stat.f_frsize < floor
                {
                    return Some(LimitHit::DiskFree { floor });
                }
            }
        }
        let limit = self.limits.disk_bytes?;
        if let Some(hit) = self.quota.as_ref().and_then(|quota| quota.hit()) {
            return Some(hit);
        }
        let counted = self.quota.as_ref().map_or(0, |quota| quota.used());
        let used = self.walk().saturating_sub(self.before) + counted;
        (used > limit).then_some(LimitHit::Disk { limit, used })
    }
}

/// Bytes allocated below a directory: sparse files count what they hold, hard links count once, nothing is followed.
///
/// Entries that vanish during the walk are skipped.
pub(crate) fn used_bytes(root: &Path) -> u64 {
    let mut total = 0;
    let mut linked = HashSet::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(stat) = entry.metadata() else { continue };
            if stat.is_dir() {
                todo.push(entry.path());
            } else if stat.nlink() > 1 && !linked.insert((stat.dev(), stat.ino())) {
                continue;
            }
            total += stat.blocks() * 512;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_allocated_bytes_once() {
        let tree = tempfile::tempdir().unwrap();
        let file = tree.path().join("a");
        std::fs::write(&file, vec![1; 1 << 20]).unwrap();
        let one = used_bytes(tree.path());
        assert!((1 << 20..2 << 20).contains(&one), "{one}");
        std::fs::hard_link(&file, tree.path().join("b")).unwrap();
        let sparse = std::fs::File::create(tree.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("/", tree.path().join("root")).unwrap();
        assert!(used_bytes(tree.path()) < one + 65_536);
    }

    #[test]
    fn a_directory_that_grows_past_its_limit_is_reported() {
        let tree = tempfile::tempdir().unwrap();
        let limits = Limits { disk_bytes: Some(1 << 20), ..Limits::default() };
        let paths = [tree.path().to_owned()];
        let mut measure = Measure::new(&paths, &limits, None);
        assert_eq!(measure.hit(), None);
        std::fs::write(tree.path().join("a"), vec![1; 2 << 20]).unwrap();
        assert!(matches!(measure.hit(), Some(LimitHit::Disk { .. })));
        measure.begin();
        assert_eq!(measure.hit(), None);
    }

    #[test]
    fn a_full_file_system_is_reported() {
        let tree = tempfile::tempdir().unwrap();
        let limits = Limits { disk_free_bytes: Some(u64::MAX), ..Limits::default() };
        let measure = Measure::new(&[tree.path().to_owned()], &limits, None);
        assert_eq!(measure.hit(), Some(LimitHit::DiskFree { floor: u64::MAX }));
    }
}
