//! Contexts as directories, for the engine: made once a manifest, used by many builds, and
//! removed when too many lie about unused.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ashlar_blobs::BlobStore;
use ashlar_core::Digest;
use ashlar_layers::Stop;

use crate::context::MANIFEST_BYTES_MAX;
use crate::{ContextFile, ContextManifest, EntryKind, Error};

/// Directories that are kept although no build uses them.
const UNUSED_MAX: usize = 64;
/// The time that all files have: 1980-01-02, which zip files can hold. A context's files have no
/// times of their own, so that equal contexts give equal images.
const FILE_TIME_SECONDS: u64 = 315_619_200;

/// The directories of contexts.
#[derive(Debug)]
pub(crate) struct Contexts {
    root: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<Digest, usize>,
    /// Least recently used first.
    unused: Vec<Digest>,
}

/// A directory that stays as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) path: PathBuf,
    digest: Digest,
    state: Arc<Mutex<State>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        let left = state.users.get_mut(&self.digest).map_or(0, |n| {
            *n -= 1;
            *n
        });
        if left == 0 {
            state.users.remove(&self.digest);
            state.unused.push(self.digest);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Contexts {
    /// Uses a directory, and forgets what an earlier process left half made there.
    pub(crate) fn open(root: PathBuf) -> Result<Self, Error> {
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(&root).map_err(Error::internal)?;
        let mut state = State::default();
        for entry in fs::read_dir(&root).map_err(Error::internal)? {
            let entry = entry.map_err(Error::internal)?;
            let name = entry.file_name();
            match name.to_str().and_then(|n| Digest::from_hex(n).ok()) {
                Some(digest) => state.unused.push(digest),
                None => fs::remove_dir_all(entry.path()).map_err(Error::internal)?,
            }
        }
        Ok(Self { root, state: Arc::new(Mutex::new(state)) })
    }

    /// Returns the directory of a manifest, making it when it is not there.
    pub(crate) fn hold(
        &self,
        blobs: &BlobStore,
        manifest: Digest,
        stop: &Stop,
    ) -> Result<Held, Error> {
        let held = self.register(manifest);
        if !held.path.is_dir() {
            self.make(blobs, manifest, &held.path, stop)?;
        }
        self.trim();
        Ok(held)
    }

    fn register(&self, digest: Digest) -> Held {
        let mut state = lock(&self.state);
        *state.users.entry(digest).or_default() += 1;
        state.unused.retain(|d| *d != digest);
        drop(state);
        Held { path: self.root.join(digest.hex()), digest, state: Arc::clone(&self.state) }
    }

    fn make(
        &self,
        blobs: &BlobStore,
        digest: Digest,
        path: &Path,
        stop: &Stop,
    ) -> Result<(), Error> {
        let bytes = blobs.read(&digest, MANIFEST_BYTES_MAX)?;
        let manifest: ContextManifest = serde_json::from_slice(&bytes).map_err(Error::internal)?;
        manifest.check()?;
        let digests: Vec<Digest> = manifest.digests().map(|(digest, _)| digest).collect();
        if !blobs.bring_while(&digests, || !stop.is_stopped())? {
            return Err(Error::stopped());
        }
        let temp = tempfile::Builder::new().prefix("new-").tempdir_in(&self.root);
        let temp = temp.map_err(Error::internal)?;
        let tree = temp.path().join("tree");
        fs::create_dir(&tree).map_err(Error::internal)?;
        fill(blobs, &manifest, &tree, stop)?;
        match fs::rename(&tree, path) {
            // Another build made it meanwhile.
            Err(_) if path.is_dir() => Ok(()),
            other => other.map_err(Error::internal),
        }
    }

    /// Removes the least recently used directories. A failure leaves a directory, nothing else.
    fn trim(&self) {
        let mut state = lock(&self.state);
        let many = state.unused.len().saturating_sub(UNUSED_MAX);
        for digest in state.unused.drain(..many) {
            let path = self.root.join(digest.hex());
            // Renamed under the lock, so that nobody takes a directory that is half gone.
            let gone = self.root.join(format!("old-{}", digest.hex()));
            if fs::rename(&path, &gone).is_ok() {
                std::thread::spawn(move || fs::remove_dir_all(gone));
            }
        }
    }
}

/// Writes all entries into an empty directory.
fn fill(
    blobs: &BlobStore,
    manifest: &ContextManifest,
    root: &Path,
    stop: &Stop,
) -> Result<(), Error> {
    for file in &manifest.files {
        if stop.is_stopped() {
            return Err(Error::stopped());
        }
        let path = root.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::internal)?;
        }
        write(blobs, file, &path).map_err(|e| match e {
            Error::Internal(source) => {
                Error::internal(format!("cannot make the context's file '{}': {source}", file.path))
            }
            other => other,
        })?;
    }
    // Modes of directories last: one may forbid writing.
    for file in manifest.files.iter().rev().filter(|f| f.kind == EntryKind::Dir) {
        let mode = Permissions::from_mode(file.mode.unwrap_or(0o755));
        fs::set_permissions(root.join(&file.path), mode).map_err(Error::internal)?;
    }
    Ok(())
}

