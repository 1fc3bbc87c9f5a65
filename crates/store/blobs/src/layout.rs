//! Where things lie below the data directory, and what a blob file's mode says.

use std::fs;
use std::path::{Path, PathBuf};

use ashlar_core::Digest;

use crate::error::{At as _, Result};

/// Mode of a blob that was written in this boot and not flushed yet.
pub(crate) const MODE_FRESH: u32 = 0o600;
/// Mode of a blob that was not flushed before the machine went down: its content is unsure.
pub(crate) const MODE_SUSPECT: u32 = 0o400;
/// Mode of a blob that is safely on the disk.
pub(crate) const MODE_DURABLE: u32 = 0o444;

/// The directories of a store.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn create(data_dir: &Path) -> Result<Self> {
        let layout = Self { root: data_dir.join("blobs") };
        for dir in [layout.blobs(), layout.temp(), layout.partial(), layout.quarantine()] {
            fs::create_dir_all(&dir).at("create", &dir)?;
        }
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("sha256")
    }

    /// Files being written whose digest is not known yet.
    pub(crate) fn temp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Files being fetched whose digest is known; they outlive a crash to be resumed.
    pub(crate) fn partial(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let mut path = self.blobs();
        path.push(&hex[..2]);
        path.push(&hex);
        path
    }

    /// Moves a finished file to its final name.
    pub(crate) fn publish(&self, from: &Path, digest: &Digest) -> Result<()> {
        let to = self.blob(digest);
        match fs::rename(from, &to) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let shard = to.parent().unwrap_or(&self.root);
                fs::create_dir_all(shard).at("create", shard)?;
                fs::rename(from, &to).at("rename", from)
            }
            result => result.at("rename", from),
        }
    }
}
