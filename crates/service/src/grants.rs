//! Which tenant may read which blob. Blobs are shared by content, so to know a digest must not be
//! enough: a tenant has what it uploaded itself and what its own builds made.
//!
//! A grant is an empty file; losing one in a power cut costs an upload, never a secret. Its time
//! says when it was last used. The engine keeps blobs that have one when it collects garbage.
//! Where several servers share a blob store, grants are rows of the database that they share too,
//! and the objects of that store are kept by them ([`crate::collect`]).
//!
//! That a blob is a context is granted apart: only what was checked as one is taken as one later.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ashlar_core::{Digest, TenantId, Timestamp};
use ashlar_records::{GRANTS_MAX, Grant, Store, USED_EVERY, now};
use tokio::runtime::Handle;

use crate::Error;

/// The folder of a tenant's grants of contexts, beside those that are named by two digits.
const CONTEXTS: &str = "contexts";
/// How long the removal of an object is waited for that is needed again.
const REMOVAL_WAIT: Duration = Duration::from_secs(10);
/// The pause before the next look.
const REMOVAL_PAUSE: Duration = Duration::from_millis(50);

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

    fn context_path(&self, tenant: TenantId, digest: &Digest) -> PathBuf {
        self.root.join(tenant.to_string()).join(CONTEXTS).join(digest.hex())
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
            Some((store, runtime)) => {
                Ok(runtime.block_on(store.granted(tenant, digests, now()))?)
            }
            None => {
                let has = |digest: &&Digest| is_used(&self.path(tenant, digest));
                Ok(digests.iter().filter(has).copied().collect())
            }
        }
    }

    /// Says whether a tenant has a blob as a context.
    pub(crate) fn has_context(&self, tenant: TenantId, digest: &Digest) -> Result<bool, Error> {
        match &self.shared {
            Some((store, runtime)) => {
                Ok(runtime.block_on(store.granted_context(tenant, *digest, now()))?)
            }
            None => {
                let paths = [self.path(tenant, digest), self.context_path(tenant, digest)];
                Ok(paths.iter().all(|path| is_used(path)))
            }
        }
    }

    /// Lets a tenant read blobs. In a store that servers share they stay from now on: call it
    /// before they are stored there, or seen to be.
    pub(crate) fn add(&self, tenant: TenantId, digests: &[Digest]) -> Result<(), Error> {
        match &self.shared {
            Some((store, runtime)) => add_row(store, runtime, tenant, digests, false),
            None => digests.iter().try_for_each(|d| self.add_file(&self.path(tenant, d))),
        }
    }

    /// Lets a tenant use a blob as a context, and read it.
    pub(crate) fn add_context(&self, tenant: TenantId, digest: Digest) -> Result<(), Error> {
        match &self.shared {
            Some((store, runtime)) => add_row(store, runtime, tenant, &[digest], true),
            None => {
                self.add_file(&self.path(tenant, &digest))?;
                self.add_file(&self.context_path(tenant, &digest))
            }
        }
    }

    fn add_file(&self, path: &Path) -> Result<(), Error> {
        match File::create(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let dir = path.parent().unwrap_or(&self.root);
                let mut private = fs::DirBuilder::new();
                private.recursive(true).mode(0o700).create(dir).and_then(|()| File::create(path))
            }
            other => other,
        }
        // An empty file that is there already keeps its time otherwise.
        .and_then(|file| file.set_modified(SystemTime::now()))
        .map_err(Error::internal)
    }

    /// Calls `visit` with all grants that were last used before a time, in pieces of about so many.
    pub(crate) fn each_old(
        &self,
        used_before: Timestamp,
        at_once: usize,
        mut visit: impl FnMut(Vec<Grant>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut piece = Vec::new();
        let mut look = |found: Vec<Grant>| {
            piece.extend(found.into_iter().filter(|grant| grant.used_at < used_before));
            match piece.len() >= at_once {
                true => visit(std::mem::take(&mut piece)),
                false => Ok(()),
            }
        };
        match &self.shared {
            Some((store, runtime)) => {
                let mut after = None;
                loop {
                    let found = runtime.block_on(store.grants(after.as_ref(), GRANTS_MAX))?;
                    let Some(last) = found.last() else { break };
                    after = Some(*last);
                    look(found)?;
                }
            }
            None => self.each_folder(|tenant, _, folder| look(grants_in(tenant, folder)?))?,
        }
        if piece.is_empty() { Ok(()) } else { visit(piece) }
    }

    /// Calls `visit` with all grants of contexts that were used since a time.
    pub(crate) fn each_context(
        &self,
        used_since: Timestamp,
        mut visit: impl FnMut(&Grant) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some((store, runtime)) = &self.shared else {
            return self.each_folder(|tenant, name, folder| {
                let found = if name == CONTEXTS { grants_in(tenant, folder)? } else { Vec::new() };
                found.iter().filter(|g| g.used_at >= used_since).try_for_each(&mut visit)
            });
        };
        let mut after = None;
        loop {
            let found = store.granted_contexts(after.as_ref(), used_since, GRANTS_MAX);
            let found = runtime.block_on(found)?;
            let Some(last) = found.last() else { return Ok(()) };
            after = Some(*last);
            found.iter().try_for_each(&mut visit)?;
        }
    }

    fn each_folder(
        &self,
        mut visit: impl FnMut(TenantId, &str, &Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for tenant in folders(&self.root)? {
            let name = tenant.file_name().and_then(|n| n.to_str());
            let Some(id) = name.and_then(|n| n.parse().ok()) else { continue };
            for part in folders(&tenant)? {
                let name = part.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                visit(id, name, &part)?;
            }
        }
        Ok(())
    }

    /// Takes grants back, but for those that were used since a time; returns how many went.
    pub(crate) fn lapse(&self, grants: &[Grant], used_since: Timestamp) -> Result<usize, Error> {
        if let Some((store, runtime)) = &self.shared {
            let gone = runtime.block_on(store.lapse(grants, used_since))?;
            return Ok(usize::try_from(gone).unwrap_or(usize::MAX));
        }
        let mut gone = 0;
        for grant in grants {
            let context = self.context_path(grant.tenant, &grant.digest);
            remove_unused(&context, used_since)?;
            let path = self.path(grant.tenant, &grant.digest);
            gone += usize::from(remove_unused(&path, used_since)?);
        }
        Ok(gone)
    }
}

/// Writes rows, and waits where an object is being removed just now.
fn add_row(
    store: &Store,
    runtime: &Handle,
    tenant: TenantId,
    digests: &[Digest],
    is_context: bool,
) -> Result<(), Error> {
    let until = Instant::now() + REMOVAL_WAIT;
    while !runtime.block_on(store.grant(tenant, digests, is_context, now()))? {
        if Instant::now() > until {
            let text = "unused content of the same digest is being removed; try again";
            return Err(Error::Unavailable(text.into()));
        }
        thread::sleep(REMOVAL_PAUSE);
    }
    Ok(())
}

/// Says whether a grant is there, and notes that it is used.
fn is_used(path: &Path) -> bool {
    let Ok(about) = fs::metadata(path) else { return false };
    let used = about.modified().unwrap_or(UNIX_EPOCH);
    if used.elapsed().is_ok_and(|time| time > USED_EVERY) {
        // Removed just now: then the answer is no.
        return File::open(path).and_then(|f| f.set_modified(SystemTime::now())).is_ok();
    }
    true
}

/// Returns the grants in a folder.
fn grants_in(tenant: TenantId, folder: &Path) -> Result<Vec<Grant>, Error> {
    let mut found = Vec::new();
    for path in folders(folder)? {
        let name = path.file_name().and_then(|n| n.to_str());
        let Some(digest) = name.and_then(|n| Digest::from_hex(n).ok()) else { continue };
        // Removed since it was listed.
        let Some(used_at) = used_at(&path) else { continue };
        found.push(Grant { tenant, digest, used_at });
    }
    Ok(found)
}

fn used_at(path: &Path) -> Option<Timestamp> {
    let modified = fs::metadata(path).and_then(|about| about.modified()).ok()?;
    let nanos = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    Some(Timestamp::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX)))
}

