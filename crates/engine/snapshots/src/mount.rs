//! Overlay mounts for the engine's own file operations.
//!
//! A mount is made detached (`fsopen`, `fsmount`) and never attached to a path: it is reached through
//! its file descriptor alone and vanishes with it, so that a crash leaves no mount behind.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::Tree;
use crate::draft::Draft;
use crate::error::{Result, SnapshotError};
use crate::store::{Lease, SnapshotStore};

/// Lower directories of one overlay; the kernel takes 500 (`OVL_MAX_STACK`), an upper one included.
pub const LOWERS_MAX: usize = 400;

/// Options that keep layers independent of each other and of the machine: no index, no inode
/// numbers kept, every changed file copied as a whole, no renamed directory that refers to a lower
/// one, nor any such reference believed.
const OPTIONS: [(&str, &str); 4] =
    [("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow"), ("xino", "off")];

/// A tree as one file system, until it is dropped.
#[derive(Debug)]
pub struct Mounted {
    fd: OwnedFd,
    _lease: Lease,
}

impl Mounted {
    /// Returns the root directory, to work relative to it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns a path to the root directory that is good within this process only.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

impl SnapshotStore {
    /// Mounts `tree`, read-only, or with `draft` taking the changes.
    ///
    /// A draft can be mounted once at a time, and nothing else may change its directories meanwhile.
    ///
    /// # Errors
    /// [`SnapshotError::Missing`] and [`SnapshotError::Mount`].
    pub fn mount(&self, tree: &Tree, draft: Option<&Draft>) -> Result<Mounted> {
        let lease = self.hold(tree)?;
        let mut lowers = self.lowers(tree)?;
        if draft.is_none() && lowers.len() == 1 {
            // An overlay without an upper directory must have two lower ones.
            lowers.push(self.0.root.join("empty/second"));
        }
        let fail = |option| {
            let layers = lowers.len();
            move |e: rustix::io::Errno| SnapshotError::Mount { layers, option, source: e.into() }
        };
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(fail("fsopen"))?;
        let set = |key: &'static str, value: &str| {
            fsconfig_set_string(context.as_fd(), key, value).map_err(fail(key))
        };
        set("source", "overlay")?;
        for lower in &lowers {
            let dir = open_path(lower)?;
            set("lowerdir+", &short_name(&dir))?;
        }
        if let Some(draft) = draft {
            draft.reset_work()?;
            let (upper, work) = (open_path(draft.upper())?, open_path(draft.work())?);
            set("upperdir", &short_name(&upper))?;
            set("workdir", &short_name(&work))?;
            // Else each unmount would wait until everything is on disk.
            fsconfig_set_flag(context.as_fd(), "volatile").map_err(fail("volatile"))?;
        }
        OPTIONS.iter().try_for_each(|(key, value)| set(key, value))?;
        fsconfig_create(context.as_fd()).map_err(fail("create"))?;
        let attributes = match draft {
            Some(_) => MountAttrFlags::empty(),
            None => MountAttrFlags::MOUNT_ATTR_RDONLY,
        };
        let fd = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(fail("fsmount"))?;
        Ok(Mounted { fd, _lease: lease })
    }

    /// Returns the lower directories of an overlay that shows `tree`, the topmost first: at least
    /// one and at most [`LOWERS_MAX`]. Hold the tree while they are in use. (An overlay with no upper
    /// directory needs two: [`SnapshotStore::mount`] sees to that.)
    ///
    /// # Errors
    /// When a layer's record cannot be read, or many layers had to be squashed and could not be.
    pub fn lowers(&self, tree: &Tree) -> Result<Vec<PathBuf>> {
        let tree = self.physical(tree)?;
        let mut lowers: Vec<_> = tree.0.iter().rev().map(|id| self.layer_fs(id)).collect();
        if lowers.is_empty() {
            lowers.push(self.0.root.join("empty/first"));
        }
        Ok(lowers)
    }
}

fn open_path(path: &Path) -> Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map(File::from)
        .map_err(|e| SnapshotError::io("open", path, e))
}

/// Mount options take 255 bytes; this name is short wherever the store is.
fn short_name(dir: &File) -> String {
    format!("/proc/self/fd/{}", dir.as_raw_fd())
}
