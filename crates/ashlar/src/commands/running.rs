//! Which process makes a build, so that `builds cancel` can ask it to stop.
//!
//! `DATA_DIR/running/<build>` holds the process id and stays locked while the process lives. A file
//! that nobody locks is a dead process's, whoever has its id now.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Says for as long as it lives that this process makes a build.
pub(crate) struct Running {
    path: PathBuf,
    _lock: File,
}

impl Running {
    /// Registers this process.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(crate) fn register(data_dir: &Path, build: &str) -> io::Result<Self> {
        let folder = data_dir.join("running");
        fs::create_dir_all(&folder)?;
        let path = folder.join(build);
        let mut lock = OpenOptions::new().create_new(true).write(true).open(&path)?;
        lock.lock()?;
        write!(lock, "{}", std::process::id())?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What stays is not locked and so is taken for what it is.
        let _ = fs::remove_file(&self.path);
    }
}

/// Asks the process that makes a build to stop; says whether there is one.
///
/// # Errors
/// When the signal cannot be sent.
pub(crate) fn stop(data_dir: &Path, build: &str) -> io::Result<bool> {
    let path = data_dir.join("running").join(build);
    let file = match File::open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let pid = fs::read_to_string(&path)?.trim().parse::<i32>().ok().and_then(Pid::from_raw);
    let Some(pid) = pid else { return Ok(false) };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
    // Looked at after the process was pinned: still locked means that it is the one.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            pidfd_send_signal(process, Signal::TERM)?;
            Ok(true)
        }
        Ok(()) => {
            drop(fs::remove_file(&path));
            Ok(false)
        }
        Err(TryLockError::Error(e)) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_process_is_not_signalled() {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::register(dir.path(), "b").unwrap();
        let path = running.path.clone();
        drop(running);
        assert!(!path.exists() && !stop(dir.path(), "b").unwrap());
        fs::write(&path, std::process::id().to_string()).unwrap();
        assert!(!stop(dir.path(), "b").unwrap());
        assert!(!path.exists());
    }
}
