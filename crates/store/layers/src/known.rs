//! Content digests that a caller knows already, so that files are not read a second time.

use std::collections::HashMap;

use ashlar_core::Digest;

use crate::walk::join;

/// Content digests of regular files by their path relative to a layer's root.
///
/// A wrong digest gives a layer a wrong identity: insert only what was computed from the very bytes
/// that were written.
#[derive(Debug, Default, Clone)]
pub struct KnownFiles(HashMap<Vec<u8>, Digest>);

impl KnownFiles {
    /// Starts with nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes the content of the file at `path`; surrounding slashes don't matter.
    pub fn insert(&mut self, path: impl AsRef<[u8]>, content: Digest) {
        self.0.insert(trim(path.as_ref()).to_vec(), content);
    }

    /// Forgets `path`, as when something else was put there.
    pub fn remove(&mut self, path: impl AsRef<[u8]>) {
        self.0.remove(trim(path.as_ref()));
    }

    /// Returns the content noted for `path`.
    pub fn get(&self, path: &[u8]) -> Option<Digest> {
        self.0.get(path).copied()
    }

    /// Takes over everything that `other` knows.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Takes over everything that `other` knows, whose paths count from the directory `dir`.
    pub fn extend_below(&mut self, dir: &[u8], other: Self) {
        let dir = trim(dir);
        let moved = other.0.into_iter().map(|(path, digest)| (join(dir, &path), digest));
        self.0.extend(moved);
    }

    /// Returns the number of known files.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn trim(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|&b| b != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|&b| b != b'/').map_or(start, |at| at + 1);
    &path[start..end]
}
