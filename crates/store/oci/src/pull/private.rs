//! Who may read what came with a tenant's own credentials.
//!
//! Blobs are shared by content, and to know a digest must not be enough to read one. What a build
//! fetches from a host that it has credentials for is therefore marked: `DIR/images/private/` holds
//! a file for each digest with the tenants that fetched it, or whatever [`Marks`] there are where
//! machines share a blob store. Nobody else gets it from the store. To become a reader one has to
//! fetch the bytes from a registry that gives them; whoever can do that has them already. Once they
//! came with no credentials at all, they are public.
//!
//! What builds make is marked too, once it has a digest that others could name: manifest, config and
//! the layers that are theirs. It is its tenant's until a registry gives it to somebody.
//!
//! A mark without readers is set before the bytes are stored, and a reader is added once the bytes
//! were received, so that neither an order of two builds nor a fetch that fails lets bytes through.
//!
//! Content that is only in a blob store elsewhere and that nobody is marked for may be anything:
//! what a tenant has uploaded is there too. It counts as absent for who is not known to be a reader.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ashlar_blobs::{BlobInfo, BlobStore};
use ashlar_core::Digest;
use serde::{Deserialize, Serialize};

use super::{Images, PullError, Result};
use crate::files::{self, FileError};
use crate::manifest::Descriptor;
use crate::reference::Repository;
use crate::registry::Credential;
use crate::transfer::Transfer;

/// Marks that all machines know which share a blob store. The calls block.
pub trait Marks: Send + Sync + Debug {
    /// Returns what is known of a tenant and some content.
    ///
    /// # Errors
    /// When the marks cannot be read.
    fn readership(&self, tenant: &str, digest: &Digest) -> io::Result<Readership>;

    /// Marks a reader; with `if_marked` only where somebody is marked already.
    ///
    /// # Errors
    /// When the mark cannot be set.
    fn add(&self, reader: Reader<'_>, digest: &Digest, if_marked: bool) -> io::Result<()>;
}

/// What is known of a tenant and some content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readership {
    /// The tenant may read it.
    Reader,
    /// It is others' alone.
    Others,
    /// Nobody is marked.
    Unknown,
}

/// Who may read content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader<'a> {
    /// One tenant.
    Tenant(&'a str),
    /// Everybody.
    Everybody,
    /// Nobody yet.
    Nobody,
}

/// Whose eyes look at the images.
#[derive(Debug, Clone)]
pub(super) struct Viewer {
    tenant: String,
    /// Hosts that it has credentials for.
    hosts: BTreeSet<String>,
}

/// The mark of private content, as a file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Mark {
    readers: BTreeSet<String>,
}

impl Images {
    /// Returns the same images as one tenant sees them who has these credentials by host, in place
    /// of the client's own for those hosts.
    #[must_use]
    pub fn for_tenant(&self, tenant: &str, credentials: BTreeMap<String, Credential>) -> Self {
        let hosts = credentials.keys().cloned().collect();
        let registry = match credentials.is_empty() {
            true => self.registry.clone(),
            false => self.registry.with_credentials(credentials),
        };
        let viewer = Some(Arc::new(Viewer { tenant: tenant.to_owned(), hosts }));
        Self { registry, viewer, ..self.clone() }
    }

    /// Returns the same images with marks that other machines know too.
    #[must_use]
    pub fn with_marks(self, marks: Arc<dyn Marks>) -> Self {
        Self { marks: Some(marks), ..self }
    }

    /// Hands marks that are files here on to those that other machines know; returns how many. For
    /// a data directory that was one machine's own before.
    ///
    /// # Errors
    /// When a mark can not be read or set.
    pub fn share_marks(&self) -> Result<usize> {
        let Some(marks) = &self.marks else { return Ok(0) };
        let (dir, mut shared) = (self.store.private_dir(), 0);
        for name in files::list(&dir)? {
            let digest = name.strip_suffix(".json").and_then(|hex| Digest::from_hex(hex).ok());
            let Some(digest) = digest else { continue };
            let Some(mark) = files::read_json::<Mark>(&dir.join(&name))? else { continue };
            let set = |reader| marks.add(reader, &digest, false).map_err(PullError::Marks);
            set(Reader::Nobody)?;
            mark.readers.iter().try_for_each(|reader| set(Reader::Tenant(reader)))?;
            files::remove(&dir.join(&name))?;
            shared += 1;
        }
        Ok(shared)
    }

    /// Returns the tenant whose view this is; nothing when all is seen.
    pub fn tenant(&self) -> Option<&str> {
        self.viewer.as_ref().map(|v| v.tenant.as_str())
    }

    /// Says whether what comes from a repository is this viewer's alone.
    pub fn is_private(&self, repository: &Repository) -> bool {
        self.viewer.as_ref().is_some_and(|v| v.hosts.contains(repository.host()))
    }

    /// Says whether the viewer may have the content of that digest, as far as marks tell.
    ///
    /// # Errors
    /// When the mark can not be read.
    pub fn may_read(&self, digest: &Digest) -> Result<bool> {
        Ok(self.readership(digest)? != Readership::Others)
    }

    fn readership(&self, digest: &Digest) -> Result<Readership> {
        let Some(viewer) = &self.viewer else { return Ok(Readership::Reader) };
        if let Some(marks) = &self.marks {
            return marks.readership(&viewer.tenant, digest).map_err(PullError::Marks);
        }
        let mark: Option<Mark> = files::read_json(&self.mark_path(digest))?;
        Ok(match mark {
            None => Readership::Unknown,
            Some(mark) if mark.readers.contains(&viewer.tenant) => Readership::Reader,
            Some(_) => Readership::Others,
        })
    }

