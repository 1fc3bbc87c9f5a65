//! What the store occupies, and making room.

use crate::error::{Result, SnapshotError};
use crate::lock::LockFile;
use crate::meta::LayerMeta;
use crate::store::{SnapshotStore, list_names};

/// What the store occupies.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// Every layer, the one used longest ago first, and whether someone holds it now.
    pub layers: Vec<(LayerMeta, bool)>,
    /// Bytes of real disk blocks of all layers. A file shared between layers counts in each.
    pub layer_bytes: u64,
    /// Layers in the making.
    pub drafts: u64,
    /// Directories that wait for their deletion.
    pub trash: u64,
}

impl SnapshotStore {
    /// Returns what the store occupies and what could be removed first.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn usage(&self) -> Result<Usage> {
        let mut layers = Vec::new();
        for meta in self.layers()? {
            let lock = self.layer_dir(&meta.id).join("lock");
            let is_held = LockFile::try_exclusive(&lock)?.is_none();
            layers.push((meta, is_held));
        }
        layers.sort_by_key(|(meta, _)| meta.last_used);
        let layer_bytes = layers.iter().map(|(meta, _)| meta.disk_bytes).sum();
        let count = |folder| list_names(&self.0.root.join(folder)).map(|names| names.len() as u64);
        Ok(Usage { layers, layer_bytes, drafts: count("drafts")?, trash: count("trash")? })
    }

    /// Deletes what waits for its deletion before returning, so that the space is free.
    ///
    /// # Errors
    /// When something cannot be deleted.
    pub fn empty_trash(&self) -> Result<()> {
        self.0.trash.empty()
    }

    /// Writes a layer's tar to `out`, as [`ashlar_layers::write_blob`] does. Noting the diff_id and
    /// the blob ([`SnapshotStore::update`]) is the caller's, who knows whether the times are real.
    ///
    /// # Errors
    /// When the layer is missing or cannot be read, or `out` fails.
    pub fn write_blob(
        &self,
        id: &crate::LayerId,
        compression: ashlar_layers::Compression,
        options: &ashlar_layers::TarOptions,
        out: &mut (impl std::io::Write + Send),
    ) -> Result<ashlar_layers::LayerBlob> {
        use std::os::fd::AsFd as _;
        let entries = self.entries(id)?;
        let path = self.layer_fs(id);
        let fs = std::fs::File::open(&path).map_err(|e| SnapshotError::io("open", &path, e))?;
        Ok(ashlar_layers::write_blob(&entries, fs.as_fd(), compression, options, out)?)
    }
}
