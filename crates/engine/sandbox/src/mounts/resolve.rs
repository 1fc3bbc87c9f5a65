//! Opens and makes paths inside a hostile tree.
//!
//! Guarantee: every descriptor returned lies in the tree of `root`, whatever symbolic links, `..` or concurrent renames
//! the tree holds: the kernel enforces it (`openat2` with `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS`).

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, mkdirat, openat2, readlinkat, statx,
};
use rustix::io::{Errno, Result};

use crate::CreatedMountpoint;

/// Symbolic links followed for one path, as in the kernel.
const LINKS_MAX: usize = 40;
/// Renames by others that one lookup survives before it gives up.
const RACES_MAX: usize = 128;

/// Opens a path inside `root` as O_PATH, following symbolic links inside it.
pub(crate) fn open_inside(root: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    for _ in 0..RACES_MAX {
        let flags = OFlags::PATH | OFlags::CLOEXEC | flags;
        match openat2(root.as_fd(), path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// What a mount point has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory.
    Directory,
    /// Anything but a directory; made as an empty file.
    File,
}

/// Makes mount points and remembers those that had to be made in the root's own file system.
pub(crate) struct Tree<'a> {
    root: BorrowedFd<'a>,
    root_mount: u64,
    /// What was made so far.
    pub(crate) created: Vec<CreatedMountpoint>,
}

impl<'a> Tree<'a> {
    /// Starts at the root directory of a mounted tree.
    pub(crate) fn new(root: BorrowedFd<'a>) -> Result<Self> {
        Ok(Self { root, root_mount: mount_id(root)?, created: Vec::new() })
    }

    /// Opens a mount point, making it and its parents when missing.
    pub(crate) fn mountpoint(&mut self, path: &Path, kind: Kind) -> Result<OwnedFd> {
        let fd = match open_inside(self.root, path, OFlags::empty()) {
            Err(Errno::NOENT) => self.make(path, kind)?,
            result => result?,
        };
        let is_directory = is_directory(&fd)?;
        match kind {
            Kind::Directory if !is_directory => Err(Errno::NOTDIR),
            Kind::File if is_directory => Err(Errno::ISDIR),
            _ => Ok(fd),
        }
    }

    /// Opens a directory directly below the root that must not be a symbolic link: `/proc`, `/sys` or `/dev`.
    ///
    /// Were it a link, the masked paths would be looked for in another place than the one that was mounted.
    pub(crate) fn system_directory(&mut self, name: &str) -> Result<OwnedFd> {
        let open = |root| {
            let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
            openat2(root, name, flags, Mode::empty(), resolve)
        };
        match open(self.root) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        self.add(Path::new(name), self.root, OsStr::new(name), Kind::Directory)?;
        open(self.root)
    }

    /// Makes a path whose symbolic links may dangle, component by component.
    fn make(&mut self, path: &Path, kind: Kind) -> Result<OwnedFd> {
        let mut links = 0;
        let mut todo: Vec<OsString> = components(path);
        let mut done = PathBuf::new();
        while let Some(name) = todo.pop() {
            if name == ".." {
                done.pop();
                continue;
            }
            let parent = open_inside(self.root, &done, OFlags::DIRECTORY)?;
            let here = done.join(&name);
            let kind_here = if todo.is_empty() { kind } else { Kind::Directory };
            match readlinkat(&parent, &name, Vec::new()) {
                Ok(link) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    let link = Path::new(OsStr::from_bytes(link.as_bytes()));
                    if link.is_absolute() {
                        done = PathBuf::new();
                    }
                    todo.extend(components(link));
                    continue;
                }
                Err(Errno::NOENT) => self.add(&here, parent.as_fd(), &name, kind_here)?,
                // It exists and is no link.
                Err(Errno::INVAL) => {}
                Err(error) => return Err(error),
            }
            done = here;
        }
        open_inside(self.root, &done, OFlags::empty())
    }

    /// Makes one missing entry.
    fn add(&mut self, path: &Path, parent: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> Result<()> {
        let before = statx(parent, c"", AtFlags::EMPTY_PATH, StatxFlags::MTIME)?.stx_mtime;
        let made = match kind {
            Kind::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o755)),
            Kind::File => {
                // EXCL neither follows a link nor opens what somebody else has just put there.
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
            }
        };
        match made {
            // Made by a process that shares a writable mount; the lookup that follows judges it.
            Err(Errno::EXIST) => return Ok(()),
            result => result?,
        }
        if mount_id(parent)? == self.root_mount {
            self.created.push(CreatedMountpoint {
                path: path.to_owned(),
                directory: kind == Kind::Directory,
                parent_mtime: (before.tv_sec, before.tv_nsec),
            });
        }
        Ok(())
    }
}

/// The components of a path in reverse order, for use as a stack.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    Ok(statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// Tells whether a descriptor refers to a directory.
pub(crate) fn is_directory(fd: impl AsFd) -> Result<bool> {
    let mode = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?.stx_mode;
    Ok(rustix::fs::FileType::from_raw_mode(mode.into()).is_dir())
}
