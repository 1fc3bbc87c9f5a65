//! Small JSON records as files that are replaced whole.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ashlar_core::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest record that is read, in bytes: a config and its surroundings.
const RECORD_BYTES_MAX: u64 = 32 << 20;

/// A record's file can not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}", path.display())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(crate) fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self { doing, path: path.to_owned(), source }
    }
}

type Result<T> = std::result::Result<T, FileError>;

pub(crate) fn now() -> Timestamp {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
}

pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| FileError::new("create", path, e))
}

/// Replaces the file with `value`, flushed to the disk before it takes its name.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    Staged::new(path, value)?.publish()
}

/// A record on the disk that does not have its name yet. To get it there takes long, to name it does not: so nobody
/// waits for the disk behind a lock.
pub(crate) struct Staged<'a> {
    file: tempfile::NamedTempFile,
    path: &'a Path,
}

impl<'a> Staged<'a> {
    /// Writes `value` beside `path` and waits until it is on the disk.
    pub(crate) fn new<T: Serialize>(path: &'a Path, value: &T) -> Result<Self> {
        let dir = path.parent().unwrap_or(path);
        let write = || -> io::Result<tempfile::NamedTempFile> {
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
            serde_json::to_writer(io::BufWriter::new(file.as_file_mut()), value)?;
            file.flush()?;
            file.as_file().sync_data()?;
            Ok(file)
        };
        let file = write().map_err(|e| FileError::new("write", path, e))?;
        Ok(Self { file, path })
    }

    /// Gives it its name.
    pub(crate) fn publish(self) -> Result<()> {
        let named = self.file.persist(self.path);
        named.map(drop).map_err(|e| FileError::new("write", self.path, e.error))
    }
}

/// Reads the file; nothing when there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let read = || -> io::Result<T> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(RECORD_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    match read() {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(FileError::new("read", path, e)),
    }
}

/// Removes the file; that it is gone already is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path, e)),
        _ => Ok(()),
    }
}

/// Lists the names of the files in a directory.
pub(crate) fn list(dir: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        let entries = fs::read_dir(dir)?;
        entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect()
    };
    read().map_err(|e| FileError::new("list", dir, e))
}
