//! A layer in the making.

use std::fs::Permissions;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ashlar_layers::{Entries, KnownFiles, Node, Scan, ScanOptions, scan};
use rustix::io::Errno;
use uuid::Uuid;

use crate::error::{Result, SnapshotError};
use crate::lock::{LockFile, Share};
use crate::meta::{LayerKind, LayerMeta, now_seconds};
use crate::store::{Lease, SnapshotStore};
use crate::{LayerId, Tree};

/// A layer in the making: the upper directory of an overlay, or a directory to be filled directly.
///
/// Dropping it removes it, in the background; so does the next start after a crash.
pub struct Draft {
    store: SnapshotStore,
    id: Uuid,
    dir: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    /// None once the draft became a layer or was moved away.
    lock: Option<LockFile>,
    /// How many files it has, once they are known.
    files: Option<u64>,
}

/// A draft that became a layer.
#[derive(Debug)]
pub struct Commit {
    /// The layer's name.
    pub id: LayerId,
    /// Keeps the layer from being removed.
    pub lease: Lease,
    /// Whether the very same layer was here already; the draft was dropped then.
    pub reused: bool,
    /// What is known about the layer.
    pub meta: LayerMeta,
    /// Files that had to be read for their digest.
    pub files_read: u64,
}

/// How a draft becomes a layer.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// Limits, and a flag that ends it early.
    pub scan: ScanOptions,
    /// For people: which step made it.
    pub origin: String,
}

/// What a draft becomes.
pub(crate) struct Identity {
    pub(crate) kind: LayerKind,
    /// The content identity if none.
    pub(crate) id: Option<LayerId>,
    pub(crate) implicit_dirs: Vec<Vec<u8>>,
}

impl Identity {
    pub(crate) fn named(kind: LayerKind, id: LayerId) -> Self {
        Self { kind, id: Some(id), implicit_dirs: Vec::new() }
    }
}

impl SnapshotStore {
    /// Starts a layer on top of `parent`, whose root directory gives the owner and mode of the new
    /// one: an overlay shows those of its upper directory.
    ///
    /// # Errors
    /// [`SnapshotError::Missing`] when the topmost layer of `parent` is not here.
    pub fn begin(&self, parent: &Tree) -> Result<Draft> {
        loop {
            let id = Uuid::now_v7();
            let Some(dir) = self.0.nursery.make(id)? else { continue };
            // Repair may take a draft for dead before its lock is held: then start again.
            let Some(lock) = LockFile::create(&dir.join("lock"), Share::Shared)? else { continue };
            let (upper, work) = (dir.join("fs"), dir.join("work"));
            let store = self.clone();
            let draft = Draft { store, id, dir, upper, work, lock: Some(lock), files: None };
            for part in [&draft.upper, &draft.work] {
                std::fs::create_dir(part).map_err(|e| SnapshotError::io("make", part, e))?;
            }
            draft.adopt_root(parent)?;
            return Ok(draft);
        }
    }
}

impl Draft {
    /// Returns the directory that holds the changes, in overlayfs's upper format.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Returns overlayfs's work directory. Each mount wants it as [`Draft::reset_work`] leaves it.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Returns the draft's own id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Returns the store that this is a draft of.
    pub fn store(&self) -> &SnapshotStore {
        &self.store
    }

