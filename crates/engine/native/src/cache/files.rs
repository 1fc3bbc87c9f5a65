//! A folder of JSON records named by digests.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ashlar_core::Digest;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A cache record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the cache record {}", path.display())]
pub struct CacheError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Records in `DIR/ab/<hex>.json`.
#[derive(Debug, Clone)]
pub struct RecordDir(PathBuf);

impl RecordDir {
    /// Uses the folder `dir`, which is made with the first record.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    fn path(&self, key: &Digest) -> PathBuf {
        let hex = key.hex();
        self.0.join(&hex[..2]).join(format!("{hex}.json"))
    }

    /// Returns a record. One that cannot be understood counts as missing: a newer or older program
    /// wrote it, and a cache may forget.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn get<T: DeserializeOwned>(&self, key: &Digest) -> Result<Option<T>, CacheError> {
        let path = self.path(key);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CacheError { action: "read", path, source }),
        }
    }

    /// Writes a record in the place of an earlier one.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn put<T: Serialize>(&self, key: &Digest, record: &T) -> Result<(), CacheError> {
        let path = self.path(key);
        let write = || -> io::Result<()> {
            let shard = path.parent().unwrap_or(&self.0);
            let mut file = match tempfile::NamedTempFile::new_in(shard) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(shard)?;
                    tempfile::NamedTempFile::new_in(shard)
                }
                made => made,
            }?;
            file.write_all(&serde_json::to_vec(record)?)?;
            file.persist(&path)?;
            Ok(())
        };
        write().map_err(|source| CacheError { action: "write", path: path.clone(), source })
    }

    /// Removes a record; one that is missing is fine.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self, key: &Digest) -> Result<(), CacheError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(CacheError { action: "remove", path, source: e })
            }
            _ => Ok(()),
        }
    }

    /// Lists keys and when their records were written.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn list(&self) -> Result<Vec<(Digest, SystemTime)>, CacheError> {
        let mut all = Vec::new();
        for shard in entries(&self.0)? {
            for file in entries(&shard)? {
                let key = file.file_stem().and_then(|s| Digest::from_hex(s.to_str()?).ok());
                let Some(key) = key else { continue };
                let written = fs::metadata(&file).and_then(|m| m.modified());
                all.push((key, written.unwrap_or(SystemTime::UNIX_EPOCH)));
            }
        }
        Ok(all)
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, CacheError> {
    let failed = |source| CacheError { action: "list", path: dir.to_owned(), source };
    match fs::read_dir(dir) {
        Ok(entries) => {
            entries.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>().map_err(failed)
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(e) => Err(failed(e)),
    }
}
