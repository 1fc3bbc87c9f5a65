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
use crate::remote::Remote;
use crate::share::{Shared, asked};
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
    /// Held during a flush: whoever comes later must not return before what it stored is flushed.
    flushing: Mutex<()>,
    remote: Option<Arc<dyn Remote>>,
    shared: Shared,
}

impl BlobStore {
    /// Opens the store below `data_dir`, making it when it is new, and clears away what crashed
    /// writers left.
    ///
    /// # Errors
    /// When a directory can not be made or read.
    pub fn open(data_dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(data_dir, None)
    }

    /// Opens the store below `data_dir` as a cache of one elsewhere: what is missing here is
    /// fetched from there, and what must last ([`sync`](Self::sync), [`keep`](Self::keep)) is sent
    /// there.
    ///
    /// # Errors
    /// As [`open`](Self::open). The store elsewhere is not asked yet.
    pub fn open_with(data_dir: impl AsRef<Path>, remote: Option<Arc<dyn Remote>>) -> Result<Self> {
        let layout = Layout::create(data_dir.as_ref())?;
        boot::note_boot(&layout)?;
        sweep::clear_leftovers(&layout)?;
        let inner = Inner {
            layout,
            unsynced: Mutex::default(),
            flushing: Mutex::default(),
            remote,
            shared: Shared::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The store elsewhere, if there is one.
    pub fn remote(&self) -> Option<&Arc<dyn Remote>> {
        self.inner.remote.as_ref()
    }

    /// Says whether the store elsewhere answers; always when there is none.
    ///
    /// # Errors
    /// [`BlobError::Remote`].
    pub fn check_remote(&self) -> Result<()> {
        self.remote().map_or(Ok(()), |remote| asked(remote.check()))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
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

    /// Tells whether the blob is there and whole without asking a store elsewhere.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn has_here(&self, digest: &Digest) -> Result<bool> {
        Ok(self.local_size(digest)?.is_some())
    }

    /// Returns the size in bytes of a blob that is there and whole.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match (self.local_size(digest)?, self.remote()) {
            (None, Some(remote)) => Ok(asked(remote.look(digest))?.map(|info| info.size)),
            (size, _) => Ok(size),
        }
    }

    pub(crate) fn local_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("look at", &path),
            Ok(meta) if !verify::is_suspect(&meta) => Ok(Some(meta.len())),
            Ok(_) => match self.open_local(digest) {
                Ok(file) => Ok(Some(file.metadata().at("look at", &path)?.len())),
                Err(BlobError::Missing(_) | BlobError::Corrupt { .. }) => Ok(None),
                Err(e) => Err(e),
            },
        }
    }

    /// Opens the blob's file, which is fetched first when it is only elsewhere.
    ///
    /// # Errors
    /// [`BlobError::Missing`]; [`BlobError::Corrupt`] when a power loss tore it;
    /// [`BlobError::Remote`], [`BlobError::RemoteCorrupt`].
    pub fn open_read(&self, digest: &Digest) -> Result<File> {
        match (self.open_local(digest), self.remote()) {
            (Err(BlobError::Missing(_) | BlobError::Corrupt { .. }), Some(remote)) => {
                self.fetch(&**remote, digest)?;
                self.open_local(digest)
            }
            (opened, _) => opened,
        }
    }

    fn open_local(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing(*digest));
            }
            result => result.at("open", &path)?,
        };
        if verify::is_suspect(&file.metadata().at("look at", &path)?) {
            self.verify(digest)?;
            self.flush_all(std::slice::from_ref(digest))?;
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
    /// [`BlobError::TooLarge`] above `limit` bytes; as [`open_read`](Self::open_read).
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        match self.read_once(digest, limit) {
            // Set aside here; elsewhere it may be whole.
            Err(BlobError::Corrupt { .. }) if self.remote().is_some() => {
                self.read_once(digest, limit)
            }
            other => other,
        }
    }

    fn read_once(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
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
        if self.local_size(&digest)?.is_some() {
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
        ingest::claim(self, digest, Self::has)
    }

    /// As [`claim`](Self::claim), and a blob that is only in a store elsewhere is to be fetched by
    /// the caller, who may not be let to have it from there.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn claim_here(&self, digest: &Digest) -> Result<Claim> {
        ingest::claim(self, digest, Self::has_here)
    }

    /// Removes the blob here; tells whether it was here. Readers that have it open keep it.
    /// Elsewhere it stays.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(digest);
        self.unsynced().remove(digest);
        self.shared().forget(digest);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            result => result.at("remove", &path).map(|()| true),
        }
    }

    /// Lists all blobs that are here, in no order.
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

    /// Makes all blobs last that were stored through this handle and its clones: on the disk, or
    /// where there is a store elsewhere, there.
    ///
    /// Call it before a record that names them becomes durable. [`keep`](Self::keep) does not wait
    /// for blobs of others, nor send what nobody needs elsewhere. A blob that was removed meanwhile,
    /// by whomever, is fine.
    ///
    /// # Errors
    /// When a flush fails; what was not flushed stays in the batch. [`BlobError::Remote`].
    pub fn sync(&self) -> Result<()> {
        if self.remote().is_some() {
            return self.send_waiting();
        }
        let _turn = self.inner.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let batch: Vec<Digest> = std::mem::take(&mut *self.unsynced()).into_iter().collect();
        self.flush_all(&batch).inspect_err(|_| self.unsynced().extend(batch))
    }

    /// Makes blobs last on this machine's disk, whatever there is elsewhere. One that was removed
    /// meanwhile is fine.
    ///
    /// # Errors
    /// When a flush fails.
    pub fn flush_all(&self, digests: &[Digest]) -> Result<()> {
        let (mut flushed, mut shards) = (Vec::new(), BTreeSet::new());
        for digest in digests {
            let path = self.path(digest);
            let Some(file) = flush(&path)? else { continue };
            shards.extend(path.parent().map(Path::to_owned));
            flushed.push((file, path));
        }
        for dir in shards {
            match File::open(&dir).and_then(|d| d.sync_all()) {
                // Every blob of it was removed meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                result => result.at("flush", &dir)?,
            }
        }
        // Not before its name lasts too: what has the mark is never flushed again.
        for (file, path) in flushed {
            file.set_permissions(Permissions::from_mode(MODE_DURABLE)).at("mark", &path)?;
        }
        Ok(())
    }

    /// Returns name, size and age of a blob, without looking into it.
    ///
    /// # Errors
    /// [`BlobError::Missing`].
    pub fn stat(&self, digest: &Digest) -> Result<BlobInfo> {
        let path = self.path(digest);
        let meta = match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let there = self.remote().map(|remote| asked(remote.look(digest)));
                return there.transpose()?.flatten().ok_or(BlobError::Missing(*digest));
            }
            result => result.at("look at", &path)?,
        };
        let modified = meta.modified().at("look at", &path)?;
        Ok(BlobInfo { digest: *digest, size: meta.len(), modified })
    }

    /// Notes that a blob was stored here.
    pub(crate) fn note_stored(&self, digest: Digest) {
        match self.remote() {
            Some(_) => self.shared().stored(digest),
            None => drop(self.unsynced().insert(digest)),
        }
    }

    pub(crate) fn unsynced(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        self.inner.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Flushes one blob's content and returns it, unless it is durable already or was removed meanwhile.
fn flush(path: &Path) -> Result<Option<File>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result.at("open", path)?,
    };
    if file.metadata().at("look at", path)?.permissions().mode() & 0o777 == MODE_DURABLE {
        return Ok(None);
    }
    file.sync_data().at("flush", path)?;
    Ok(Some(file))
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
