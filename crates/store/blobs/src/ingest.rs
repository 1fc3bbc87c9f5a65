//! Fetches a blob of known digest once, whoever wants it, and resumes what was broken off.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ashlar_core::{Digest, Hasher};

use crate::error::{At as _, BlobError, Result};
use crate::layout::MODE_FRESH;
use crate::store::{BlobInfo, BlobStore, copy};

/// What [`BlobStore::claim`] found.
pub enum Claim {
    /// The blob is in the store already.
    Present(BlobInfo),
    /// Somebody else, in this process or another, is fetching it; so many bytes are there.
    Busy(u64),
    /// The caller is to fetch it; bytes of an earlier try may be there.
    Mine(Ingest),
}

/// The right to fetch one blob. Dropping it keeps the bytes for whoever resumes.
pub struct Ingest {
    store: BlobStore,
    digest: Digest,
    file: File,
    path: PathBuf,
    hasher: Hasher,
    size: u64,
}

pub(crate) fn claim(
    store: &BlobStore,
    digest: &Digest,
    has: impl Fn(&BlobStore, &Digest) -> Result<bool>,
) -> Result<Claim> {
    loop {
        if has(store, digest)? {
            return Ok(Claim::Present(store.stat(digest)?));
        }
        let (file, path) = open_partial(store, digest)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Ok(Claim::Busy(file.metadata().at("look at", &path)?.len()));
            }
            Err(TryLockError::Error(e)) => return Err(e).at("lock", &path),
        }
        if is_wanted(store, digest, &file, &path)? {
            return Ingest::resume(store.clone(), *digest, file, path).map(Claim::Mine);
        }
    }
}

/// Waits for whoever is fetching the blob; none when it is here then.
pub(crate) fn claim_waiting(store: &BlobStore, digest: &Digest) -> Result<Option<Ingest>> {
    loop {
        if store.local_size(digest)?.is_some() {
            return Ok(None);
        }
        let (file, path) = open_partial(store, digest)?;
        file.lock().at("lock", &path)?;
        if is_wanted(store, digest, &file, &path)? {
            return Ingest::resume(store.clone(), *digest, file, path).map(Some);
        }
    }
}

fn open_partial(store: &BlobStore, digest: &Digest) -> Result<(File, PathBuf)> {
    let path = store.layout().partial().join(digest.hex());
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(MODE_FRESH);
    let file = options.open(&path).at("create", &path)?;
    Ok((file, path))
}

/// Says whether a partial file that is locked now is to be filled. It may have been finished and
/// renamed before it was locked, or even before it was opened, which made it anew.
fn is_wanted(store: &BlobStore, digest: &Digest, file: &File, path: &Path) -> Result<bool> {
    if !is_same_file(file, path)? {
        return Ok(false);
    }
    let is_here = store.has_here(digest)?;
    if is_here {
        fs::remove_file(path).at("remove", path)?;
    }
    Ok(!is_here)
}

fn is_same_file(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().at("look at", path)?;
    Ok(fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino())))
}

impl Ingest {
    fn resume(store: BlobStore, digest: Digest, mut file: File, path: PathBuf) -> Result<Self> {
        file.set_permissions(Permissions::from_mode(MODE_FRESH)).at("mark", &path)?;
        let mut hasher = Hasher::new();
        let size = copy(&mut file, &mut hasher).at("read", &path)?;
        Ok(Self { store, digest, file, path, hasher, size })
    }

    /// Returns how many bytes are there.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Forgets all bytes, to begin again.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).at("truncate", &self.path)?;
        self.file.seek(SeekFrom::Start(0)).at("truncate", &self.path)?;
        self.hasher = Hasher::new();
        self.size = 0;
        Ok(())
    }

    /// Gives the blob its name when all bytes are there and right.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`], and the bytes are forgotten, so that it can be filled again; when
    /// the file system refuses.
    pub fn commit(&mut self) -> Result<BlobInfo> {
        let actual = std::mem::take(&mut self.hasher).finish();
        if actual != self.digest {
            self.restart()?;
            return Err(BlobError::Mismatch { expected: self.digest, actual });
        }
        self.store.layout().publish(&self.path, &actual)?;
        self.store.note_stored(actual);
        self.store.stat(&actual)
    }

    /// Gives up and forgets the bytes.
    pub fn discard(self) {
        // A file that stays is resumed, found wrong and forgotten by the next fetch.
        drop(fs::remove_file(&self.path));
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
