//! Puts single entries into an open directory of the tree.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ashlar_core::Digest;
use ashlar_layers::{Entries, Node, Stop};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::content::{Copied, copy};
use super::error::{FileOpError, Result};
use super::tree::{Attributes, Handle, set_attributes, set_attributes_at, times};
use super::xattrs;
use crate::entry::{Entry, Kind, Stamp};
use crate::path::shown;
use crate::root::{Root, is_dir, stat_at};

/// An earlier layer whose files may be linked into the new one: layers are never changed.
#[derive(Debug)]
pub struct Reuse<'a> {
    /// The layer's directory, on the same mount as the directory that is written to.
    pub layer: Root,
    /// What it holds.
    pub entries: &'a Entries,
}

/// One entry on its way.
pub(super) struct Placing<'a> {
    pub(super) entry: &'a Entry,
    pub(super) attributes: Attributes,
    pub(super) from: BorrowedFd<'a>,
    pub(super) from_name: &'a [u8],
    pub(super) to: &'a Handle,
    pub(super) to_name: &'a [u8],
    /// The path in the tree.
    pub(super) target: &'a [u8],
    /// Whether extended attributes come along.
    pub(super) keep_xattrs: bool,
    pub(super) stop: &'a Stop,
}

impl Placing<'_> {
    /// Puts the entry in its place, replacing all but a directory. Returns a file's digest.
    pub(super) fn place(&self) -> Result<Option<Digest>> {
        match &self.entry.kind {
            Kind::File { .. } => self.file().map(Some),
            Kind::Symlink { target } => {
                self.make(|| rustix::fs::symlinkat(&target[..], &self.to.fd, self.to_name))?;
                self.finish(true).map(|()| None)
            }
            Kind::Fifo => self.node(FileType::Fifo, 0).map(|()| None),
            Kind::Device { block: false, major: 0, minor: 0 } => {
                Err(FileOpError::Whiteout { path: shown(self.target) })
            }
            Kind::Device { block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                self.node(kind, rustix::fs::makedev(*major, *minor)).map(|()| None)
            }
            Kind::Socket => {
                self.node(FileType::RegularFile, 0)?;
                Ok(Some(Digest::of(b"")))
            }
            Kind::Directory => Err(FileOpError::NotDirectory { path: shown(self.target) }),
        }
    }

    fn node(&self, kind: FileType, device: u64) -> Result<()> {
        let mode = Mode::RUSR | Mode::WUSR;
        self.make(|| rustix::fs::mknodat(&self.to.fd, self.to_name, kind, mode, device))?;
        self.finish(false)
    }

    fn file(&self) -> Result<Digest> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let from = rustix::fs::openat(self.from, self.from_name, flags, Mode::empty()).map_err(
            |e| match e {
                Errno::LOOP | Errno::NOENT | Errno::NXIO => self.changed(),
                other => FileOpError::io("open for copying to", self.target, other),
            },
        )?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let to = self.make(|| rustix::fs::openat(&self.to.fd, self.to_name, flags, mode))?;
        let copied = copy(&from, &to, self.entry, self.stop);
        let digest = match copied {
            Ok(Copied::Done(digest)) => digest,
            Ok(Copied::Changed) => return Err(self.changed()),
            Err(Errno::CANCELED) => return Err(FileOpError::Stopped),
            Err(error) => return Err(FileOpError::io("write", self.target, error)),
        };
        self.finish_file(&from, &to).map_err(|e| FileOpError::io("set up", self.target, e))?;
        Ok(digest)
    }

    fn finish_file(&self, from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
        set_attributes(to.as_fd(), self.attributes)?;
        if self.keep_xattrs {
            xattrs::copy(from.as_fd(), to.as_fd())?;
        }
        rustix::fs::futimens(to, &times(self.entry.stamp.modified))
    }

    /// Sets owner, bits and times of what is not open.
    fn finish(&self, link: bool) -> Result<()> {
        let fail = |e| FileOpError::io("set up", self.target, e);
        set_attributes_at(self.to.fd.as_fd(), self.to_name, self.attributes, link).map_err(fail)?;
        let times = times(self.entry.stamp.modified);
        rustix::fs::utimensat(&self.to.fd, self.to_name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(fail)
    }

    /// Makes something new, removing what is in its place first.
    pub(super) fn make<T>(&self, make: impl Fn() -> rustix::io::Result<T>) -> Result<T> {
        make_at(self.to, self.to_name, self.target, make)
    }

    fn changed(&self) -> FileOpError {
        FileOpError::Changed { path: shown(self.target) }
    }

    /// Links the same file of an earlier layer instead of copying, when it is the same in all that
    /// counts and neither has extended attributes. Returns its digest; `None` when it cannot be.
    pub(super) fn link(&self, reuse: &Reuse<'_>, layer_dir: &OwnedFd) -> Option<Digest> {
        let (entry, attributes) = (self.entry, self.attributes);
        let wanted = entry.content()?;
        let earlier = reuse.entries.find(self.target)?;
        let Node::File { size, content } = earlier.node else { return None };
        let same = content == wanted
            && size == entry.stamp.size
            && (earlier.mode, earlier.uid, earlier.gid)
                == (attributes.mode, attributes.uid, attributes.gid)
            && earlier.mtime == entry.stamp.modified.seconds
            && earlier.xattrs.is_empty();
        if !same {
            return None;
        }
        // The record knows whole seconds only; and the layer's file itself has the last word.
        let stat = stat_at(layer_dir.as_fd(), self.to_name).ok()?;
        let stamp = Stamp::of(&stat);
        if stamp.modified != entry.stamp.modified || stamp.size != size {
            return None;
        }
        let name = self.to_name;
        let linked = rustix::fs::linkat(layer_dir, name, &self.to.fd, name, AtFlags::empty());
        linked.ok().map(|()| wanted)
    }
}

/// Makes something new at `name`, removing what is in its place first; a directory stays.
pub(super) fn make_at<T>(
    dir: &Handle,
    name: &[u8],
    target: &[u8],
    make: impl Fn() -> rustix::io::Result<T>,
) -> Result<T> {
    let fail = |e| FileOpError::io("make", target, e);
    match make() {
        Err(Errno::EXIST) => {}
        other => return other.map_err(fail),
    }
    let stat = stat_at(dir.fd.as_fd(), name).map_err(fail)?;
    if is_dir(&stat) {
        return Err(FileOpError::IsDirectory { path: shown(target) });
    }
    let replace = |e| FileOpError::io("replace", target, e);
    rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty()).map_err(replace)?;
    make().map_err(replace)
}