fn folders(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.map_err(Error::internal)?,
    };
    entries.map(|entry| Ok(entry.map_err(Error::internal)?.path())).collect()
}

fn remove_unused(path: &Path, used_since: Timestamp) -> Result<bool, Error> {
    if used_at(path).is_none_or(|used| used >= used_since) {
        return Ok(false);
    }
    match fs::remove_file(path) {
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
        let old = |until, at_once| {
            let mut pieces = Vec::new();
            let visit = |piece| {
                pieces.push(piece);
                Ok(())
            };
            grants.each_old(until, at_once, visit).unwrap();
            pieces
        };
        assert!(old(now(), 9).is_empty());
        grants.add(one, &blobs).unwrap();
        let past = SystemTime::now() - Duration::from_secs(100_000);
        for digest in &blobs {
            let file = File::open(grants.path(one, digest)).unwrap();
            file.set_modified(past).unwrap();
        }
        fs::write(dir.path().join("grants/stray"), "").unwrap();
        assert!(!grants.has(two, &blobs[0]).unwrap());
        let until = used_at(&grants.path(one, &blobs[1])).unwrap();
        let until = Timestamp::from_nanos(until.nanos() + 1);
        let found: Vec<Grant> = old(until, 1).into_iter().flatten().collect();
        assert_eq!(found.len(), 3);
        // One is used after it was found to be old.
        assert!(grants.has(one, &blobs[0]).unwrap());
        assert_eq!(grants.lapse(&found, until).unwrap(), 2);
        assert_eq!(grants.among(one, &blobs).unwrap(), [blobs[0]].into());
        assert!(old(until, 9).is_empty());
    }

    #[test]
    fn contexts_are_granted_apart_and_lapse_with_their_blob() {
        let dir = tempfile::tempdir().unwrap();
        let grants = Grants::new(dir.path().join("grants"), None);
        let tenant = TenantId::from_parts(1, [1; 10]);
        let (context, plain) = (Digest::of("context"), Digest::of("plain"));
        grants.add(tenant, &[plain]).unwrap();
        grants.add_context(tenant, context).unwrap();
        assert!(grants.has(tenant, &context).unwrap());
        assert!(grants.has_context(tenant, &context).unwrap());
        assert!(!grants.has_context(tenant, &plain).unwrap());
        let listed = |since| {
            let mut found = Vec::new();
            let visit = |grant: &Grant| {
                found.push(grant.digest);
                Ok(())
            };
            grants.each_context(since, visit).unwrap();
            found
        };
        let later = Timestamp::from_nanos(i64::MAX);
        assert_eq!((listed(Timestamp::default()), listed(later)), (vec![context], Vec::new()));
        let grant = Grant { tenant, digest: context, used_at: now() };
        assert_eq!(grants.lapse(&[grant], later).unwrap(), 1);
        assert!(!grants.has_context(tenant, &context).unwrap());
        assert!(listed(Timestamp::default()).is_empty());
    }
}
