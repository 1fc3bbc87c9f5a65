//! Checks stored bytes against their names.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use ashlar_core::{Digest, Hasher};

use crate::error::{At as _, BlobError, Result};
use crate::layout::MODE_SUSPECT;
use crate::store::{BlobStore, copy};

pub(crate) fn is_suspect(meta: &Metadata) -> bool {
    meta.permissions().mode() & 0o777 == MODE_SUSPECT
}

impl BlobStore {
    /// Hashes the whole blob; moves it to `blobs/quarantine` when it is damaged.
    ///
    /// # Errors
    /// [`BlobError::Corrupt`] when it was damaged; [`BlobError::Missing`].
    pub fn verify(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        let mut file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing(*digest));
            }
            result => result.at("open", &path)?,
        };
        let mut hasher = Hasher::new();
        copy(&mut file, &mut hasher).at("read", &path)?;
        let actual = hasher.finish();
        if actual == *digest {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let moved_to = self.layout().quarantine().join(format!("{}.{now}", digest.hex()));
        fs::rename(&path, &moved_to).at("set aside", &path)?;
        self.unsynced().remove(digest);
        self.shared().forget(digest);
        tracing::warn!(%digest, %actual, "a damaged blob was set aside");
        Err(BlobError::Corrupt { digest: *digest, actual, moved_to })
    }
}

/// Reads a blob and fails at its end when the bytes are not those of its name.
pub struct VerifiedReader {
    file: File,
    digest: Digest,
    /// None after the check at the end.
    hasher: Option<Hasher>,
}

impl VerifiedReader {
    pub(crate) fn new(file: File, digest: Digest) -> Self {
        Self { file, digest, hasher: Some(Hasher::new()) }
    }
}

impl Read for VerifiedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        if n > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..n]);
            }
        } else if !buffer.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            let (expected, actual) = (self.digest, hasher.finish());
            if actual != expected {
                let error = BlobError::Mismatch { expected, actual };
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Ok(n)
    }
}
