//! Cache mounts: named directories that live on between builds.
//!
//! `mounts/<hex>/` holds one of them, `<hex>` made of tenant and id: `about.json` says whose it
//! is, `data/` is what steps see, `lock` is held shared or exclusively while a step uses it. A
//! second user of a `private` mount gets `data-2/`, and so on, each with a lock of its own.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use ashlar_core::graph::CacheSharing;
use ashlar_core::{Digest, Hasher};
use serde::{Deserialize, Serialize};

/// The most instances of a private cache mount; a further user waits for the first.
const PRIVATE_MAX: u32 = 64;

/// How often a wait for a locked mount looks whether the step was cancelled.
const WAIT_POLL: std::time::Duration = std::time::Duration::from_millis(20);

/// A cache mount could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The file system refused.
    #[error("cannot {action} the cache mount '{id}'")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The mount's id.
        id: String,
        /// Why not.
        source: io::Error,
    },
    /// The step was cancelled while it waited.
    #[error("cancelled while another step held the cache mount '{0}'")]
    Cancelled(String),
}

/// What `about.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Whose it is.
    pub tenant: String,
    /// The id by which steps name it.
    pub id: String,
}

/// The mode and owner of a new directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// Permission bits.
    pub mode: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A cache mount in use; dropping it gives it back.
#[derive(Debug)]
pub struct HeldMount {
    /// The directory that the step sees.
    pub path: PathBuf,
    /// Whether it was made just now, so that it may be seeded.
    pub new: bool,
    _lock: File,
}

/// All cache mounts of a data directory.
#[derive(Debug, Clone)]
pub struct CacheMounts(PathBuf);

impl CacheMounts {
    /// Uses the folder `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    fn place(&self, about: &About) -> PathBuf {
        let mut hasher = Hasher::new();
        hasher.field(b"cache mount").field(&about.tenant).field(&about.id);
        self.0.join(hasher.finish().hex())
    }

    /// Takes a cache mount, waiting where its sharing says so.
    ///
    /// # Errors
    /// When the file system refuses, or `cancelled` says so during a wait.
    pub fn take(
        &self,
        about: &About,
        sharing: CacheSharing,
        fresh: Fresh,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<HeldMount, MountError> {
        let io_error = |action| {
            let id = about.id.clone();
            move |source| MountError::Io { action, id, source }
        };
        let place = self.place(about);
        fs::create_dir_all(&place).map_err(io_error("make"))?;
        let note = place.join("about.json");
        if !note.exists() {
            let text = serde_json::to_vec(about).map_err(io::Error::other);
            text.and_then(|t| fs::write(note, t)).map_err(io_error("describe"))?;
        }
        for instance in 1.. {
            let suffix = if instance == 1 { String::new() } else { format!("-{instance}") };
            let lock = open_lock(&place.join(format!("lock{suffix}"))).map_err(io_error("lock"))?;
            let got = match sharing {
                CacheSharing::Shared => lock.try_lock_shared(),
                CacheSharing::Private | CacheSharing::Locked => lock.try_lock(),
            };
            match got {
                Ok(()) => {}
                Err(fs::TryLockError::Error(e)) => return Err(io_error("lock")(e)),
                Err(fs::TryLockError::WouldBlock)
                    if sharing == CacheSharing::Private && instance < PRIVATE_MAX =>
                {
                    continue;
                }
                Err(fs::TryLockError::WouldBlock) => wait(&lock, sharing, about, cancelled)?,
            }
            let path = place.join(format!("data{suffix}"));
            let new = make_fresh(&path, fresh).map_err(io_error("make"))?;
            return Ok(HeldMount { path, new, _lock: lock });
        }
        Err(MountError::Cancelled(about.id.clone()))
    }

    /// Lists all cache mounts with their directories.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn list(&self) -> io::Result<Vec<(About, PathBuf)>> {
        let mut all = Vec::new();
        let entries = match fs::read_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(all),
            entries => entries?,
        };
        for entry in entries {
            let place = entry?.path();
            let about = fs::read(place.join("about.json")).ok();
            if let Some(about) = about.and_then(|b| serde_json::from_slice(&b).ok()) {
                all.push((about, place));
            }
        }
        all.sort_by(|(a, _), (b, _)| (&a.tenant, &a.id).cmp(&(&b.tenant, &b.id)));
        Ok(all)
    }

    /// Says whether a step uses a cache mount now.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn is_used(&self, place: &Path) -> io::Result<bool> {
        lock_all(place).map(|locks| locks.is_none())
    }

    /// Removes a cache mount that nobody uses; says whether it did.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self, place: &Path) -> io::Result<bool> {
        let Some(_locks) = lock_all(place)? else { return Ok(false) };
        fs::remove_dir_all(place)?;
        Ok(true)
    }
}

