//! Contexts as lists of files whose bytes are blobs.

use std::collections::BTreeMap;

use ashlar_core::Digest;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Entries that one context may have.
pub(crate) const ENTRIES_MAX: usize = 500_000;
/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 4096;
/// The longest name within a path, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// The largest manifest, in bytes of JSON.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 128 << 20;

/// A whole context. Its digest is that of its JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContextManifest {
    /// The entries. Directories that are missing as parents are made with mode 0755.
    pub files: Vec<ContextFile>,
}

/// One entry of a context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextFile {
    /// Relative path with `/`.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: EntryKind,
    /// Permission bits, 0644 for files and 0755 for directories when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Digest of its bytes.
        digest: Digest,
        /// Number of its bytes; checked when given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// Where it leads, not looked at.
        target: String,
    },
}

impl ContextFile {
    /// Returns a regular file with the usual mode.
    pub fn file(path: impl Into<String>, digest: Digest) -> Self {
        Self { path: path.into(), kind: EntryKind::File { digest, size: None }, mode: None }
    }
}

impl ContextManifest {
    /// Checks that the entries can be made in an empty directory and nowhere else.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the entry.
    pub fn check(&self) -> Result<(), Error> {
        if self.files.len() > ENTRIES_MAX {
            let what = "the context".to_owned();
            return Err(Error::TooLarge { what, max: ENTRIES_MAX as u64, unit: "entries" });
        }
        let mut kinds: BTreeMap<&str, bool> = BTreeMap::new();
        for (i, file) in self.files.iter().enumerate() {
            let field = || format!("files[{i}].path");
            check_path(&file.path).map_err(|why| Error::invalid(field(), why))?;
            if file.mode.is_some_and(|m| m > 0o7777) {
                return Err(Error::invalid(format!("files[{i}].mode"), "has more than 12 bits"));
            }
            if let EntryKind::Symlink { target } = &file.kind
                && (target.is_empty() || target.len() > PATH_BYTES_MAX || target.contains('\0'))
            {
                return Err(Error::invalid(format!("files[{i}].target"), "leads nowhere"));
            }
            let is_dir = file.kind == EntryKind::Dir;
            if kinds.insert(&file.path, is_dir).is_some() {
                return Err(Error::invalid(field(), format!("'{}' is there twice", file.path)));
            }
        }
        // Nothing may lie below a file or a link: a link would lead out of the directory.
        for (i, file) in self.files.iter().enumerate() {
            let parents = file.path.match_indices('/').map(|(at, _)| &file.path[..at]);
            for parent in parents {
                if kinds.get(parent) == Some(&false) {
                    let why = format!("'{parent}' is not a directory");
                    return Err(Error::invalid(format!("files[{i}].path"), why));
                }
            }
        }
        Ok(())
    }

    /// Returns the digests of all files.
    pub fn digests(&self) -> impl Iterator<Item = (Digest, Option<u64>)> {
        self.files.iter().filter_map(|f| match f.kind {
            EntryKind::File { digest, size } => Some((digest, size)),
            _ => None,
        })
    }

    /// Returns the manifest's bytes: entries in order of their paths, so that equal contexts have
    /// equal digests.
    pub(crate) fn encode(mut self) -> Result<Vec<u8>, Error> {
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        serde_json::to_vec(&self).map_err(Error::internal)
    }
}

/// Checks a relative path that must not leave its root.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    let shown: String = path.chars().take(100).collect();
    if path.is_empty() || path.len() > PATH_BYTES_MAX {
        return Err(format!("a path has 1 to {PATH_BYTES_MAX} bytes"));
    }
    let bad = |name: &str| name.is_empty() || matches!(name, "." | "..");
    if path.contains('\0') || path.split('/').any(bad) {
        return Err(format!("'{shown}' must be relative, without '.', '..' and empty parts"));
    }
    if path.split('/').any(|name| name.len() > NAME_BYTES_MAX) {
        return Err(format!("'{shown}' has a part of more than {NAME_BYTES_MAX} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(files: Vec<(&str, EntryKind)>) -> ContextManifest {
        let file =
            |(path, kind): (&str, EntryKind)| ContextFile { path: path.into(), kind, mode: None };
        ContextManifest { files: files.into_iter().map(file).collect() }
    }

    fn plain() -> EntryKind {
        EntryKind::File { digest: Digest::of("x"), size: None }
    }

    #[test]
    fn paths_that_leave_the_root_are_refused() {
        for bad in ["", "/etc/passwd", "a/../b", "..", "./a", "a//b", "a/", "a\0b"] {
            assert!(manifest(vec![(bad, plain())]).check().is_err(), "{bad:?}");
        }
        assert!(manifest(vec![("a/b..c/.d", plain())]).check().is_ok());
    }

    #[test]
    fn nothing_lies_below_a_link_or_a_file_and_nothing_twice() {
        let link = || EntryKind::Symlink { target: "/etc".into() };
        assert!(manifest(vec![("a", link()), ("a/passwd", plain())]).check().is_err());
        assert!(manifest(vec![("a/b/c", plain()), ("a", link())]).check().is_err());
        assert!(manifest(vec![("a", plain()), ("a/b", EntryKind::Dir)]).check().is_err());
        assert!(manifest(vec![("a", plain()), ("a", EntryKind::Dir)]).check().is_err());
        assert!(manifest(vec![("a", EntryKind::Dir), ("a/b", plain())]).check().is_ok());
    }

    #[test]
    fn equal_contexts_have_equal_bytes() {
        let one = manifest(vec![("b", plain()), ("a", EntryKind::Dir)]);
        let two = manifest(vec![("a", EntryKind::Dir), ("b", plain())]);
        assert_eq!(one.encode().unwrap(), two.encode().unwrap());
    }
}