fn write(blobs: &BlobStore, file: &ContextFile, path: &Path) -> Result<(), Error> {
    match &file.kind {
        EntryKind::Dir => fs::create_dir_all(path).map_err(Error::internal),
        EntryKind::Symlink { target } => symlink(target, path).map_err(Error::internal),
        EntryKind::File { digest, .. } => {
            // A copy and no hard link: blobs have modes and times of their own.
            let mut from = blobs.open_read(digest)?;
            let mut to = fs::File::create_new(path).map_err(Error::internal)?;
            io::copy(&mut from, &mut to).map_err(Error::internal)?;
            let mode = Permissions::from_mode(file.mode.unwrap_or(0o644));
            to.set_permissions(mode).map_err(Error::internal)?;
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(FILE_TIME_SECONDS);
            to.set_modified(time).map_err(Error::internal)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_context_has_bytes_modes_links_and_parents_and_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(dir.path()).unwrap();
        let digest = blobs.put_bytes(b"hello").unwrap().digest;
        let mut script = ContextFile::file("a/b/run.sh", digest);
        script.mode = Some(0o755);
        let link = EntryKind::Symlink { target: "run.sh".into() };
        let files = vec![
            script,
            ContextFile { path: "a/b/link".into(), kind: link, mode: None },
            ContextFile { path: "closed".into(), kind: EntryKind::Dir, mode: Some(0o500) },
            ContextFile::file("closed/in", digest),
        ];
        let bytes = ContextManifest { files }.encode().unwrap();
        let manifest = blobs.put_bytes(&bytes).unwrap().digest;
        let contexts = Contexts::open(dir.path().join("contexts")).unwrap();
        let stop = Stop::default();
        stop.stop();
        assert!(contexts.hold(&blobs, manifest, &stop).is_err());
        assert_eq!(fs::read_dir(dir.path().join("contexts")).unwrap().count(), 0);
        let go_on = Stop::default();
        let held = contexts.hold(&blobs, manifest, &go_on).unwrap();
        assert_eq!(fs::read(held.path.join("a/b/link")).unwrap(), b"hello");
        let mode = |p: &str| fs::metadata(held.path.join(p)).unwrap().mode() & 0o7777;
        assert_eq!((mode("a/b/run.sh"), mode("closed"), mode("a")), (0o755, 0o500, 0o755));
        let inode = fs::metadata(&held.path).unwrap().ino();
        let again = contexts.hold(&blobs, manifest, &go_on).unwrap();
        assert_eq!(fs::metadata(&again.path).unwrap().ino(), inode);
        drop((held, again));
        assert_eq!(lock(&contexts.state).unused, [manifest]);
    }
}
