//! Where things lie in a data directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folders of a data directory, made when they are missing.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Opens a data directory, making it (mode 0700) when it is new.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn open(root: impl AsRef<Path>) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let root = std::path::absolute(root.as_ref())?;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&root)?;
        let dir = Self { root };
        for folder in [dir.cache(), dir.mounts(), dir.debug(), dir.scratch()] {
            builder.create(folder)?;
        }
        Ok(dir)
    }

    /// The data directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Cache records: keys, final artifacts, fetched addresses, context digests.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Layers and drafts.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Cache mounts and cache volumes.
    pub fn mounts(&self) -> PathBuf {
        self.root.join("mounts")
    }

    /// What failed steps left, for `ashlar debug`.
    pub fn debug(&self) -> PathBuf {
        self.root.join("debug")
    }

    /// Short-lived directories of running steps. They are on the file system of the layers, which
    /// is what overlay work directories need.
    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }
}
