//! A project quota for the layer that one step writes.
//!
//! The upper directory and overlayfs's work directory get the same project: copied-up files are made in the one and
//! renamed into the other, and a rename between projects fails with EXDEV. For the same reason only empty directories
//! get one, and all directories lose it when the step is over, so that whoever goes on with the layer meets no project.
//! (Files keep its number, which hurts nobody: entries may always move to a directory without a project.)
//!
//! Writable caches have none: their entries would have to change the project at each step, under the eyes of other steps
//! that share the cache and whose renames would fail. They are watched.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::kernel;
use super::refusals::Refusals;
use crate::{LimitHit, Rootfs, Spec};

/// Ids are taken from here on; administrators number theirs from below.
const ID_FIRST: u32 = 1 << 30;
/// How many ids there are.
const ID_COUNT: u32 = 1 << 30;
/// Ids tried before the limit is left to the watch.
const ID_TRIES: u32 = 64;
/// What the overlay's own directories take up, beyond what the step may use.
const OWN_BYTES: u64 = 64 * 1024;
/// A project this close to its limit has been refused something; tells where the kernel's message does not reach.
const REFUSED_WITHIN: u64 = 16 * 1024;

/// A limit that the kernel enforces; dropping it releases the project.
#[derive(Debug)]
pub(crate) struct Quota {
    directory: OwnedFd,
    upper: PathBuf,
    project: u32,
    limit: u64,
    refusals: Option<Refusals>,
    refused: AtomicBool,
}

impl Quota {
    /// Limits the upper directory of a spec whose file system can do it; `None` leaves it to the watch.
    ///
    /// Comes before the overlay is mounted, which makes a directory of its own in the work directory.
    pub(crate) fn claim(spec: &Spec) -> Option<Arc<Self>> {
        let limit = spec.limits.disk_bytes?;
        let Rootfs::Overlay { upper, work, .. } = &spec.rootfs else { return None };
        if !spec.disk_paths.contains(upper) {
            return None;
        }
        let directory = open(upper).ok()?;
        if !kernel::is_enforced(&directory) || !is_empty(upper) || !is_empty(work) {
            return None;
        }
        let work = open(work).ok()?;
        let refusals = Refusals::subscribe().ok();
        let project = free_project(&directory)?;
        // From here on, dropping it takes back what was done.
        let quota = Self {
            directory,
            upper: upper.clone(),
            project,
            limit,
            refusals,
            refused: AtomicBool::new(false),
        };
        kernel::set_limit(&quota.directory, project, quota.hard()).ok()?;
        kernel::set_project(&quota.directory, Some(project)).ok()?;
        kernel::set_project(&work, Some(project)).ok()?;
        Some(Arc::new(quota))
    }

    /// The directory that it limits.
    pub(crate) fn path(&self) -> &Path {
        &self.upper
    }

    /// Bytes that the step has written.
    pub(crate) fn used(&self) -> u64 {
        let usage = kernel::usage(&self.directory, self.project);
        usage.map_or(0, |usage| usage.bytes.saturating_sub(OWN_BYTES))
    }

    /// Tells whether the kernel has refused a write.
    pub(crate) fn hit(&self) -> Option<LimitHit> {
        let heard = self.refusals.as_ref().is_some_and(|refusals| refusals.read(self.project));
        let usage = kernel::usage(&self.directory, self.project).unwrap_or_default();
        let full = usage.limit > 0 && usage.bytes + REFUSED_WITHIN > self.hard();
        if heard || full {
            self.refused.store(true, Ordering::Relaxed);
        }
        let used = usage.bytes.saturating_sub(OWN_BYTES);
        self.refused.load(Ordering::Relaxed).then_some(LimitHit::Disk { limit: self.limit, used })
    }

    fn hard(&self) -> u64 {
        self.limit.saturating_add(OWN_BYTES)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // Nobody is left to tell about a failure: what stays is a number on some directories.
        let _ = kernel::set_limit(&self.directory, self.project, 0);
        release(&self.upper);
    }
}

/// Takes the project from all directories of a tree that nobody writes to any more. Those whose path is too long to open
/// keep theirs.
fn release(root: &Path) {
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(directory) = open(&path) else { continue };
        let _ = kernel::set_project(&directory, None);
        let Ok(entries) = std::fs::read_dir(&path) else { continue };
        let directories = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        todo.extend(directories.map(|entry| entry.path()));
    }
}

/// A project that nobody uses: unique in this process, and on the disk by its usage.
fn free_project(directory: impl AsFd) -> Option<u32> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unused = |project| {
        kernel::usage(&directory, project).is_ok_and(|usage| usage == kernel::Usage::default())
    };
    let start = process_number();
    let ids = (0..ID_TRIES).map(|_| id(start, NEXT.fetch_add(1, Ordering::Relaxed)));
    ids.into_iter().find(|project| unused(*project))
}

const fn id(start: u32, number: u32) -> u32 {
    ID_FIRST + start.wrapping_add(number) % ID_COUNT
}

/// A random number, the same for the life of the process, so that two engines on one disk begin at different ids.
fn process_number() -> u32 {
    static NUMBER: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *NUMBER.get_or_init(|| {
        let mut bytes = [0; 4];
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(4) => u32::from_ne_bytes(bytes),
            _ => std::process::id().wrapping_mul(1 << 12),
        }
    })
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty())
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_in_their_range_and_differ() {
        for start in [0, 1, ID_COUNT - 1, u32::MAX] {
            let ids: Vec<u32> = (0..4).map(|number| id(start, number)).collect();
            assert!(ids.iter().all(|id| (ID_FIRST..=i32::MAX as u32).contains(id)), "{ids:?}");
            let distinct: std::collections::HashSet<_> = ids.iter().collect();
            assert_eq!(distinct.len(), 4);
        }
    }

    #[test]
    fn only_the_upper_directory_of_an_overlay_with_a_limit_gets_one() {
        let rootfs = Rootfs::Directory { path: "/".into(), readonly: true };
        let mut spec = Spec::new(rootfs, ["true"]);
        spec.disk_paths = vec!["/".into()];
        assert!(Quota::claim(&spec).is_none(), "no limit");
        spec.limits.disk_bytes = Some(1);
        assert!(Quota::claim(&spec).is_none(), "no overlay");
    }
}
