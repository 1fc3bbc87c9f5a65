//! What a context holds, as a server wants to know it: paths, modes, digests.
//!
//! Digests of files that have not changed are known from earlier builds, local ones included.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use ashlar_client::{ContextEntry, ContextEntryKind, Upload};
use ashlar_core::Digest;
use ashlar_core::graph::Copy;
use ashlar_files::{Context, Entry, Kind, Patterns};
use ashlar_frontend_dockerfile::ignore::read_file;
use ashlar_layers::Stop;

use crate::commands::usage;
use crate::output::note;

/// The name of the file with what a context leaves out.
pub(super) const IGNORE_FILE: &str = ".dockerignore";
/// The longest file with patterns, and the longest Dockerfile, in bytes.
const FILE_BYTES_MAX: usize = 4 << 20;

/// A context on disk.
#[derive(Debug)]
pub(super) struct Local {
    /// Where it is.
    pub(super) dir: PathBuf,
    /// Patterns of what is left out, in the language of ignore files.
    pub(super) exclude: Vec<String>,
    /// Files that belong to it even where the patterns leave them out.
    pub(super) keep: Vec<String>,
    /// Whether only those belong to it.
    pub(super) only_kept: bool,
}

/// What a context holds.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) entries: Vec<ContextEntry>,
    pub(super) uploads: Vec<Upload>,
}

/// Reads the first of some ignore files that is there.
///
/// # Errors
/// When it is no text.
pub(super) fn ignored(places: &[PathBuf]) -> Result<Vec<String>> {
    for place in places {
        match std::fs::read(place) {
            Ok(bytes) if bytes.len() > FILE_BYTES_MAX => {
                return usage(format!("{} is longer than 4 MiB", place.display()));
            }
            Ok(bytes) => return read_file(&bytes).with_context(|| place.display().to_string()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| place.display().to_string()),
        }
    }
    Ok(Vec::new())
}

impl Local {
    /// Lists and hashes the context; digests are looked up and kept in `cache`.
    ///
    /// # Errors
    /// When a file cannot be read or `stop` was called.
    pub(super) fn scan(&self, cache: &Path, stop: &Stop) -> Result<Scanned> {
        let mut found = Scanned::default();
        let mut seen = BTreeSet::new();
        if !self.only_kept {
            let patterns = Patterns::new(&self.exclude)?;
            let context = Context::open(&self.dir, Arc::new(patterns), cache, stop.clone())?;
            let selection = context.select(&everything())?;
            for (path, entry) in selection.entries().filter(|(path, _)| !path.is_empty()) {
                let path = text(path)?;
                seen.insert(path.clone());
                self.add(&mut found, path, entry)?;
            }
            // A directory that cannot be written to only makes the next build hash again.
            let _ = context.save();
        }
        for name in self.keep.iter().filter(|n| !seen.contains(*n)) {
            self.add_kept(&mut found, name)?;
        }
        Ok(found)
    }

    fn add(&self, found: &mut Scanned, path: String, entry: &Entry) -> Result<()> {
        let kind = match &entry.kind {
            Kind::File { content: Some(digest) } => {
                let (digest, size) = (*digest, entry.stamp.size);
                found.uploads.push(Upload { digest, bytes: size, path: self.dir.join(&path) });
                ContextEntryKind::File { digest, size }
            }
            Kind::Directory => ContextEntryKind::Dir,
            Kind::Symlink { target } => ContextEntryKind::Symlink { target: text(target.clone())? },
            Kind::File { content: None } | Kind::Fifo | Kind::Socket | Kind::Device { .. } => {
                note(format!(
                    "warning: '{path}' is no file and stays here; list it in {IGNORE_FILE}"
                ));
                return Ok(());
            }
        };
        found.entries.push(ContextEntry { path, kind, mode: entry.mode });
        Ok(())
    }

    /// Adds a file that the patterns leave out; one that is not there is not missed.
    fn add_kept(&self, found: &mut Scanned, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        let Ok(about) = std::fs::metadata(&path) else { return Ok(()) };
        if !about.is_file() || about.len() > FILE_BYTES_MAX as u64 {
            return Ok(());
        }
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let mode = std::os::unix::fs::MetadataExt::mode(&about) & 0o7777;
        found.uploads.push(Upload { digest, bytes: size, path });
        let kind = ContextEntryKind::File { digest, size };
        found.entries.push(ContextEntry { path: name.to_owned(), kind, mode });
        Ok(())
    }
}

/// A copy of the whole context.
fn everything() -> Copy {
    Copy { sources: vec![".".into()], destination: "/".into(), literal: true, ..Copy::default() }
}

fn text(path: Vec<u8>) -> Result<String> {
    match String::from_utf8(path) {
        Ok(text) => Ok(text),
        Err(e) => usage(format!(
            "the name '{}' is not UTF-8 and cannot go to a server; rename it, or list it in \
             {IGNORE_FILE}",
            String::from_utf8_lossy(e.as_bytes())
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_stays_but_for_the_dockerfile() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("context");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        for name in ["Dockerfile", ".dockerignore", "a", "b", "sub/c"] {
            std::fs::write(root.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        let exclude = ["b", "Dockerfile", ".dockerignore", "sub"].map(str::to_owned).to_vec();
        let keep = ["Dockerfile", ".dockerignore", "none"].map(str::to_owned).to_vec();
        let local = Local { dir: root, exclude, keep, only_kept: false };
        let scan = || local.scan(&dir.path().join("cache"), &Stop::default()).unwrap();
        let found = scan();
        let names: Vec<&str> = found.entries.iter().map(|e| e.path.as_str()).collect();
        assert_eq!(names, ["a", "link", "Dockerfile", ".dockerignore"]);
        assert_eq!(found.uploads.len(), 3);
        assert_eq!(scan().entries, found.entries);
        let only = Local { only_kept: true, ..local };
        let found = only.scan(&dir.path().join("cache"), &Stop::default()).unwrap();
        assert_eq!(found.entries.len(), 2);
    }
}
