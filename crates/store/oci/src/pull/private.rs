//! Who may read what came with a tenant's own credentials.
//!
//! Blobs are shared by content, and to know a digest must not be enough to read one. What a build
//! fetches from a host that it has credentials for is therefore marked: `DIR/images/private/` holds
//! a file for each digest with the tenants that fetched it. Nobody else gets it from the store. To
//! become a reader one has to fetch the bytes from a registry that gives them; whoever can do that
//! has them already. Once they came with no credentials at all, the mark goes: they are public.
//!
//! What builds make is marked too, once it has a digest that others could name: manifest, config and
//! the layers that are theirs. It is its tenant's until a registry gives it to somebody.
//!
//! A mark is set before the bytes are stored and looked at after a fetch, so that no order of two
//! builds lets bytes through.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use ashlar_blobs::{BlobInfo, BlobStore};
use ashlar_core::Digest;
use serde::{Deserialize, Serialize};

use super::{Images, Result};
use crate::files::{self, FileError};
use crate::manifest::Descriptor;
use crate::reference::Repository;
use crate::registry::Credential;
use crate::transfer::Transfer;

/// Whose eyes look at the images.
#[derive(Debug, Clone)]
pub(super) struct Viewer {
    tenant: String,
    /// Hosts that it has credentials for.
    hosts: BTreeSet<String>,
}

/// The mark of private content.
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

    /// Returns the tenant whose view this is; nothing when all is seen.
    pub fn tenant(&self) -> Option<&str> {
        self.viewer.as_ref().map(|v| v.tenant.as_str())
    }

    /// Says whether what comes from a repository is this viewer's alone.
    pub fn is_private(&self, repository: &Repository) -> bool {
        self.viewer.as_ref().is_some_and(|v| v.hosts.contains(repository.host()))
    }

    /// Says whether the viewer may have the content of that digest from the local stores.
    ///
    /// # Errors
    /// When the mark can not be read.
    pub fn may_read(&self, digest: &Digest) -> Result<bool> {
        let Some(viewer) = &self.viewer else { return Ok(true) };
        let mark: Option<Mark> = files::read_json(&self.mark_path(digest))?;
        Ok(mark.is_none_or(|m| m.readers.contains(&viewer.tenant)))
    }

    /// Notes that the viewer got content from a repository: it is a reader from now on, or with no
    /// credentials everybody is. Call it before the content is stored when it is `new`.
    ///
    /// # Errors
    /// When the mark can not be written.
    pub fn note_received(&self, repository: &Repository, digest: &Digest, new: bool) -> Result<()> {
        let Some(viewer) = &self.viewer else { return Ok(()) };
        let path = self.mark_path(digest);
        if !new && !path.exists() {
            return Ok(());
        }
        let _lock = self.store.lock()?;
        if !self.is_private(repository) {
            return Ok(files::remove(&path)?);
        }
        let known: Option<Mark> = files::read_json(&path)?;
        if known.is_none() && !new {
            return Ok(());
        }
        let mut mark = known.unwrap_or_default();
        if mark.readers.insert(viewer.tenant.clone()) {
            files::write_json(&path, &mark)?;
        }
        Ok(())
    }

    /// Notes that a tenant's build made content: the tenant is a reader from now on. Where nobody is
    /// marked yet, everybody reads it; with `new` it becomes the tenant's alone. To be called before
    /// anybody is told the digest.
    ///
    /// # Errors
    /// When the mark can not be written.
    pub fn note_made(&self, tenant: &str, digest: &Digest, new: bool) -> Result<()> {
        let path = self.mark_path(digest);
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
        if self.is_private(repository) && !self.blobs.has(&blob.digest)? {
            self.note_received(repository, &blob.digest, true)?;
        }
        let info = self.registry.fetch_blob(repository, blob, &self.blobs, transfer)?;
        if !self.may_read(&blob.digest)? {
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