/// Takes all locks of a cache mount; nothing when a step has one of them.
fn lock_all(place: &Path) -> io::Result<Option<Vec<File>>> {
    let mut locks = Vec::new();
    for entry in fs::read_dir(place)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"lock")) {
            let lock = open_lock(&path)?;
            if lock.try_lock().is_err() {
                return Ok(None);
            }
            locks.push(lock);
        }
    }
    Ok(Some(locks))
}

fn open_lock(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().create(true).append(true).open(path)
}

fn make_fresh(path: &Path, fresh: Fresh) -> io::Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => {
            fs::set_permissions(path, fs::Permissions::from_mode(fresh.mode & 0o7777))?;
            chown(path, Some(fresh.uid), Some(fresh.gid))?;
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

/// Waits for a lock. A blocking wait could not be cancelled, so this asks again and again.
fn wait(
    lock: &File,
    sharing: CacheSharing,
    about: &About,
    cancelled: &dyn Fn() -> bool,
) -> Result<(), MountError> {
    loop {
        if cancelled() {
            return Err(MountError::Cancelled(about.id.clone()));
        }
        std::thread::sleep(WAIT_POLL);
        let got = match sharing {
            CacheSharing::Shared => lock.try_lock_shared(),
            CacheSharing::Private | CacheSharing::Locked => lock.try_lock(),
        };
        match got {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::WouldBlock) => {}
            Err(fs::TryLockError::Error(source)) => {
                return Err(MountError::Io { action: "lock", id: about.id.clone(), source });
            }
        }
    }
}

/// Returns a name for people of a cache mount's place.
pub fn short_name(place: &Path) -> String {
    let name = place.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    Digest::from_hex(name).map_or_else(|_| name.to_owned(), |d| d.short())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Fresh = Fresh { mode: 0o750, uid: 0, gid: 0 };

    fn about(id: &str) -> About {
        About { tenant: "t".into(), id: id.into() }
    }

    #[test]
    fn sharing_decides_who_sees_what() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = CacheMounts::new(dir.path());
        let take = |sharing| mounts.take(&about("npm"), sharing, FRESH, &|| true);
        let one = take(CacheSharing::Shared).unwrap();
        let two = take(CacheSharing::Shared).unwrap();
        assert!(one.new && !two.new && one.path == two.path);
        assert!(matches!(take(CacheSharing::Locked), Err(MountError::Cancelled(_))));
        let own = take(CacheSharing::Private).unwrap();
        assert!(own.new && own.path != one.path);
        let place = mounts.list().unwrap().remove(0).1;
        assert!(!mounts.remove(&place).unwrap());
        drop((one, two, own));
        assert!(!take(CacheSharing::Locked).unwrap().new);
        assert!(mounts.remove(&place).unwrap());
        assert!(mounts.list().unwrap().is_empty());
    }

    #[test]
    fn tenants_do_not_meet() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = CacheMounts::new(dir.path());
        let other = About { tenant: "u".into(), id: "npm".into() };
        let a = mounts.take(&about("npm"), CacheSharing::Shared, FRESH, &|| false).unwrap();
        let b = mounts.take(&other, CacheSharing::Shared, FRESH, &|| false).unwrap();
        assert_ne!(a.path, b.path);
    }
}
