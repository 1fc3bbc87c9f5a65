//! Uploads that are not finished: `uploads/<tenant>/<hex>` holds the bytes that came, so that a client
//! can go on later. What nobody goes on with is given up after some days.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ashlar_core::{Digest, TenantId};

use crate::{Error, Service};

/// Bytes that the unfinished uploads of one tenant may take up together.
const TENANT_BYTES_MAX: u64 = 64 << 30;
/// Unfinished uploads that one tenant may have.
const TENANT_FILES_MAX: u64 = 10_000;
/// How long an upload stays that nobody goes on with.
const UPLOAD_KEPT: Duration = Duration::from_secs(3 * 24 * 3600);

/// The folder of all tenants' uploads in a data directory.
fn root(data_dir: &Path) -> PathBuf {
    data_dir.join("uploads")
}

/// The file of one upload.
#[derive(Debug)]
pub(crate) struct Partial {
    dir: PathBuf,
    path: PathBuf,
}

impl Partial {
    pub(crate) fn new(data_dir: &Path, tenant: TenantId, digest: &Digest) -> Self {
        let dir = root(data_dir).join(tenant.to_string());
        Self { path: dir.join(digest.hex()), dir }
    }

    /// Opens the file, whose end is written to, for this process alone.
    pub(crate) fn open(&self) -> Result<File, Error> {
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(&self.dir).map_err(Error::internal)?;
        self.check_room()?;
        loop {
            let mut options = OpenOptions::new();
            let file = options.create(true).read(true).append(true).mode(0o600).open(&self.path);
            let file = file.map_err(Error::internal)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let text = "the blob is being uploaded by somebody else";
                    return Err(Error::Conflict(text.into()));
                }
                Err(TryLockError::Error(e)) => return Err(Error::internal(e)),
            }
            // It may have been finished or given up between the opening and the locking.
            if self.is_named(&file).map_err(Error::internal)? {
                return Ok(file);
            }
        }
    }

    fn is_named(&self, file: &File) -> io::Result<bool> {
        let ours = file.metadata()?;
        Ok(fs::metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino())))
    }

    /// Fails when the tenant has too much that is not finished.
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        self.check_room_for(TENANT_FILES_MAX, TENANT_BYTES_MAX)
    }

    fn check_room_for(&self, files_max: u64, bytes_max: u64) -> Result<(), Error> {
        let (mut files, mut bytes) = (0, 0);
        for entry in fs::read_dir(&self.dir).map_err(Error::internal)? {
            // Finished since it was listed.
            let Ok(about) = entry.map_err(Error::internal)?.metadata() else { continue };
            files += 1;
            bytes += about.len();
        }
        let beyond = |n: u64, max: u64, unit| {
            let what = "what was uploaded and is not finished".to_owned();
            if n > max { Err(Error::TooLarge { what, max, unit }) } else { Ok(()) }
        };
        beyond(files, files_max, "uploads")?;
        beyond(bytes, bytes_max, "bytes")
    }

    /// Removes the file: all of it is stored, or is worth nothing.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::internal(e)),
            _ => Ok(()),
        }
    }
}

impl Service {
    /// Gives up uploads that nobody went on with for some days; returns how many.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub async fn sweep_uploads(self: &Arc<Self>) -> Result<usize, Error> {
        self.blocking(|service| {
            sweep(&root(&service.config().data_dir), UPLOAD_KEPT).map_err(Error::internal)
        })
        .await
    }
}

fn sweep(root: &Path, kept: Duration) -> io::Result<usize> {
    let mut removed = 0;
    for tenant in entries(root)? {
        for path in entries(&tenant)? {
            let Ok(file) = File::options().append(true).open(&path) else { continue };
            let age = file.metadata()?.modified()?.elapsed().unwrap_or_default();
            // Locked by whoever goes on with it just now.
            if age > kept && file.try_lock().is_ok() {
                fs::remove_file(&path)?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::SystemTime;

    use super::*;

    fn partial(dir: &Path, tenant: u8, text: &str) -> Partial {
        Partial::new(dir, TenantId::from_parts(1, [tenant; 10]), &Digest::of(text))
    }

    #[test]
    fn uploads_that_nobody_goes_on_with_are_given_up() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sweep(&root(dir.path()), UPLOAD_KEPT).unwrap(), 0);
        let old = SystemTime::now() - UPLOAD_KEPT * 2;
        let [abandoned, open, young] = ["abandoned", "open", "young"].map(|text| {
            let partial = partial(dir.path(), 1, text);
            let mut file = partial.open().unwrap();
            file.write_all(b"bytes").unwrap();
            if text != "young" {
                file.set_modified(old).unwrap();
            }
            (partial, file)
        });
        drop((abandoned.1, young.1));
        assert_eq!(sweep(&root(dir.path()), UPLOAD_KEPT).unwrap(), 1);
        assert!(!abandoned.0.path.exists() && young.0.path.exists() && open.0.path.exists());
        assert!(matches!(open.0.open(), Err(Error::Conflict(_))));
        drop(open.1);
        assert_eq!(sweep(&root(dir.path()), UPLOAD_KEPT).unwrap(), 1);
        // Who comes back begins anew.
        assert_eq!(open.0.open().unwrap().metadata().unwrap().len(), 0);
        young.0.remove().unwrap();
        young.0.remove().unwrap();
    }

    #[test]
    fn a_tenant_has_room_of_its_own_for_so_many_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (partial(dir.path(), 1, "one"), partial(dir.path(), 1, "two"));
        let others = partial(dir.path(), 2, "one");
        for partial in [&one, &two, &others] {
            partial.open().unwrap().write_all(&[0; 1000]).unwrap();
        }
        assert!(one.check_room_for(2, 2000).is_ok());
        for (files, bytes, unit) in [(2, 1999, "bytes"), (1, 2000, "uploads")] {
            let error = one.check_room_for(files, bytes).unwrap_err();
            assert!(matches!(error, Error::TooLarge { unit: u, .. } if u == unit), "{error}");
        }
        assert!(others.check_room_for(1, 1000).is_ok());
    }
}
