//! Blobs that a server in the same data directory holds: contexts that tenants uploaded, what
//! their builds made, pieces of logs. `grants/<tenant>/<aa>/<hex>` names each; the service adds
//! and removes these files, also while garbage is collected.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ashlar_core::Digest;

/// The grants of a data directory; there are none where no server ever ran.
pub(super) struct Grants {
    root: PathBuf,
}

impl Grants {
    pub(super) fn of(data_dir: &Path) -> Self {
        Self { root: data_dir.join("grants") }
    }

    /// Returns all blobs that are held.
    pub(super) fn all(&self) -> io::Result<BTreeSet<Digest>> {
        let mut held = BTreeSet::new();
        for tenant in entries(&self.root)? {
            for part in entries(&tenant)? {
                held.extend(entries(&part)?.iter().filter_map(|grant| digest(grant)));
            }
        }
        Ok(held)
    }

    /// Says whether a blob is held just now.
    pub(super) fn holds(&self, digest: &Digest) -> io::Result<bool> {
        let hex = digest.hex();
        for tenant in entries(&self.root)? {
            match fs::symlink_metadata(tenant.join(&hex[..2]).join(&hex)) {
                Ok(_) => return Ok(true),
                Err(e) if is_nothing(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }
}

fn digest(grant: &Path) -> Option<Digest> {
    Digest::from_hex(grant.file_name()?.to_str()?).ok()
}

/// Returns what a folder holds. One that is gone holds nothing; what is no folder neither.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(e) if is_nothing(&e) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenants_blobs_are_held_and_other_files_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let grants = Grants::of(dir.path());
        let (one, two, other) = (Digest::of("1"), Digest::of("2"), Digest::of("3"));
        assert!(grants.all().unwrap().is_empty() && !grants.holds(&one).unwrap());
        for (tenant, digest) in [("a", one), ("b", two), ("b", one)] {
            let hex = digest.hex();
            let folder = dir.path().join("grants").join(tenant).join(&hex[..2]);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(hex), "").unwrap();
        }
        fs::write(dir.path().join("grants/stray"), "").unwrap();
        fs::write(dir.path().join("grants/a/stray"), "").unwrap();
        fs::create_dir_all(dir.path().join("grants/a/00/stray")).unwrap();
        assert_eq!(grants.all().unwrap(), BTreeSet::from([one, two]));
        assert!(grants.holds(&one).unwrap() && grants.holds(&two).unwrap());
        assert!(!grants.holds(&other).unwrap());
    }
}
