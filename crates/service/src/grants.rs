//! Which tenant may read which blob. Blobs are shared by content, so to know a digest must not be
//! enough: a tenant has what it uploaded itself and what its own builds made.
//!
//! A grant is an empty file; losing one in a power cut costs an upload, never a secret. Its time
//! says when it was last used. The engine keeps blobs that have one when it collects garbage.
//! Where several servers share a blob store, grants are rows of the database that they share too.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ashlar_core::{Digest, TenantId};
use ashlar_records::Store;
use tokio::runtime::Handle;

use crate::Error;

/// How exactly the time of the last use is kept: a use within it costs no write.
const USED_EVERY: Duration = Duration::from_secs(3600);

/// The grants of a data directory, or of all servers of a database. All methods block.
#[derive(Debug, Clone)]
pub(crate) struct Grants {
    root: PathBuf,
    shared: Option<(Store, Handle)>,
}

impl Grants {
    /// Uses a folder; with `shared` the database instead, through its runtime.
    pub(crate) fn new(root: PathBuf, shared: Option<(Store, Handle)>) -> Self {
        Self { root, shared }
    }

    fn path(&self, tenant: TenantId, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join(tenant.to_string()).join(&hex[..2]).join(hex)
    }

    pub(crate) fn has(&self, tenant: TenantId, digest: &Digest) -> Result<bool, Error> {
        Ok(!self.among(tenant, std::slice::from_ref(digest))?.is_empty())
    }

    /// Returns which of these blobs a tenant may read.
    pub(crate) fn among(
        &self,
        tenant: TenantId,
        digests: &[Digest],
    ) -> Result<BTreeSet<Digest>, Error> {
        match &self.shared {
            Some((store, runtime)) => Ok(runtime.block_on(store.granted(tenant, digests))?),
            None => {
                let has = |digest: &&Digest| is_used(&self.path(tenant, digest));
                Ok(digests.iter().filter(has).copied().collect())
            }
        }
    }

    /// Lets a tenant read blobs.
    pub(crate) fn add(&self, tenant: TenantId, digests: &[Digest]) -> Result<(), Error> {
        match &self.shared {
            Some((store, runtime)) => Ok(runtime.block_on(store.grant(tenant, digests))?),
            None => digests.iter().try_for_each(|d| self.add_file(&self.path(tenant, d))),
        }
    }

    fn add_file(&self, path: &Path) -> Result<(), Error> {
        match File::create(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let dir = path.parent().unwrap_or(&self.root);
                fs::create_dir_all(dir).and_then(|()| File::create(path))
            }
            other => other,
        }
        // An empty file that is there already keeps its time otherwise.
        .and_then(|file| file.set_modified(SystemTime::now()))
        .map_err(Error::internal)
    }

    /// Removes the grants that were last used before a time and are not to be kept; returns how
    /// many.
    pub(crate) fn retain(
        &self,
        used_before: SystemTime,
        keep: impl Fn(&Digest) -> bool,
    ) -> Result<usize, Error> {
        let mut removed = 0;
        for tenant in folders(&self.root)? {
            for part in folders(&tenant)? {
                for grant in folders(&part)? {
                    removed += usize::from(remove_unused(&grant, used_before, &keep)?);
                }
            }
        }
        Ok(removed)
    }
}

/// Says whether a grant is there, and notes that it is used.
fn is_used(path: &Path) -> bool {
    let Ok(about) = fs::metadata(path) else { return false };
    let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    if used.elapsed().is_ok_and(|time| time > USED_EVERY) {
        // Removed just now: then the answer is no.
        return File::open(path).and_then(|f| f.set_modified(SystemTime::now())).is_ok();
    }
    true
}

fn folders(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::internal)?,
    };
    entries.map(|entry| Ok(entry.map_err(Error::internal)?.path())).collect()
}

fn remove_unused(
    grant: &Path,
    used_before: SystemTime,
    keep: &impl Fn(&Digest) -> bool,
) -> Result<bool, Error> {
    let name = grant.file_name().and_then(|n| n.to_str());
    let Some(digest) = name.and_then(|n| Digest::from_hex(n).ok()) else { return Ok(false) };
    if keep(&digest) {
        return Ok(false);
    }
    match fs::metadata(grant).and_then(|about| about.modified()) {
        Ok(used) if used < used_before => {}
        _ => return Ok(false),
    }
    match fs::remove_file(grant) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true).map_err(Error::internal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_one_tenants_and_go_when_unused_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let grants = Grants::new(dir.path().join("grants"), None);
        let (one, two) = (TenantId::from_parts(1, [1; 10]), TenantId::from_parts(1, [2; 10]));
        let blobs = [Digest::of("a"), Digest::of("b"), Digest::of("c")];
        let past = SystemTime::now() - Duration::from_secs(100_000);
        assert_eq!(grants.retain(SystemTime::now(), |_| false).unwrap(), 0);
        grants.add(one, &blobs).unwrap();
        for digest in &blobs {
            let file = File::open(grants.path(one, digest)).unwrap();
            file.set_modified(past).unwrap();
        }
        assert!(!grants.has(two, &blobs[0]).unwrap());
        // One is used, one is kept.
        assert!(grants.has(one, &blobs[0]).unwrap());
        let until = past + Duration::from_secs(10);
        assert_eq!(grants.retain(until, |digest| *digest == blobs[1]).unwrap(), 1);
        let left = grants.among(one, &blobs).unwrap();
        assert_eq!(left, blobs[..2].iter().copied().collect());
    }
}
