//! The store: where layers are, and what keeps them there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ashlar_layers::Entries;

use crate::entry_cache::EntryCache;
use crate::error::{Result, SnapshotError};
use crate::lock::{LockFile, Share};
use crate::meta::LayerMeta;
use crate::nursery::Nursery;
use crate::physical::Facts;
use crate::trash::Trash;
use crate::{LayerId, Tree};

/// Layers of root file systems in one directory; clones share everything.
///
/// ```text
/// layers/<hex>/{fs,entries,meta.json,lock}   a layer; `lock` is held shared by whoever uses it
/// drafts/<uuid>/{fs,work,lock}               a layer in the making
/// places/<uuid>/lock                         where a process makes its drafts
/// trash/<uuid>                               to be deleted, by whoever holds trash.lock
/// imports/<hex>                              lock of whoever unpacks an image layer
/// memo/<hex>                                 content digests computed before
/// empty/{first,second}                       lower directories of overlays without enough layers
/// ```
///
/// A layer appears by one rename and disappears by one rename, so that no crash leaves half of one.
#[derive(Clone)]
pub struct SnapshotStore(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) trash: Trash,
    pub(crate) nursery: Nursery,
    held: Mutex<HashMap<LayerId, Weak<LockFile>>>,
    pub(crate) entries: EntryCache,
    facts: Mutex<HashMap<LayerId, Arc<Facts>>>,
}

