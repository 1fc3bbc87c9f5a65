//! A directory on disk as the context of a build: only what a copy can reach is looked at, and a
//! file that is known from an earlier build is not read.

mod hash;
mod ignore;
mod manifest;
mod selection;
mod stat_cache;

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ashlar_core::graph::Copy;
use ashlar_layers::Stop;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

pub(crate) use hash::{READ_BYTES, with_buffer};
pub use ignore::{Ignore, IgnoreNothing};
pub use manifest::{Manifest, ManifestError, TOTAL_NAME};
pub use selection::{Selection, Stats};
use stat_cache::StatCache;

use crate::error::ContextError;
use crate::path;
use crate::root::{Root, is_dir, stat_at};
use crate::select::Selector;
use crate::walk::list;

/// The most names that one listing returns.
const LISTING_MAX: usize = 100_000;

/// A directory that builds read from.
pub struct Context {
    root: Root,
    ignore: Arc<dyn Ignore>,
    cache: StatCache,
    selections: Mutex<HashMap<String, Arc<Selection>>>,
    stop: Stop,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Context {
    /// Opens a directory. Digests are kept in `cache_dir`, which is made when something is saved.
    ///
    /// # Errors
    /// When `dir` does not exist or is not a directory.
    pub fn open(
        dir: &Path,
        ignore: Arc<dyn Ignore>,
        cache_dir: &Path,
        stop: Stop,
    ) -> Result<Self, ContextError> {
        let fail = |source| ContextError::Open { path: dir.display().to_string(), source };
        let place = std::fs::canonicalize(dir).map_err(fail)?;
        let root = Root::open(&place).map_err(fail)?;
        let cache = StatCache::open(cache_dir, &place);
        Ok(Self { root, ignore, cache, selections: Mutex::default(), stop })
    }

    /// Returns what `copy` takes from the context. The same question is answered only once: what a
    /// key was made of is what is copied later.
    ///
    /// # Errors
    /// When a source is missing or cannot be read, changes all the time, or is too large.
    pub fn select(&self, copy: &Copy) -> Result<Arc<Selection>, ContextError> {
        let Copy { sources, exclude, parents, missing_ok, literal, whole_directory, .. } = copy;
        let question =
            format!("{:?}", (sources, exclude, parents, missing_ok, literal, whole_directory));
        let known = |selections: &HashMap<_, _>| selections.get(&question).map(Arc::clone);
        if let Some(known) = known(&self.selections.lock().unwrap_or_else(PoisonError::into_inner))
        {
            return Ok(known);
        }
        let selector = Selector {
            root: &self.root,
            ignore: Some(&*self.ignore),
            digester: Some(&self.cache),
            owners: false,
            stop: &self.stop,
        };
        let found = Arc::new(Selection::new(selector.select(copy)?, *whole_directory));
        let mut selections = self.selections.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(selections.entry(question).or_insert(found)))
    }

    /// Reads a file of at most `bytes_max` bytes, following links within the context; ignore rules
    /// don't apply. `None` when there is none.
    ///
    /// # Errors
    /// When it is no regular file, is larger, or cannot be read.
    pub fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, ContextError> {
        let fail = |e: io::Error| ContextError::io("read", name.as_bytes(), e);
        let resolved = self.root.resolve(&path::clean(name.as_bytes()));
        let resolved = resolved.map_err(|e| fail(e.into()))?;
        let Some(_) = resolved.stat else { return Ok(None) };
        read_regular(&self.root, &resolved.path, bytes_max).map(Some).map_err(fail)
    }

    /// Returns the names in a directory, sorted, directories with a trailing slash. `None` when it
    /// does not exist or is no directory. Names that are no UTF-8 are left out.
    ///
    /// # Errors
    /// When it cannot be read or holds more than 100,000 names.
    pub fn list(&self, name: &str) -> Result<Option<Vec<String>>, ContextError> {
        let fail = |e: Errno| ContextError::io("list", name.as_bytes(), e);
        let resolved = self.root.resolve(&path::clean(name.as_bytes())).map_err(fail)?;
        if !resolved.stat.as_ref().is_some_and(is_dir) {
            return Ok(None);
        }
        let dir = self.root.open_dir(&resolved.path).map_err(fail)?;
        let found = list(&dir).map_err(fail)?;
        if found.len() > LISTING_MAX {
            return Err(ContextError::TooMany);
        }
        let mut names = Vec::with_capacity(found.len());
        for (name, listed) in found {
            let full = path::join(&resolved.path, &name);
            let leads_to_dir = match listed {
                FileType::Directory => true,
                FileType::Unknown => stat_at(dir.as_fd(), &name).is_ok_and(|s| is_dir(&s)),
                FileType::Symlink => {
                    self.root.resolve(&full).is_ok_and(|r| r.stat.as_ref().is_some_and(is_dir))
                }
                _ => false,
            };
            let slash = if leads_to_dir { "/" } else { "" };
            names.extend(String::from_utf8(name).map(|name| name + slash));
        }
        names.sort_unstable();
        Ok(Some(names))
    }

    /// Keeps the digests for later builds; they are only a help, so a failure may be ignored.
    ///
    /// # Errors
    /// When the cache directory cannot be written.
    pub fn save(&self) -> io::Result<()> {
        self.cache.save()
    }

    /// Returns the context's directory.
    pub fn root(&self) -> &Root {
        &self.root
    }
}

/// Reads a regular file of bounded size at a path without links.
pub(crate) fn read_regular(root: &Root, path: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    // Not blocking: a named pipe must not hold the build up.
    let file = root.open_plain(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let file = std::fs::File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(io::Error::other(format!("it is larger than {bytes_max} bytes")));
    }
    Ok(bytes)
}
