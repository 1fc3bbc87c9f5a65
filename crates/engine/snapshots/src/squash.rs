//! Merges the bottom layers of a very tall tree into one, since an overlay takes only so many.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use ashlar_core::Hasher;
use ashlar_layers::{Entries, Entry, KnownFiles, Node};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::draft::{CommitOptions, Draft, Identity};
use crate::error::{Result, SnapshotError};
use crate::merged::merge;
use crate::meta::LayerKind;
use crate::store::SnapshotStore;
use crate::{LayerId, Tree};

/// A multiple of this many layers is merged, so that growing trees share the result.
const SQUASH_STEP: usize = 300;

impl SnapshotStore {
    /// Returns a tree that shows the same as `tree` with far fewer layers.
    pub(crate) fn squash(&self, tree: &Tree) -> Result<Tree> {
        let count = (tree.0.len() - 1) / SQUASH_STEP * SQUASH_STEP;
        let (bottom, rest) = tree.0.split_at(count);
        let mut hasher = Hasher::new();
        hasher.update(b"ashlar-squash-1\n");
        for id in bottom {
            hasher.update(id.as_bytes());
        }
        let id = hasher.finish();
        if !self.has(&id) {
            self.merge_layers(id, bottom)?;
        }
        Ok([id].iter().chain(rest).copied().collect())
    }

    fn merge_layers(&self, id: LayerId, bottom: &[LayerId]) -> Result<()> {
        let _lease = self.hold(&Tree(bottom.to_vec()))?;
        let load = |(at, id): (usize, &LayerId)| Ok((at, self.entries(id)?));
        let layers: Vec<(usize, Arc<Entries>)> =
            bottom.iter().enumerate().map(load).collect::<Result<_>>()?;
        let roots = bottom.iter().map(|id| {
            let path = self.layer_fs(id);
            File::open(&path).map_err(|e| SnapshotError::io("open", &path, e))
        });
        let roots: Vec<File> = roots.collect::<Result<_>>()?;
        let draft: Draft = self.begin(&Tree(bottom.to_vec()))?;
        let upper = File::open(draft.upper());
        let upper = upper.map_err(|e| SnapshotError::io("open", draft.upper(), e))?;
        let mut known = KnownFiles::new();
        let merged = merge(&layers, b"");
        for (entry, position) in merged.values() {
            if let Node::File { content, .. } = &entry.node {
                known.insert(&entry.path, *content);
            }
            place(&upper, &roots[*position], &entry.path, entry)
                .map_err(|e| SnapshotError::io("merge", &shown_path(&entry.path), e))?;
        }
        for (entry, _) in merged.values().rev().filter(|(entry, _)| entry.node.is_dir()) {
            set_time(&upper, entry)
                .map_err(|e| SnapshotError::io("merge", &shown_path(&entry.path), e))?;
        }
        let options = CommitOptions {
            origin: format!("{} layers", bottom.len()),
            ..CommitOptions::default()
        };
        let identity = Identity::named(LayerKind::Squashed, id);
        draft.commit_as(identity, &known, &options).map(drop)
    }
}

pub(crate) fn shown_path(path: &[u8]) -> std::path::PathBuf {
    String::from_utf8_lossy(path).into_owned().into()
}

/// Puts `entry`, which is at `source` in the layer at `from`, into `to`: directories anew, all else
/// as hard links.
pub(crate) fn place(
    to: &File,
    from: &File,
    source: &[u8],
    entry: &Entry,
) -> rustix::io::Result<()> {
    let path = entry.path.as_slice();
    if !entry.node.is_dir() {
        return match rustix::fs::linkat(from, source, to, path, AtFlags::empty()) {
            // The file system allows no more links to that inode.
            Err(Errno::MLINK) => copy(to, from, source, entry),
            linked => linked,
        };
    }
    let path_or_dot = if path.is_empty() { b"." } else { path };
    if !path.is_empty() {
        rustix::fs::mkdirat(to, path, Mode::from_raw_mode(0o700))?;
    }
    set_owner(to, path_or_dot, entry)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    set_xattrs(&rustix::fs::openat(to, path_or_dot, flags, Mode::empty())?, entry)
}

fn copy(to: &File, from: &File, source: &[u8], entry: &Entry) -> rustix::io::Result<()> {
    let path = entry.path.as_slice();
    match &entry.node {
        Node::Symlink { target } => {
            rustix::fs::symlinkat(target.as_slice(), to, path)?;
            let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            rustix::fs::chownat(to, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
            let kind = match entry.node {
                Node::CharDevice { .. } => FileType::CharacterDevice,
                _ => FileType::BlockDevice,
            };
            let device = rustix::fs::makedev(*major, *minor);
            rustix::fs::mknodat(to, path, kind, Mode::empty(), device)?;
            set_owner(to, path, entry)?;
        }
        Node::Fifo => {
            rustix::fs::mknodat(to, path, FileType::Fifo, Mode::empty(), 0)?;
            set_owner(to, path, entry)?;
        }
        _ => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut content = File::from(rustix::fs::openat(from, source, read, Mode::empty())?);
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, path, write, Mode::from_raw_mode(0o600))?;
            let mut target = File::from(target);
            std::io::copy(&mut content, &mut target)
                .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
            set_owner(to, path, entry)?;
            set_xattrs(&target, entry)?;
        }
    }
    set_time(to, entry)
}

fn set_owner(to: &File, path: &[u8], entry: &Entry) -> rustix::io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    rustix::fs::chownat(to, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmodat(to, path, Mode::from_raw_mode(entry.mode), AtFlags::empty())
}

fn set_xattrs(fd: &impl AsFd, entry: &Entry) -> rustix::io::Result<()> {
    entry.xattrs.iter().try_for_each(|(name, value)| {
        rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty())
    })
}

pub(crate) fn set_time(to: &File, entry: &Entry) -> rustix::io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: entry.mtime, tv_nsec: 0 },
    };
    let path = if entry.path.is_empty() { b"." } else { entry.path.as_slice() };
    rustix::fs::utimensat(to, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}
