//! Whether anybody works with the data directory just now.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A lock on the data directory: shared by builds, exclusive while garbage is collected.
#[derive(Debug)]
pub struct WorkLease(#[expect(dead_code, reason = "held for its lock only")] File);

fn open(root: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(root.join("work.lock"))
}

impl WorkLease {
    /// Waits until no garbage is being collected.
    pub(super) fn shared(root: &Path) -> io::Result<Self> {
        let file = open(root)?;
        file.lock_shared()?;
        Ok(Self(file))
    }

    /// Keeps builds from starting; nothing when one runs already.
    pub(super) fn exclusive(root: &Path) -> io::Result<Option<Self>> {
        let file = open(root)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Says whether anybody holds one.
    pub(super) fn any(root: &Path) -> bool {
        matches!(Self::exclusive(root), Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collecting_and_building_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) =
            (WorkLease::shared(dir.path()).unwrap(), WorkLease::shared(dir.path()).unwrap());
        assert!(WorkLease::any(dir.path()));
        drop((one, two));
        let alone = WorkLease::exclusive(dir.path()).unwrap();
        assert!(alone.is_some() && WorkLease::exclusive(dir.path()).unwrap().is_none());
    }
}
