//! Where on the disk drafts are made.
//!
//! ext4 makes files near their directory and passes over each inode there that was deleted in the
//! last minutes, one by one: next to a removed layer of 30,000 files, making as many takes ten times
//! as long. So drafts lie in different places, as directories at the top of a file system do. To find
//! such a place takes the kernel a millisecond or more, a quarter of a small step: drafts of one
//! process share one until they have had many files together.

use std::fs::{DirBuilder, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use crate::error::{Result, SnapshotError};
use crate::lock::{LockFile, Share};

/// So many files in drafts of one place are enough.
const FILES_MAX: u64 = 1000;

/// Makes directories for drafts.
pub(crate) struct Nursery {
    drafts: PathBuf,
    places: PathBuf,
    place: Mutex<Option<Arc<Place>>>,
}

/// A directory somewhere on the disk. Its lock is held, as that of a draft.
struct Place {
    dir: PathBuf,
    #[expect(dead_code, reason = "held for its lock only")]
    lock: LockFile,
    files: u64,
}

impl Nursery {
    /// Makes drafts in the directory `drafts`, near one in `places`; both exist.
    pub(crate) fn new(drafts: PathBuf, places: PathBuf) -> Self {
        spread(&places);
        Self { drafts, places, place: Mutex::default() }
    }

    /// Makes an empty directory for the draft `id`. None when it was taken for dead meanwhile.
    pub(crate) fn make(&self, id: Uuid) -> Result<Option<PathBuf>> {
        let Some(place) = self.place()? else { return Ok(None) };
        let name = id.simple().to_string();
        let (near, dir) = (place.dir.join(&name), self.drafts.join(name));
        let made = DirBuilder::new().create(&near).and_then(|()| std::fs::rename(&near, &dir));
        match made {
            Ok(()) => Ok(Some(dir)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                *self.lock() = None;
                Ok(None)
            }
            Err(error) => Err(SnapshotError::io("make", &dir, error)),
        }
    }

    /// Takes note of a draft's files, or, with none, of a draft that nobody has looked into.
    pub(crate) fn filled(&self, files: Option<u64>) {
        let mut place = self.lock();
        let total = place.as_ref().map_or(0, |p| p.files.saturating_add(files.unwrap_or(u64::MAX)));
        match place.as_mut().and_then(Arc::get_mut) {
            Some(place) if total <= FILES_MAX => place.files = total,
            // Also when someone makes a directory there just now: a new place is never wrong.
            _ => *place = None,
        }
    }

    fn place(&self) -> Result<Option<Arc<Place>>> {
        let mut place = self.lock();
        if place.is_none() {
            *place = Place::make(&self.places)?.map(Arc::new);
        }
        Ok(place.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Place>>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn make(places: &Path) -> Result<Option<Self>> {
        let dir = places.join(Uuid::now_v7().simple().to_string());
        std::fs::create_dir(&dir).map_err(|e| SnapshotError::io("make", &dir, e))?;
        let lock = LockFile::create(&dir.join("lock"), Share::Shared)?;
        Ok(lock.map(|lock| Self { dir, lock, files: 0 }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Otherwise the next start finds a draft without an owner.
        let _ = std::fs::remove_file(self.dir.join("lock"));
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// Lets the file system put each new directory in `dir` wherever there is room, as at its top.
fn spread(dir: &Path) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    // Only a hint, which few file systems know.
    let _ = File::open(dir).map(|dir| match ioctl_getflags(&dir) {
        Ok(flags) if !flags.contains(IFlags::TOPDIR) => {
            ioctl_setflags(&dir, flags | IFlags::TOPDIR)
        }
        _ => Ok(()),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nursery(dir: &Path) -> Nursery {
        let (drafts, places) = (dir.join("drafts"), dir.join("places"));
        [&drafts, &places].iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        Nursery::new(drafts, places)
    }

    fn places(dir: &Path) -> Vec<String> {
        crate::store::list_names(&dir.join("places")).unwrap()
    }

    #[test]
    fn a_place_serves_until_its_drafts_had_many_files() {
        let dir = tempfile::tempdir().unwrap();
        let nursery = nursery(dir.path());
        let make = || nursery.make(Uuid::now_v7()).unwrap().unwrap();
        assert!(make().is_dir());
        let first = places(dir.path());
        assert_eq!(first.len(), 1);
        nursery.filled(Some(FILES_MAX));
        make();
        assert_eq!(places(dir.path()), first);
        nursery.filled(Some(1));
        assert!(places(dir.path()).is_empty());
        make();
        nursery.filled(None);
        assert!(places(dir.path()).is_empty(), "nobody knows how many");
    }

    #[test]
    fn a_place_that_is_gone_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let nursery = nursery(dir.path());
        nursery.make(Uuid::now_v7()).unwrap().unwrap();
        std::fs::remove_dir_all(dir.path().join("places").join(&places(dir.path())[0])).unwrap();
        assert_eq!(nursery.make(Uuid::now_v7()).unwrap(), None);
        assert!(nursery.make(Uuid::now_v7()).unwrap().unwrap().is_dir());
    }
}
