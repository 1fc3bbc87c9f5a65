//! Locks between processes: `flock` on small files, gone with the process that held them.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Result, SnapshotError};

/// A locked file; unlocked when dropped.
#[derive(Debug)]
pub(crate) struct LockFile {
    file: File,
    path: PathBuf,
}

/// Whether others may hold the lock too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    Shared,
    Exclusive,
}

impl LockFile {
    /// Locks the existing file at `path`, waiting for others; none when it is not there.
    pub(crate) fn wait(path: &Path, share: Share) -> Result<Option<Self>> {
        let operation = match share {
            Share::Shared => FlockOperation::LockShared,
            Share::Exclusive => FlockOperation::LockExclusive,
        };
        match open(path, false)? {
            Some(file) => Self::lock(file, path, operation),
            None => Ok(None),
        }
    }

    /// Locks the existing file at `path` for itself alone; none when it is in use or not there.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        match open(path, false)? {
            Some(file) => Self::lock(file, path, FlockOperation::NonBlockingLockExclusive),
            None => Ok(None),
        }
    }

    /// Makes the file at `path` where it is missing and locks it, waiting for others.
    ///
    /// None when someone removed the file or its directory meanwhile: try again.
    pub(crate) fn create(path: &Path, share: Share) -> Result<Option<Self>> {
        let operation = match share {
            Share::Shared => FlockOperation::LockShared,
            Share::Exclusive => FlockOperation::LockExclusive,
        };
        match open(path, true)? {
            Some(file) => Self::lock(file, path, operation),
            None => Ok(None),
        }
    }

    /// A lock counts only if the file still has its name: its last holder may have removed it.
    fn lock(file: File, path: &Path, operation: FlockOperation) -> Result<Option<Self>> {
        loop {
            match flock(&file, operation) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(SnapshotError::io("lock", path, error)),
            }
        }
        let held = file.metadata().map_err(|e| SnapshotError::io("examine", path, e))?;
        let named = std::fs::symlink_metadata(path);
        let is_same = named.is_ok_and(|n| n.ino() == held.ino() && n.dev() == held.dev());
        Ok(is_same.then(|| Self { file, path: path.to_owned() }))
    }

    /// Notes that the lock's object was used now: the file's time says when.
    pub(crate) fn touch(&self) {
        // A stamp that is missed only makes the layer look older to garbage collection.
        let _ = self.file.set_modified(std::time::SystemTime::now());
    }

    /// Follows the file to the name that it or its directory was given.
    pub(crate) fn renamed(&mut self, path: PathBuf) {
        self.path = path;
    }

    /// Removes the file while holding its lock.
    pub(crate) fn remove(self) {
        // A left-over file costs an inode and is used again by the next one that wants the lock.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn open(path: &Path, create: bool) -> Result<Option<File>> {
    let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path);
    match file {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SnapshotError::io("open", path, error)),
    }
}