    /// Makes the work directory fit for another mount: one with `volatile` leaves a mark there that
    /// refuses the next.
    ///
    /// # Errors
    /// When the mark cannot be removed. The draft must not be mounted anywhere.
    pub fn reset_work(&self) -> Result<()> {
        let mark = self.work.join("work/incompat");
        match std::fs::remove_dir_all(&mark) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(SnapshotError::io("remove", &mark, error))
            }
            _ => Ok(()),
        }
    }

    fn adopt_root(&self, parent: &Tree) -> Result<()> {
        let (mut mode, mut owner) = (0o755, (0, 0));
        if let Some(top) = parent.top() {
            let root = self.store.layer_fs(&top);
            let root = std::fs::metadata(root).map_err(|_| SnapshotError::Missing(top))?;
            (mode, owner) = (root.mode() & 0o7777, (root.uid(), root.gid()));
        }
        let (uid, gid) = (Some(owner.0), Some(owner.1));
        std::os::unix::fs::chown(&self.upper, uid, gid)
            .and_then(|()| std::fs::set_permissions(&self.upper, Permissions::from_mode(mode)))
            .map_err(|e| SnapshotError::io("set the owner and mode of", &self.upper, e))
    }

    /// Makes the layer: reads what changed, names it, and moves it into place.
    ///
    /// Nothing may use the draft any more, and no overlay with it may be mounted. `known` saves
    /// reading files whose content the caller wrote itself.
    ///
    /// # Errors
    /// When the directory cannot be read or is beyond a limit; the draft is gone then.
    pub fn commit(self, known: &KnownFiles) -> Result<Commit> {
        self.commit_with(known, &CommitOptions::default())
    }

    /// As [`Draft::commit`], with options.
    ///
    /// # Errors
    /// As [`Draft::commit`], and when it was stopped.
    pub fn commit_with(self, known: &KnownFiles, options: &CommitOptions) -> Result<Commit> {
        let identity = Identity { kind: LayerKind::Built, id: None, implicit_dirs: Vec::new() };
        self.commit_as(identity, known, options)
    }

    pub(crate) fn commit_as(
        mut self,
        identity: Identity,
        known: &KnownFiles,
        options: &CommitOptions,
    ) -> Result<Commit> {
        let upper = std::fs::File::open(&self.upper)
            .map_err(|e| SnapshotError::io("open", &self.upper, e))?;
        let scan = scan(upper.as_fd(), known, &options.scan)?;
        self.files = Some(scan.entries.len() as u64);
        let id = identity.id.unwrap_or_else(|| scan.entries.identity());
        // Most layers that exist already are recognised before anything is written.
        if self.store.has(&id)
            && let Ok(lease) = self.store.hold(&Tree(vec![id]))
        {
            let meta = self.store.layer(&id)?;
            return Ok(Commit { id, lease, reused: true, meta, files_read: scan.files_read });
        }
        let meta = self.describe(id, identity, &scan, &options.origin);
        self.write_records(&meta, &scan.entries)?;
        let (lease, reused) = self.move_into_place(id)?;
        let meta = if reused { self.store.layer(&id)? } else { meta };
        Ok(Commit { id, lease, reused, meta, files_read: scan.files_read })
    }

    fn describe(&self, id: LayerId, identity: Identity, scan: &Scan, origin: &str) -> LayerMeta {
        let Identity { kind, mut implicit_dirs, .. } = identity;
        let plain = Node::Directory { opaque: false };
        implicit_dirs.retain(|path| scan.entries.find(path).is_some_and(|e| e.node == plain));
        let root = scan.entries.find(b"");
        LayerMeta {
            id,
            kind,
            disk_bytes: scan.disk_bytes,
            content_bytes: scan.content_bytes,
            entries: scan.entries.len() as u64,
            opaque_root: root.is_some_and(|e| e.node == Node::Directory { opaque: true }),
            created: now_seconds(),
            diff_id: (kind == LayerKind::Image).then_some(id),
            blobs: Vec::new(),
            origin: origin.to_owned(),
            implicit_dirs,
            last_used: std::time::SystemTime::now(),
        }
    }

    fn write_records(&self, meta: &LayerMeta, entries: &Entries) -> Result<()> {
        let path = self.dir.join("entries");
        std::fs::write(&path, entries.encode())
            .map_err(|e| SnapshotError::io("write", &path, e))?;
        meta.write(&self.dir)?;
        std::fs::remove_dir_all(&self.work).map_err(|e| SnapshotError::io("remove", &self.work, e))
    }

    /// Renames the draft to the layer; when someone else was first, takes theirs.
    fn move_into_place(&mut self, id: LayerId) -> Result<(Lease, bool)> {
        let target = self.store.layer_dir(&id);
        loop {
            match rustix::fs::rename(&self.dir, &target) {
                Ok(()) => break,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    match self.store.hold(&Tree(vec![id])) {
                        // It was removed between the rename and the lock.
                        Err(SnapshotError::Missing(_)) => {}
                        held => return held.map(|lease| (lease, true)),
                    }
                }
                Err(error) => return Err(SnapshotError::io("move into place", &target, error)),
            }
        }
        match self.lock.take() {
            Some(mut lock) => {
                lock.renamed(target.join("lock"));
                lock.touch();
                Ok((self.store.lease_of(id, lock), false))
            }
            None => self.store.hold(&Tree(vec![id])).map(|lease| (lease, false)),
        }
    }

    /// Moves the draft, with `fs` and `work` in it, to `target` for a look at what went wrong.
    ///
    /// `target` must not exist and be on the store's file system.
    ///
    /// # Errors
    /// When it cannot be moved; the draft is gone then.
    pub fn keep_failed(mut self, target: &Path) -> Result<()> {
        std::fs::rename(&self.dir, target)
            .map_err(|e| SnapshotError::io("move the failed step's files to", target, e))?;
        self.lock = None;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.store.0.nursery.filled(self.files);
        if self.lock.is_some()
            && let Err(error) = self.store.0.trash.discard(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "cannot drop a draft");
        }
    }
}
