//! Making single files, directories and links, and removing.

use std::os::fd::{AsFd, AsRawFd};

use ashlar_core::Digest;
use ashlar_layers::KnownFiles;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::error::{FileOpError, Result};
use super::place::make_at;
use super::tree::{Attributes, Tree, set_attributes};
use crate::path::{self, shown};
use crate::root::{is_dir, stat_at};

/// Writes a file, through a link if one is there, replacing an earlier one.
pub(super) fn make_file(
    tree: &Tree<'_>,
    path: &str,
    mode: u32,
    data: &[u8],
    (uid, gid): (u32, u32),
    known: &mut KnownFiles,
) -> Result<()> {
    let target = tree.resolve(&path::clean(path.as_bytes()))?.path;
    let Some(parent) = path::parent(&target) else { return Err(FileOpError::RootDirectory) };
    let dir = tree.open_dir(parent)?;
    let name = path::base(&target);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let first = Mode::RUSR | Mode::WUSR;
    let file = make_at(&dir, name, &target, || rustix::fs::openat(&dir.fd, name, flags, first))?;
    let fail = |e: std::io::Error| FileOpError::io("write", &target, e);
    let mut file = std::fs::File::from(file);
    std::io::Write::write_all(&mut file, data).map_err(fail)?;
    let attributes = Attributes { uid, gid, mode: mode & 0o7777 };
    set_attributes(file.as_fd(), attributes).map_err(|e| fail(e.into()))?;
    known.insert(&target, Digest::of(data));
    Ok(())
}

/// Makes a directory; one that exists is left as it is.
pub(super) fn make_directory(
    tree: &mut Tree<'_>,
    path: &str,
    mode: u32,
    parents: bool,
    (uid, gid): (u32, u32),
) -> Result<()> {
    let target = tree.resolve(&path::clean(path.as_bytes()))?.path;
    if parents && let Some(parent) = path::parent(&target) {
        tree.make_dirs(parent, Attributes { uid, gid, mode: 0o755 })?;
    }
    tree.make_dir(&target, Attributes { uid, gid, mode: mode & 0o7777 }).map(drop)
}

/// Makes a link; nothing may be in its place.
pub(super) fn make_link(tree: &Tree<'_>, target: &str, path: &str) -> Result<()> {
    let clean = path::clean(path.as_bytes());
    let Some(parent) = path::parent(&clean) else { return Err(FileOpError::RootDirectory) };
    let parent = tree.resolve(parent)?.path;
    let dir = tree.open_dir(&parent)?;
    let made = rustix::fs::symlinkat(target, &dir.fd, path::base(&clean));
    made.map_err(|error| match error {
        Errno::EXIST => FileOpError::Exists { path: shown(&clean) },
        other => FileOpError::io("make the link", &clean, other),
    })
}

/// Removes a file, a link itself, or a directory with all below it.
pub(super) fn remove(tree: &mut Tree<'_>, path: &str, missing_ok: bool) -> Result<()> {
    let clean = path::clean(path.as_bytes());
    let Some(parent) = path::parent(&clean) else { return Err(FileOpError::RootDirectory) };
    let parent = tree.resolve(parent)?.path;
    let name = path::base(&clean);
    let target = path::join(&parent, name);
    let missing = || match missing_ok {
        true => Ok(()),
        false => Err(FileOpError::Missing { path: shown(&clean) }),
    };
    let dir = match tree.open_dir(&parent) {
        Ok(dir) => dir,
        Err(FileOpError::Missing { .. } | FileOpError::NotDirectory { .. }) => return missing(),
        Err(error) => return Err(error),
    };
    let fail = |e: std::io::Error| FileOpError::io("remove", &clean, e);
    match stat_at(dir.fd.as_fd(), name) {
        Err(Errno::NOENT) => return missing(),
        Err(error) => return Err(fail(error.into())),
        Ok(stat) if is_dir(&stat) => {
            // The standard library's removal walks by directory handles and follows no links.
            let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name);
            let by_handle = format!("/proc/self/fd/{}", dir.fd.as_raw_fd());
            std::fs::remove_dir_all(std::path::Path::new(&by_handle).join(name)).map_err(fail)?;
        }
        Ok(_) => {
            let removed = rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty());
            removed.map_err(|e| fail(e.into()))?;
        }
    }
    tree.forget(&target);
    Ok(())
}
