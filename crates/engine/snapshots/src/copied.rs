//! Directories that were copied up for nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT,
    flistxattr, fstat, futimens, openat2, unlinkat,
};
use rustix::io::Errno;

use crate::error::{Result, SnapshotError};
use crate::view::{Follow, Found, FoundKind};
use crate::{Draft, Tree};

/// Permission bits with setuid, setgid and sticky.
const MODE_BITS: u32 = 0o7777;
/// Names of attributes that one directory may have here; one with more is left alone.
const XATTR_NAMES_BYTES_MAX: usize = 1024;

impl Draft {
    /// Removes directories above the given paths, relative to the root, that are empty and just as
    /// `parent` shows them. Overlayfs copies a directory up when something is made in it, and a mount
    /// point that was made there for a step is gone by now: the step itself changed nothing.
    ///
    /// # Errors
    /// When a layer of `parent` or the draft cannot be read, or the draft cannot be changed.
    pub fn drop_copied_up<'a>(
        &self,
        parent: &Tree,
        paths: impl IntoIterator<Item = &'a Path>,
    ) -> Result<()> {
        let above = paths.into_iter().flat_map(|path| path.ancestors().skip(1));
        let above: BTreeSet<&Path> = above.filter(|path| !path.as_os_str().is_empty()).collect();
        if above.is_empty() {
            return Ok(());
        }
        let upper =
            File::open(self.upper()).map_err(|e| SnapshotError::io("open", self.upper(), e))?;
        // What is deeper comes later; it goes first.
        for path in above.into_iter().rev() {
            let failed = |e: Errno| SnapshotError::io("examine", &self.upper().join(path), e);
            let Some(dir) = open(upper.as_fd(), path).map_err(failed)? else { continue };
            let below = self.store().lookup(parent, path.as_os_str().as_bytes(), Follow::No)?;
            let is = fstat(&dir).map_err(failed)?;
            if below.is_some_and(|found| is_same(&found, path, &is))
                && is_plain(&dir).map_err(failed)?
            {
                remove(upper.as_fd(), path).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// Opens a directory of the draft, never through a link: the step may have made one.
fn open(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_same(found: &Found, path: &Path, is: &Stat) -> bool {
    debug_assert!(FileType::from_raw_mode(is.st_mode).is_dir());
    found.kind == FoundKind::Directory
        && found.path == path.as_os_str().as_bytes()
        && found.mode == is.st_mode & MODE_BITS
        && (found.uid, found.gid) == (is.st_uid, is.st_gid)
        && found.mtime == is.st_mtime
}

/// Whether a directory has no attributes but those that overlayfs notes a copy with.
fn is_plain(dir: &OwnedFd) -> rustix::io::Result<bool> {
    let mut names = [0; XATTR_NAMES_BYTES_MAX];
    let length = match flistxattr(dir, &mut names[..]) {
        Err(Errno::RANGE) => return Ok(false),
        length => length?,
    };
    let mut names = names[..length].split(|&b| b == 0).filter(|name| !name.is_empty());
    Ok(names.all(|n| n.starts_with(b"trusted.overlay.") && n != b"trusted.overlay.opaque"))
}

/// Removes an empty directory and leaves the time of the one above as it is.
fn remove(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<()> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let Some(above) = open(root, above)? else { return Ok(()) };
    let before = fstat(&above)?;
    match unlinkat(&above, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY) => return Ok(()),
        result => result?,
    }
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ };
    let last_modification =
        Timespec { tv_sec: before.st_mtime, tv_nsec: before.st_mtime_nsec as _ };
    futimens(&above, &Timestamps { last_access, last_modification })
}
