//! The store in the data directory.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use ashlar_core::Digest;

use crate::error::{At as _, BlobError, Result};
use crate::ingest::{self, Claim};
use crate::layout::{Layout, MODE_DURABLE};
use crate::verify::{self, VerifiedReader};
use crate::writer::BlobWriter;
use crate::{boot, sweep};

/// Name, size and age of a stored blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Digest of the bytes.
    pub digest: Digest,
    /// Number of bytes.
    pub size: u64,
    /// When the bytes were written.
    pub modified: SystemTime,
}

/// Blobs in `DIR/blobs/sha256/ab/<hex>`. Cheap to clone; clones share one batch for [`sync`].
///
/// [`sync`]: BlobStore::sync
#[derive(Debug, Clone)]
pub struct BlobStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    /// Blobs stored through this handle and not flushed yet.
    unsynced: Mutex<BTreeSet<Digest>>,
}

impl BlobStore {
    /// Opens the store below `data_dir`, making it when it is new, and clears away what crashed
    /// writers left.
    ///
    /// # Errors
    /// When a directory can not be made or read.
    pub fn open(data_dir: impl AsRef<Path>) -> Result<Self> {
        let layout = Layout::create(data_dir.as_ref())?;
        boot::note_boot(&layout)?;
        sweep::clear_leftovers(&layout)?;
        Ok(Self { inner: Arc::new(Inner { layout, unsynced: Mutex::default() }) })
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    /// Returns where the blob's file is or would be. Callers must never write to it.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.layout().blob(digest)
    }

    /// Tells whether the blob is there and whole; hashes it when a power loss made that unsure.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(self.size(digest)?.is_some())
    }

    /// Returns the size in bytes of a blob that is there and whole.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("look at", &path),
            Ok(meta) if !verify::is_suspect(&meta) => Ok(Some(meta.len())),
            Ok(_) => match self.open_read(digest) {
                Ok(file) => Ok(Some(file.metadata().at("look at", &path)?.len())),
                Err(BlobError::Missing(_) | BlobError::Corrupt { .. }) => Ok(None),
                Err(e) => Err(e),
            },
        }
    }

    /// Opens the blob's file.
    ///
    /// # Errors
    /// [`BlobError::Missing`]; [`BlobError::Corrupt`] when a power loss tore it.
    pub fn open_read(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing(*digest));
            }
            result => result.at("open", &path)?,
        };
        if verify::is_suspect(&file.metadata().at("look at", &path)?) {
            self.verify(digest)?;
            self.flush(digest)?;
        }
        Ok(file)
    }

    /// Opens the blob so that reading to the end fails when its bytes are not those of `digest`.
    ///
    /// # Errors
    /// As [`open_read`](Self::open_read).
    pub fn open_verified(&self, digest: &Digest) -> Result<VerifiedReader> {
        Ok(VerifiedReader::new(self.open_read(digest)?, *digest))
    }

    /// Reads a small blob into memory and checks its digest.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] above `limit` bytes; [`BlobError::Missing`]; [`BlobError::Corrupt`].
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let file = self.open_read(digest)?;
        let size = file.metadata().at("look at", &path)?.len();
        if size > limit {
            return Err(BlobError::TooLarge { digest: *digest, size, limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.take(limit).read_to_end(&mut bytes).at("read", &path)?;
        if Digest::of(&bytes) != *digest {
            self.verify(digest)?;
        }
        Ok(bytes)
    }

    /// Starts a blob whose digest is not known yet.
    ///
    /// # Errors
    /// When the temporary file can not be made.
    pub fn writer(&self) -> Result<BlobWriter> {
        BlobWriter::create(self.clone())
    }

    /// Stores `bytes`.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<BlobInfo> {
        let digest = Digest::of(bytes);
        if self.has(&digest)? {
            return self.stat(&digest);
        }
        let mut writer = self.writer()?;
        writer.write_all(bytes).at("write", writer.path())?;
        writer.commit(Some(&digest))
    }

    /// Stores all that `content` gives; with `expected`, only when that is its digest.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`]; when reading or the file system fails.
    pub fn put_reader(
        &self,
        content: &mut dyn Read,
        expected: Option<&Digest>,
    ) -> Result<BlobInfo> {
        let mut writer = self.writer()?;
        copy(content, &mut writer).at("write", writer.path())?;
        writer.commit(expected)
    }

    /// Claims the right to fetch the blob `digest`, which only one thread of all processes has at
    /// a time.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn claim(&self, digest: &Digest) -> Result<Claim> {
        ingest::claim(self, digest)
    }

    /// Removes the blob; tells whether it was there. Readers that have it open keep it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(digest);
        self.unsynced().remove(digest);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            result => result.at("remove", &path).map(|()| true),
        }
    }

    /// Lists all blobs, in no order.
    ///
    /// # Errors
    /// When a directory can not be read.
    pub fn list(&self) -> Result<Vec<BlobInfo>> {
        let mut blobs = Vec::new();
        sweep::for_each_blob(self.layout(), |path, digest, meta| {
            let modified = meta.modified().at("look at", path)?;
            blobs.push(BlobInfo { digest, size: meta.len(), modified });
            Ok(())
        })?;
        Ok(blobs)
    }

    /// Flushes all blobs that were stored through this handle and its clones to the disk.
    ///
    /// Call it before a record that names them becomes durable.
    ///
    /// # Errors
    /// When a flush fails; what was not flushed stays in the batch.
    pub fn sync(&self) -> Result<()> {
        let batch = std::mem::take(&mut *self.unsynced());
        let mut shards = BTreeSet::new();
        let mut left = batch.iter();
        while let Some(digest) = left.next() {
            if let Err(e) = self.flush(digest) {
                self.unsynced().extend(left.chain([digest]));
                return Err(e);
            }
            shards.extend(self.path(digest).parent().map(Path::to_owned));
        }
        for dir in shards {
            File::open(&dir).and_then(|d| d.sync_all()).at("flush", &dir)?;
        }
        Ok(())
    }

    /// Flushes one blob and marks it as durable; one that was removed meanwhile is fine.
    fn flush(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.at("open", &path)?,
        };
        file.sync_data().at("flush", &path)?;
        file.set_permissions(Permissions::from_mode(MODE_DURABLE)).at("mark", &path)
    }

    /// Returns name, size and age of a blob, without looking into it.
    ///
    /// # Errors
    /// [`BlobError::Missing`].
    pub fn stat(&self, digest: &Digest) -> Result<BlobInfo> {
        let path = self.path(digest);
        let meta = match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing(*digest));
            }
            result => result.at("look at", &path)?,
        };
        let modified = meta.modified().at("look at", &path)?;
        Ok(BlobInfo { digest: *digest, size: meta.len(), modified })
    }

    pub(crate) fn unsynced(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        self.inner.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes moved at once; the standard library's 8 KiB cost as many system calls as there are.
const COPY_LEN: usize = 256 << 10;

/// Moves all that `from` gives to `to`; returns how much that was.
pub(crate) fn copy(from: &mut (impl Read + ?Sized), to: &mut impl Write) -> io::Result<u64> {
    let (mut buffer, mut size) = (vec![0; COPY_LEN], 0);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(n) => {
                to.write_all(&buffer[..n])?;
                size += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