    /// Says whether content may be left where it is until it is needed: it is the viewer's, or is
    /// nowhere yet and will come from a registry. What is elsewhere for reasons that nobody knows of
    /// has to be fetched first.
    ///
    /// # Errors
    /// When the mark can not be read, or a store elsewhere does not answer.
    pub fn may_wait(&self, digest: &Digest) -> Result<bool> {
        Ok(match self.readership(digest)? {
            Readership::Reader => true,
            Readership::Others => false,
            Readership::Unknown => self.blobs.has_here(digest)? || !self.blobs.has(digest)?,
        })
    }

    /// Says whether the viewer gets the content of that digest from the stores: it is there, and
    /// the viewer may have it.
    pub(super) fn may_take(&self, digest: &Digest) -> Result<bool> {
        Ok(match self.readership(digest)? {
            Readership::Reader => self.blobs.has(digest)?,
            Readership::Others => false,
            Readership::Unknown => self.blobs.has_here(digest)?,
        })
    }

    /// Says before content from a repository is stored that it is nobody's yet. Without effect when
    /// it will be everybody's, or somebody is marked.
    pub(super) fn reserve(&self, repository: &Repository, digest: &Digest) -> Result<()> {
        if !self.is_private(repository) {
            return Ok(());
        }
        if let Some(marks) = &self.marks {
            return match self.readership(digest)? {
                Readership::Unknown => {
                    marks.add(Reader::Nobody, digest, false).map_err(PullError::Marks)
                }
                Readership::Reader | Readership::Others => Ok(()),
            };
        }
        let path = self.mark_path(digest);
        let _lock = self.store.lock()?;
        match path.exists() {
            true => Ok(()),
            false => Ok(files::write_json(&path, &Mark::default())?),
        }
    }

    /// Notes that the viewer got content from a repository: it is a reader from now on, or with no
    /// credentials everybody is. With `new` content that was not here before.
    ///
    /// # Errors
    /// When the mark can not be written.
    pub fn note_received(&self, repository: &Repository, digest: &Digest, new: bool) -> Result<()> {
        let Some(viewer) = &self.viewer else { return Ok(()) };
        if let Some(marks) = &self.marks {
            let reader = match self.is_private(repository) {
                true => Reader::Tenant(&viewer.tenant),
                false => Reader::Everybody,
            };
            return marks.add(reader, digest, !new).map_err(PullError::Marks);
        }
        let path = self.mark_path(digest);
        if !self.is_private(repository) {
            if path.exists() {
                let _lock = self.store.lock()?;
                files::remove(&path)?;
            }
            return Ok(());
        }
        self.add_reader(&viewer.tenant, digest, new)
    }

    /// Notes that a tenant's build made content: the tenant is a reader from now on. Where nobody is
    /// marked yet, everybody reads it; with `new` it becomes the tenant's alone. To be called before
    /// anybody is told the digest.
    ///
    /// # Errors
    /// When the mark can not be written.
    pub fn note_made(&self, tenant: &str, digest: &Digest, new: bool) -> Result<()> {
        match &self.marks {
            Some(marks) => {
                marks.add(Reader::Tenant(tenant), digest, !new).map_err(PullError::Marks)
            }
            None => self.add_reader(tenant, digest, new),
        }
    }

    /// Adds a reader to a mark that is a file; with `new` also where there is none.
    fn add_reader(&self, tenant: &str, digest: &Digest, new: bool) -> Result<()> {
        let path = self.mark_path(digest);
        if !new && !path.exists() {
            return Ok(());
        }
        let _lock = self.store.lock()?;
        let known: Option<Mark> = files::read_json(&path)?;
        if known.is_none() && !new {
            return Ok(());
        }
        let mut mark = known.unwrap_or_default();
        if mark.readers.insert(tenant.to_owned()) {
            files::write_json(&path, &mark)?;
        }
        Ok(())
    }

    /// Fetches a blob into the store, unless it is there and the viewer may read it.
    pub(super) fn fetch_readable(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        transfer: &Transfer<'_>,
    ) -> Result<BlobInfo> {
        let digest = &blob.digest;
        if self.may_take(digest)? {
            return Ok(self.registry.fetch_blob(repository, blob, &self.blobs, transfer)?);
        }
        if !self.blobs.has_here(digest)? {
            self.reserve(repository, digest)?;
        }
        let claim = || self.blobs.claim_here(digest);
        let (info, received) = self.registry.fetch_claimed(repository, blob, transfer, claim)?;
        if received {
            self.note_received(repository, digest, true)?;
        } else if !self.may_read(digest)? {
            self.prove(repository, blob, transfer)?;
        }
        Ok(info)
    }

    /// Fetches a blob that is here once more, and throws it away: the registry then lets the viewer
    /// read it.
    fn prove(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        transfer: &Transfer<'_>,
    ) -> Result<()> {
        let dir = self.store.private_dir();
        let scratch = tempfile::Builder::new().prefix(".proof-").tempdir_in(&dir);
        let scratch = scratch.map_err(|e| FileError::new("create", &dir, e))?;
        let store = BlobStore::open(scratch.path())?;
        self.registry.fetch_blob(repository, blob, &store, transfer)?;
        self.note_received(repository, &blob.digest, false)
    }

    fn mark_path(&self, digest: &Digest) -> PathBuf {
        self.store.private_dir().join(format!("{}.json", digest.hex()))
    }
}
