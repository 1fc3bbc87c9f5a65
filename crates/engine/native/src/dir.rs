//! Where things lie in a data directory.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Folders that every data directory has.
const MADE_HERE: [&str; 7] =
    ["blobs", "images", "snapshots", "cache", "mounts", "debug", "scratch"];

/// Folders that are there where a server ran.
const MADE_BY_A_SERVER: [&str; 3] = ["uploads", "contexts", "grants"];

/// The folders of a data directory, made when they are missing.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Opens a data directory, making it (mode 0700) when it is new. One that was there keeps its
    /// mode, which may be somebody's wish; its folders with what tenants sent and built are made
    /// private in any case.
    ///
    /// # Errors
    /// When a folder cannot be made, or not be made private.
    pub fn open(root: impl AsRef<Path>) -> io::Result<Self> {
        let root = std::path::absolute(root.as_ref())?;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&root)?;
        let dir = Self { root };
        for folder in MADE_HERE {
            builder.create(dir.root.join(folder))?;
        }
        for folder in MADE_HERE.iter().chain(&MADE_BY_A_SERVER) {
            make_private(&dir.root.join(folder))?;
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

/// Lets nobody but its owner into a folder; one that is missing is fine.
fn make_private(folder: &Path) -> io::Result<()> {
    let mode = match fs::metadata(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        about => about?.permissions().mode(),
    };
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(|e| {
        let text = format!(
            "others may look into {}, and that cannot be changed ({e}): its owner has to run \
             `chmod 700` on it",
            folder.display()
        );
        io::Error::new(e.kind(), text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_tenants_have_is_private_also_in_a_directory_that_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("wide");
        let open = fs::Permissions::from_mode(0o755);
        for folder in ["", "blobs", "contexts", "grants"] {
            fs::create_dir_all(root.join(folder)).unwrap();
            fs::set_permissions(root.join(folder), open.clone()).unwrap();
        }
        DataDir::open(&root).unwrap();
        assert_eq!(mode(&root), 0o755);
        for entry in fs::read_dir(&root).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o700, "{}", path.display());
        }
        assert!(!root.join("uploads").exists(), "no server ran here");
        let new = DataDir::open(dir.path().join("new")).unwrap();
        assert_eq!(mode(new.root()), 0o700);
    }
}