/// Keeps layers from being removed, by any process, while it exists.
#[derive(Debug, Clone)]
pub struct Lease(#[expect(dead_code, reason = "held for its lock only")] Arc<[Arc<LockFile>]>);

const FOLDERS: [&str; 8] =
    ["layers", "drafts", "places", "trash", "imports", "memo", "empty/first", "empty/second"];

/// How often a derived layer is made again when garbage collection takes it at once.
const DERIVE_TRIES: usize = 8;

impl SnapshotStore {
    /// Opens the store in `root` and makes what is missing. What the trash holds is deleted in the
    /// background.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        use std::fs::Permissions;
        use std::os::unix::fs::PermissionsExt as _;
        let root = root.into();
        let make = |path: &Path, mode: Permissions| {
            let made = std::fs::DirBuilder::new().recursive(true).create(path);
            // Whatever the umask: the empty directories show as root directories of trees.
            let made = made.and_then(|()| std::fs::set_permissions(path, mode));
            made.map_err(|e| SnapshotError::io("make the directory", path, e))
        };
        // Layers hold setuid files, which nobody but the store may reach.
        make(&root, Permissions::from_mode(0o700))?;
        let root = root.canonicalize().map_err(|e| SnapshotError::io("find", &root, e))?;
        FOLDERS
            .iter()
            .try_for_each(|folder| make(&root.join(folder), Permissions::from_mode(0o755)))?;
        let nursery = Nursery::new(root.join("drafts"), root.join("places"));
        let trash = Trash::open(root.join("trash"))?;
        let (held, facts, entries) = Default::default();
        Ok(Self(Arc::new(Inner { root, trash, nursery, held, entries, facts })))
    }

    /// Returns the directory that the store is in.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Whether the layer is here. Without a [`Lease`] it may be gone the next moment.
    pub fn has(&self, id: &LayerId) -> bool {
        self.layer_dir(id).join("meta.json").exists()
    }

    /// Returns what is known about a layer.
    ///
    /// # Errors
    /// [`SnapshotError::Missing`] and [`SnapshotError::Damaged`].
    pub fn layer(&self, id: &LayerId) -> Result<LayerMeta> {
        LayerMeta::read(&self.layer_dir(id), *id)
    }

    /// Returns all layers, in no order.
    ///
    /// # Errors
    /// When the directory cannot be read. Layers that disappear meanwhile are left out.
    pub fn layers(&self) -> Result<Vec<LayerMeta>> {
        let ids = self.layer_ids()?;
        Ok(ids.iter().filter_map(|id| self.layer(id).ok()).collect())
    }

    pub(crate) fn layer_ids(&self) -> Result<Vec<LayerId>> {
        let names = list_names(&self.0.root.join("layers"))?;
        Ok(names.iter().filter_map(|name| LayerId::from_hex(name).ok()).collect())
    }

    /// Changes what is known about a layer, such as its diff_id and blobs.
    ///
    /// # Errors
    /// [`SnapshotError::Missing`], or when the record cannot be written.
    pub fn update(&self, id: &LayerId, change: impl FnOnce(&mut LayerMeta)) -> Result<LayerMeta> {
        let lock = self.0.root.join("imports").join(format!("{}.meta", id.hex()));
        let lock = self.lock_named(&lock)?;
        let dir = self.layer_dir(id);
        let mut meta = LayerMeta::read(&dir, *id)?;
        change(&mut meta);
        let written = meta.write(&dir);
        lock.remove();
        written.map(|()| meta)
    }

    /// Takes the lock at `path`, making it where it is missing; [`LockFile::remove`] it afterwards.
    pub(crate) fn lock_named(&self, path: &Path) -> Result<LockFile> {
        loop {
            if let Some(lock) = LockFile::create(path, Share::Exclusive)? {
                return Ok(lock);
            }
        }
    }

    /// Keeps all layers of `tree` for as long as the lease exists, and marks them as used now.
    ///
    /// # Errors
    /// [`SnapshotError::Missing`] when one of them is not here.
    pub fn hold(&self, tree: &Tree) -> Result<Lease> {
        let mut locks: Vec<_> =
            tree.0.iter().map(|id| self.hold_layer(id)).collect::<Result<_>>()?;
        // What stands for these layers in mounts must stay as well. Someone may remove that between
        // its making and its lock: then it is made again.
        let mut tries = 0..DERIVE_TRIES;
        loop {
            let derived = self.physical(tree)?.0;
            let derived = derived.iter().filter(|id| !tree.0.contains(id));
            match derived.map(|id| self.hold_layer(id)).collect::<Result<Vec<_>>>() {
                Err(SnapshotError::Missing(_)) if tries.next().is_some() => {}
                derived => {
                    locks.extend(derived?);
                    return Ok(Lease(locks.into()));
                }
            }
        }
    }

    /// Returns what never changes about a layer, from memory if it was asked before.
    pub(crate) fn facts(&self, id: &LayerId) -> Result<Arc<Facts>> {
        let kept = || self.0.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(facts) = kept().get(id) {
            return Ok(Arc::clone(facts));
        }
        let LayerMeta { entries, opaque_root, implicit_dirs, .. } = self.layer(id)?;
        let facts = Arc::new(Facts { is_empty: entries == 0, opaque_root, implicit_dirs });
        kept().insert(*id, Arc::clone(&facts));
        Ok(facts)
    }

    fn hold_layer(&self, id: &LayerId) -> Result<Arc<LockFile>> {
        if let Some(lock) = self.held().get(id).and_then(Weak::upgrade) {
            lock.touch();
            return Ok(lock);
        }
        let path = self.layer_dir(id).join("lock");
        let lock = LockFile::wait(&path, Share::Shared)?.ok_or(SnapshotError::Missing(*id))?;
        lock.touch();
        Ok(self.note_held(*id, lock))
    }

    /// Shares the lock with later holders in this process, so that each layer takes one descriptor.
    fn note_held(&self, id: LayerId, lock: LockFile) -> Arc<LockFile> {
        let lock = Arc::new(lock);
        let mut held = self.held();
        held.retain(|_, lock| lock.strong_count() > 0);
        held.insert(id, Arc::downgrade(&lock));
        lock
    }

    pub(crate) fn lease_of(&self, id: LayerId, lock: LockFile) -> Lease {
        Lease([self.note_held(id, lock)].into())
    }

    fn held(&self) -> MutexGuard<'_, HashMap<LayerId, Weak<LockFile>>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn layer_dir(&self, id: &LayerId) -> PathBuf {
        self.0.root.join("layers").join(id.hex())
    }

    /// Returns the directory that holds the layer's files, in overlayfs's upper format.
    pub fn layer_fs(&self, id: &LayerId) -> PathBuf {
        self.layer_dir(id).join("fs")
    }

    /// Returns the paths of a layer with their metadata and content digests.
    ///
    /// # Errors
    /// [`SnapshotError::Missing`] and [`SnapshotError::Damaged`].
    pub fn entries(&self, id: &LayerId) -> Result<Arc<Entries>> {
        self.0.entries.get(id, || {
            let path = self.layer_dir(id).join("entries");
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(SnapshotError::Missing(*id));
                }
                Err(error) => return Err(SnapshotError::io("read", &path, error)),
            };
            let reason = "its entry record is not readable";
            Entries::decode(&bytes).map_err(|_| SnapshotError::Damaged { id: *id, reason })
        })
    }

    /// Forgets what memory holds about a layer.
    pub(crate) fn forget(&self, id: &LayerId) {
        self.0.entries.forget(id);
        self.0.facts.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Removes a layer unless someone, in any process, holds it.
    ///
    /// # Errors
    /// When the layer cannot be moved away. One that is not here is no error.
    pub fn remove(&self, id: &LayerId) -> Result<Removal> {
        let dir = self.layer_dir(id);
        let Some(lock) = LockFile::try_exclusive(&dir.join("lock"))? else {
            return Ok(if dir.exists() { Removal::InUse } else { Removal::Missing });
        };
        self.forget(id);
        self.0.trash.discard(&dir)?;
        drop(lock);
        Ok(Removal::Removed)
    }
}

/// What [`SnapshotStore::remove`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The layer is gone; its disk space follows in the background.
    Removed,
    /// Someone holds a lease on it.
    InUse,
    /// It was not here.
    Missing,
}

/// Returns the names in `dir` that are text.
pub(crate) fn list_names(dir: &Path) -> Result<Vec<String>> {
    let error = |e| SnapshotError::io("list", dir, e);
    let names = std::fs::read_dir(dir).map_err(error)?;
    let names = names.map(|entry| entry.map(|entry| entry.file_name()).map_err(error));
    let names: Vec<_> = names.collect::<Result<_>>()?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}
