//! Writes a blob whose digest is known only at its end.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ashlar_core::{Digest, Hasher};

use crate::error::{At as _, BlobError, Result};
use crate::layout::MODE_FRESH;
use crate::store::{BlobInfo, BlobStore};

/// Hashes while it writes to a temporary file; dropping it without a commit removes the file.
pub struct BlobWriter {
    store: BlobStore,
    file: File,
    path: PathBuf,
    hasher: Hasher,
    size: u64,
    is_committed: bool,
}

impl BlobWriter {
    pub(crate) fn create(store: BlobStore) -> Result<Self> {
        let (file, path) = create_temp(&store)?;
        Ok(Self { store, file, path, hasher: Hasher::new(), size: 0, is_committed: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how many bytes were written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the digest of what was written so far.
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Gives the blob its name; with `expected`, only when that is its digest.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`]; when the file system refuses. The bytes are gone then.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<BlobInfo> {
        let actual = std::mem::take(&mut self.hasher).finish();
        if let Some(&expected) = expected.filter(|&e| *e != actual) {
            return Err(BlobError::Mismatch { expected, actual });
        }
        self.store.layout().publish(&self.path, &actual)?;
        self.is_committed = true;
        self.store.note_stored(actual);
        self.store.stat(&actual)
    }
}

/// Makes a locked temporary file; the lock tells other processes that its writer lives.
fn create_temp(store: &BlobStore) -> Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = store.layout().temp().join(format!("{}-{number}", std::process::id()));
        let options = File::options().write(true).create_new(true).mode(MODE_FRESH).open(&path);
        let file = match options {
            // Left by a dead process that had our number, or by one in another pid namespace.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            result => result.at("create", &path)?,
        };
        file.lock().at("lock", &path)?;
        file.set_permissions(Permissions::from_mode(MODE_FRESH)).at("mark", &path)?;
        return Ok((file, path));
    }
}

impl Write for BlobWriter {
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

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.is_committed {
            // What stays is cleared at a later open.
            drop(fs::remove_file(&self.path));
        }
    }
}
