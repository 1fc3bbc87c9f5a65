//! The full list of a selection, kept by its digest, so that a later build can name what changed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ashlar_core::Digest;
use ashlar_core::cache::{CHANGES_MAX, Change, KeyRecord, PartKind};

/// The name of the key part that holds a manifest's digest.
pub const TOTAL_NAME: &str = "(all files)";

const MAGIC: &[u8] = b"ashlar-manifest-1\n";

/// Paths and what a copy takes over of each, as texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest(Vec<(Vec<u8>, String)>);

/// A kept manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It cannot be read or written.
    #[error("cannot {action} the manifest {digest}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// Which one.
        digest: Digest,
        /// What the system said.
        source: io::Error,
    },
    /// Its bytes are not what its name says.
    #[error("the manifest {0} is damaged")]
    Damaged(Digest),
}

impl Manifest {
    pub(super) fn new(lines: Vec<(Vec<u8>, String)>) -> Self {
        Self(lines)
    }

    /// Returns paths and values in order.
    pub fn lines(&self) -> &[(Vec<u8>, String)] {
        &self.0
    }

    /// Returns the bytes that are kept: no path and no value has a zero byte.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (path, value) in &self.0 {
            for field in [&path[..], value.as_bytes()] {
                out.extend_from_slice(field);
                out.push(0);
            }
        }
        out
    }

    /// Reads what [`Manifest::encode`] made; `None` when the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let body = bytes.strip_prefix(MAGIC)?;
        let mut fields = body.split(|&b| b == 0);
        let mut lines = Vec::new();
        loop {
            let path = fields.next()?;
            match fields.next() {
                Some(value) => lines.push((path.to_vec(), String::from_utf8(value.to_vec()).ok()?)),
                None => return path.is_empty().then_some(Self(lines)),
            }
        }
    }

    /// Returns the digest of [`Manifest::encode`].
    pub fn digest(&self) -> Digest {
        Digest::of(self.encode())
    }

    /// Returns what differs from an `earlier` manifest, at most [`CHANGES_MAX`] changes.
    pub fn changes_since(&self, earlier: &Self) -> Vec<Change> {
        let index = |m: &Self| -> BTreeMap<Vec<u8>, String> { m.0.iter().cloned().collect() };
        let (now, before) = (index(self), index(earlier));
        let change = |name: &[u8], old: Option<&String>, new: Option<&String>| Change {
            kind: PartKind::File,
            name: part_name(name),
            old: old.cloned(),
            new: new.cloned(),
        };
        let changed = now.iter().filter(|(name, value)| before.get(*name) != Some(value));
        let changed = changed.map(|(name, value)| change(name, before.get(name), Some(value)));
        let gone = before.iter().filter(|(name, _)| !now.contains_key(*name));
        let gone = gone.map(|(name, value)| change(name, Some(value), None));
        changed.chain(gone).take(CHANGES_MAX).collect()
    }

    /// Keeps the manifest in `dir` by its digest.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn store(&self, dir: &Path) -> Result<Digest, ManifestError> {
        let bytes = self.encode();
        let digest = Digest::of(&bytes);
        let place = place(dir, &digest);
        if place.exists() {
            return Ok(digest);
        }
        let fail = |source| ManifestError::Io { action: "write", digest, source };
        fs::create_dir_all(dir).map_err(fail)?;
        let temporary = place.with_extension(format!("new-{}", std::process::id()));
        fs::File::create(&temporary).and_then(|mut f| f.write_all(&bytes)).map_err(fail)?;
        fs::rename(&temporary, &place).map_err(fail)?;
        Ok(digest)
    }

    /// Loads a manifest from `dir`; `None` when it is not there (any more).
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn load(dir: &Path, digest: &Digest) -> Result<Option<Self>, ManifestError> {
        let bytes = match fs::read(place(dir, digest)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(ManifestError::Io { action: "read", digest: *digest, source });
            }
        };
        let whole = Digest::of(&bytes) == *digest;
        let decoded = whole.then(|| Self::decode(&bytes)).flatten();
        decoded.map(Some).ok_or(ManifestError::Damaged(*digest))
    }

    /// Returns the digest of the manifest that a key record was made of, when it names one.
    pub fn named_in(record: &KeyRecord) -> Option<Digest> {
        let total =
            record.parts().iter().find(|p| p.kind == PartKind::File && p.name == TOTAL_NAME);
        total?.value.split(' ').next()?.parse().ok()
    }
}

fn place(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(digest.hex())
}

/// Returns a path as a part's name: `.` for the root, other bytes than UTF-8 made visible.
pub(super) fn part_name(path: &[u8]) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let mut name = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        name.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|b| name.push_str(&format!("\\x{b:02x}")));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(lines: &[(&str, &str)]) -> Manifest {
        Manifest(lines.iter().map(|(p, v)| (p.as_bytes().to_vec(), (*v).to_owned())).collect())
    }

    #[test]
    fn changes_are_named_after_a_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let old = manifest(&[("", "a directory"), ("a", "1"), ("b\n", "2")]);
        let new = manifest(&[("", "a directory"), ("a", "9"), ("c", "3")]);
        let digest = old.store(dir.path()).unwrap();
        assert_eq!(old.store(dir.path()).unwrap(), digest);
        let loaded = Manifest::load(dir.path(), &digest).unwrap().unwrap();
        assert_eq!(loaded, old);
        let said: Vec<_> = new.changes_since(&loaded).iter().map(Change::sentence).collect();
        let want = [
            "file 'a' changed from '1' to '9'",
            "file 'c' is new: '3'",
            "file 'b\n' is gone, it was '2'",
        ];
        assert_eq!(said, want);
        assert!(Manifest::load(dir.path(), &new.digest()).unwrap().is_none());
        fs::write(place(dir.path(), &digest), b"x").unwrap();
        assert!(Manifest::load(dir.path(), &digest).is_err());
    }

    #[test]
    fn odd_bytes_are_not_a_manifest() {
        for bad in [&b""[..], b"x", b"ashlar-manifest-1\na\0b", b"ashlar-manifest-1\na\0"] {
            assert!(Manifest::decode(bad).is_none(), "{bad:?}");
        }
        assert_eq!(Manifest::decode(b"ashlar-manifest-1\n"), Some(Manifest::default()));
    }
}
