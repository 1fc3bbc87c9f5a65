//! The tree that is changed: a merged overlay mount and the upper directory beneath it.
//!
//! Writing through the mount costs about twice as much as writing into the upper directory. What
//! lies below a directory that this operation made itself, where nothing was before, has no lower
//! parts: there the upper directory is written to directly. Such a place is never looked at through
//! the mount, which might remember that a name did not exist.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Statx, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::error::{FileOpError, Result};
use super::lookup::{Accounts, LookupError};
use crate::entry::Time;
use crate::path::{self, shown};
use crate::root::{Resolved, Root, is_dir, resolve_in};

/// Where file operations write.
#[derive(Debug)]
pub struct Base {
    root: Root,
    upper: Option<Root>,
}

impl Base {
    /// A plain directory: what is written is all there is.
    pub fn plain(root: Root) -> Self {
        Self { root, upper: None }
    }

    /// A writable overlay mount and its upper directory. Nothing else may write to them meanwhile,
    /// and the mount must not be used again after the operation: it may remember outdated names.
    pub fn overlay(merged: Root, upper: Root) -> Self {
        Self { root: merged, upper: Some(upper) }
    }
}

/// An open directory of the tree.
pub(super) struct Handle {
    pub(super) fd: OwnedFd,
    /// Whether it is the real directory, not one seen through an overlay.
    pub(super) direct: bool,
}

/// Owner and permission bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u32,
}

pub(super) struct Tree<'a> {
    base: &'a Base,
    /// Directories that were made where nothing was, topmost ones.
    fresh: BTreeSet<Vec<u8>>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(base: &'a Base) -> Self {
        Self { base, fresh: BTreeSet::new() }
    }

    /// Whether the content of `dir` is written to directly.
    fn is_direct(&self, dir: &[u8]) -> bool {
        if self.base.upper.is_none() {
            return true;
        }
        let mut at = Some(dir);
        while let Some(dir) = at {
            if self.fresh.contains(dir) {
                return true;
            }
            at = path::parent(dir);
        }
        false
    }

    /// Returns the root by which the content of `dir` is to be looked at.
    fn root_of(&self, dir: &[u8]) -> (&'a Root, bool) {
        let direct = self.is_direct(dir);
        match &self.base.upper {
            Some(upper) if direct => (upper, true),
            _ => (&self.base.root, direct),
        }
    }

    fn pick(&self, path: &[u8]) -> &'a Root {
        path::parent(path).map_or(&self.base.root, |dir| self.root_of(dir).0)
    }

    pub(super) fn accounts(&self) -> Result<Accounts, LookupError> {
        Accounts::load(|path| self.pick(path))
    }

    /// Follows the links of a path as a process in the tree would.
    pub(super) fn resolve(&self, path: &[u8]) -> Result<Resolved> {
        resolve_in(|at| self.pick(at), path).map_err(|error| match error {
            Errno::LOOP => FileOpError::Links { path: shown(path) },
            other => FileOpError::io("look up", path, other),
        })
    }

    /// Returns what is at a path without links above it.
    pub(super) fn stat(&self, path: &[u8]) -> Result<Option<Statx>> {
        match self.pick(path).stat(path) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(FileOpError::io("look at", path, error)),
        }
    }

    /// Opens the directory at a path without links.
    pub(super) fn open_dir(&self, dir: &[u8]) -> Result<Handle> {
        let (root, direct) = self.root_of(dir);
        match root.open_dir(dir) {
            Ok(fd) => Ok(Handle { fd, direct }),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(FileOpError::NotDirectory { path: shown(dir) }),
            Err(Errno::NOENT) => Err(FileOpError::Missing { path: shown(dir) }),
            Err(error) => Err(FileOpError::io("open", dir, error)),
        }
    }

    /// Makes one directory. Returns whether it was made: it may exist.
    pub(super) fn make_dir(&mut self, path: &[u8], attributes: Attributes) -> Result<bool> {
        let Some(parent) = path::parent(path) else { return Ok(false) };
        let above = self.open_dir(parent)?;
        let name = path::base(path);
        match rustix::fs::mkdirat(&above.fd, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                return match self.stat(path)? {
                    Some(stat) if is_dir(&stat) => Ok(false),
                    _ => Err(FileOpError::NotDirectory { path: shown(path) }),
                };
            }
            Err(error) => return Err(FileOpError::io("make the directory", path, error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fail = |e| FileOpError::io("set up the directory", path, e);
        let made = rustix::fs::openat(&above.fd, name, flags, Mode::empty()).map_err(fail)?;
        set_attributes(made.as_fd(), attributes).map_err(fail)?;
        if !above.direct {
            self.fresh.insert(path.to_vec());
        }
        Ok(true)
    }

    /// Makes a directory and those above it that are missing. Returns whether it was made.
    pub(super) fn make_dirs(&mut self, path: &[u8], attributes: Attributes) -> Result<bool> {
        if let Some(stat) = self.stat(path)? {
            return match is_dir(&stat) {
                true => Ok(false),
                false => Err(FileOpError::NotDirectory { path: shown(path) }),
            };
        }
        if let Some(parent) = path::parent(path) {
            self.make_dirs(parent, attributes)?;
        }
        self.make_dir(path, attributes)
    }

    /// Notes that something else wrote below fresh directories through the mount: from now on they
    /// are looked at that way.
    pub(super) fn forget_fresh(&mut self) {
        self.fresh.clear();
    }

    /// Notes that `path` is gone.
    pub(super) fn forget(&mut self, path: &[u8]) {
        self.fresh.retain(|dir| !path::is_within(dir, path));
    }
}

/// Sets owner, then permission bits: changing the owner takes setuid away.
pub(super) fn set_attributes(fd: BorrowedFd<'_>, a: Attributes) -> rustix::io::Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(a.uid)), Some(Gid::from_raw(a.gid)))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(a.mode))
}

/// The same for what cannot be opened; a link has no permission bits.
pub(super) fn set_attributes_at(
    dir: BorrowedFd<'_>,
    name: &[u8],
    a: Attributes,
    link: bool,
) -> rustix::io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(a.uid)), Some(Gid::from_raw(a.gid)));
    rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    match link {
        true => Ok(()),
        false => rustix::fs::chmodat(dir, name, Mode::from_raw_mode(a.mode), AtFlags::empty()),
    }
}

/// Both times of a file.
pub(super) fn times(modified: Time) -> Timestamps {
    let nanoseconds = i64::from(modified.nanoseconds);
    let time = Timespec { tv_sec: modified.seconds, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}
