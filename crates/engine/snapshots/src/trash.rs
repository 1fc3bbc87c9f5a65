//! Deletes directories in the background: nobody waits for 50,000 unlinks.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::error::{Result, SnapshotError};
use crate::lock::{LockFile, Share};

/// Deleting yields to running steps.
const NICENESS: i32 = 10;
/// Directories deeper than this many bytes of path are moved up first, since the kernel takes no
/// longer paths.
const PATH_BYTES_MAX: usize = 3000;

/// Where things wait for their deletion.
pub(crate) struct Trash {
    dir: PathBuf,
    sender: Mutex<Option<Sender<PathBuf>>>,
}

impl Trash {
    /// Starts to delete what an earlier process left behind.
    pub(crate) fn open(dir: PathBuf) -> Result<Self> {
        let trash = Self { dir, sender: Mutex::default() };
        for name in crate::store::list_names(&trash.dir)? {
            trash.delete_later(trash.dir.join(name));
        }
        Ok(trash)
    }

    /// Moves `path` into the trash; it is gone at once and deleted later.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        let target = self.dir.join(Uuid::now_v7().simple().to_string());
        match std::fs::rename(path, &target) {
            Ok(()) => {
                self.delete_later(target);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(SnapshotError::io("move to the trash", path, error)),
        }
    }

    /// Deletes all that is in the trash before it returns.
    pub(crate) fn empty(&self) -> Result<()> {
        for name in crate::store::list_names(&self.dir)? {
            delete_alone(&self.dir.join(name))?;
        }
        Ok(())
    }

    fn delete_later(&self, path: PathBuf) {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = sender.get_or_insert_with(start);
        // Without a thread it stays in the trash until the next start.
        let _ = sender.send(path);
    }
}

/// Starts the thread; it ends with the [`Trash`].
fn start() -> Sender<PathBuf> {
    let (sender, paths) = channel::<PathBuf>();
    let run = move || {
        // On Linux this is the priority of the thread.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        for path in paths {
            if let Err(error) = delete_alone(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot delete; tried again later");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("ashlar-trash".to_owned()).spawn(run) {
        tracing::warn!(%error, "cannot start the thread that empties the trash");
    }
    sender
}

/// Deletes one thing at a time: two that delete the same tree would trip over each other.
fn delete_alone(path: &Path) -> Result<()> {
    let lock = path.parent().unwrap_or(path).with_extension("lock");
    let _lock = LockFile::create(&lock, Share::Exclusive)?;
    delete(path).map_err(|e| SnapshotError::io("delete", path, e))
}

/// Deletes a tree of any depth, without following links. It may be gone already.
fn delete(top: &Path) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = match rustix::fs::openat(CWD, top, flags, Mode::empty()) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return absent_is_fine(std::fs::remove_file(top)),
        Err(error) => return Err(error.into()),
    };
    let mut stack: Vec<(Vec<u8>, bool)> = vec![(Vec::new(), false)];
    while let Some((path, is_emptied)) = stack.pop() {
        if is_emptied {
            if !path.is_empty() {
                let removed = rustix::fs::unlinkat(&root, path, AtFlags::REMOVEDIR);
                absent_is_fine(removed.map_err(Into::into))?;
            }
            continue;
        }
        let name = if path.is_empty() { b"." } else { path.as_slice() };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let dir = match rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        stack.push((path.clone(), true));
        let mut entries = Dir::read_from(&dir)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if entry.file_type() != FileType::Directory {
                let removed = rustix::fs::unlinkat(&dir, name, AtFlags::empty());
                if removed != Err(Errno::ISDIR) {
                    absent_is_fine(removed.map_err(Into::into))?;
                    continue;
                }
            }
            stack.push((next_path(&root, &dir, &path, name)?, false));
        }
    }
    absent_is_fine(std::fs::remove_dir(top))
}

/// Returns the path of the subdirectory `name`, moved to the top if it would be too long.
fn next_path(
    root: &rustix::fd::OwnedFd,
    dir: &rustix::fd::OwnedFd,
    path: &[u8],
    name: &std::ffi::CStr,
) -> std::io::Result<Vec<u8>> {
    if path.len() + name.to_bytes().len() > PATH_BYTES_MAX {
        let short = format!("deep-{}", Uuid::now_v7().simple());
        rustix::fs::renameat(dir, name, root, &short)?;
        return Ok(short.into_bytes());
    }
    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
    Ok([path, slash, name.to_bytes()].concat())
}

fn absent_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
