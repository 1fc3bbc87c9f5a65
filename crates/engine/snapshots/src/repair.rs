//! Puts the store in order after crashes, and makes it safe from power cuts.
//!
//! A killed process leaves drafts without an owner: their lock is free. A power cut may besides have
//! lost file contents that were never on disk: layers made since the last [`SnapshotStore::sync`] are
//! checked at the first start after a boot, and dropped if anything is amiss. They are made again.

use std::fs::File;
use std::os::fd::AsFd as _;

use ashlar_layers::{Entries, KnownFiles, ScanOptions, scan};

use crate::LayerId;
use crate::error::{Result, SnapshotError};
use crate::lock::LockFile;
use crate::meta::{LayerKind, now_seconds, replace_file};
use crate::store::{SnapshotStore, list_names};

/// What [`SnapshotStore::verify`] found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repairs {
    /// Drafts whose process is gone, removed.
    pub drafts: u64,
    /// Layers that were damaged, removed.
    pub layers: Vec<LayerId>,
    /// Layers whose whole content was read and found right.
    pub checked: u64,
    /// Left-over temporary files and locks, removed.
    pub leftovers: u64,
}

impl SnapshotStore {
    /// Removes what crashes left behind; to be called once at the start. Others may use the store
    /// meanwhile.
    ///
    /// # Errors
    /// When a directory cannot be read or changed.
    pub fn verify(&self) -> Result<Repairs> {
        let (drafts, leftovers) = (self.drop_dead("drafts")?, self.drop_dead("places")?);
        let mut repairs = Repairs { drafts, leftovers, ..Repairs::default() };
        self.drop_leftovers(&mut repairs)?;
        let synced = Synced::read(self);
        let boot = boot_id()?;
        let rebooted = synced.boot != boot;
        for id in self.layer_ids()? {
            let is_sound = match self.layer(&id) {
                Ok(meta) if !rebooted || meta.created < synced.seconds => {
                    self.layer_fs(&id).is_dir() && self.layer_dir(&id).join("entries").exists()
                }
                Ok(meta) => {
                    repairs.checked += 1;
                    self.is_intact(&id, meta.kind)
                }
                Err(SnapshotError::Missing(_) | SnapshotError::Damaged { .. }) => false,
                Err(error) => return Err(error),
            };
            if !is_sound {
                self.discard_damaged(&id, &mut repairs)?;
            }
        }
        if rebooted {
            self.sync()?;
        }
        Ok(repairs)
    }

    /// Waits until all layers made so far are on disk, and notes that they are.
    ///
    /// # Errors
    /// When the file system cannot write.
    pub fn sync(&self) -> Result<()> {
        let root = &self.0.root;
        // A layer made in this very second may miss the sync.
        let seconds = now_seconds();
        let error = |e: std::io::Error| SnapshotError::io("sync", root, e);
        let dir = File::open(root).map_err(error)?;
        rustix::fs::syncfs(&dir).map_err(|e| error(e.into()))?;
        replace_file(&root.join("synced"), format!("{seconds} {}", boot_id()?).as_bytes())
    }

    /// Removes the directories in a folder whose process is gone; returns how many.
    fn drop_dead(&self, folder: &str) -> Result<u64> {
        let folder = self.0.root.join(folder);
        let mut dropped = 0;
        for name in list_names(&folder)? {
            let dir = folder.join(name);
            let path = dir.join("lock");
            let lock = LockFile::try_exclusive(&path)?;
            // One without a lock is so new or so old that its maker will or would start again.
            if lock.is_some() || !path.exists() {
                self.0.trash.discard(&dir)?;
                dropped += 1;
            }
        }
        Ok(dropped)
    }

    fn drop_leftovers(&self, repairs: &mut Repairs) -> Result<()> {
        let imports = self.0.root.join("imports");
        for name in list_names(&imports)? {
            if let Some(lock) = LockFile::try_exclusive(&imports.join(name))? {
                lock.remove();
                repairs.leftovers += 1;
            }
        }
        Ok(())
    }

    /// Compares a layer's record with its files, and own layers also with their name.
    fn is_intact(&self, id: &LayerId, kind: LayerKind) -> bool {
        let Ok(recorded) = std::fs::read(self.layer_dir(id).join("entries")) else { return false };
        let Ok(recorded) = Entries::decode(&recorded) else { return false };
        if kind == LayerKind::Built && recorded.identity() != *id {
            return false;
        }
        let Ok(fs) = File::open(self.layer_fs(id)) else { return false };
        let found = scan(fs.as_fd(), &KnownFiles::new(), &ScanOptions::default());
        found.is_ok_and(|found| found.entries.identity() == recorded.identity())
    }

    fn discard_damaged(&self, id: &LayerId, repairs: &mut Repairs) -> Result<()> {
        let dir = self.layer_dir(id);
        let lock = dir.join("lock");
        // Someone who holds it got it whole before it was damaged by hand; leave it to them.
        if lock.exists() && LockFile::try_exclusive(&lock)?.is_none() {
            return Ok(());
        }
        self.forget(id);
        self.0.trash.discard(&dir)?;
        repairs.layers.push(*id);
        Ok(())
    }
}

/// When everything was last known to be on disk.
#[derive(Default)]
struct Synced {
    seconds: u64,
    boot: String,
}

impl Synced {
    /// A missing or odd record means that nothing is known.
    fn read(store: &SnapshotStore) -> Self {
        let text = std::fs::read_to_string(store.0.root.join("synced")).unwrap_or_default();
        let (seconds, boot) = text.split_once(' ').unwrap_or_default();
        match seconds.parse() {
            Ok(seconds) => Self { seconds, boot: boot.to_owned() },
            Err(_) => Self::default(),
        }
    }
}

fn boot_id() -> Result<String> {
    let path = std::path::Path::new("/proc/sys/kernel/random/boot_id");
    let id = std::fs::read_to_string(path).map_err(|e| SnapshotError::io("read", path, e))?;
    Ok(id.trim().to_owned())
}
