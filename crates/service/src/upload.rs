//! Blobs and contexts from clients.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::sync::Arc;

use ashlar_blobs::BlobError;
use ashlar_core::identity::Role;
use ashlar_core::{Digest, TenantId};

use crate::context::{ENTRIES_MAX, MANIFEST_BYTES_MAX};
use crate::partial::Partial;
use crate::{Actor, ContextManifest, Error, Service};

/// The largest blob, in bytes.
pub(crate) const BLOB_BYTES_MAX: u64 = 32 << 30;

/// How often it is looked at what a tenant's uploads take up together, in bytes written.
const CHECK_EVERY: u64 = 16 << 20;

/// Which blobs a tenant still has to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingBlobs(pub Vec<Digest>);

/// An upload under way; what was written stays for a later [`Service::begin_blob`] of the same
/// digest, until it is finished. All methods block.
#[derive(Debug)]
pub struct BlobUpload {
    service: Arc<Service>,
    tenant: TenantId,
    digest: Digest,
    partial: Partial,
    /// None: the tenant has the blob already.
    file: Option<File>,
    written: u64,
    /// Bytes written since the tenant's room was looked at.
    unchecked: u64,
}

impl Service {
    /// Returns which of these blobs the actor's tenant has to upload, in their order.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Forbidden`].
    pub async fn missing_blobs(
        self: &Arc<Self>,
        actor: &Actor,
        digests: Vec<Digest>,
    ) -> Result<MissingBlobs, Error> {
        actor.needs(Role::Developer)?;
        if digests.len() > ENTRIES_MAX {
            let what = "the list".to_owned();
            return Err(Error::TooLarge { what, max: ENTRIES_MAX as u64, unit: "digests" });
        }
        let tenant = actor.tenant.id;
        self.blocking(move |service| {
            let granted = service.grants().among(tenant, &digests)?;
            let mut missing = Vec::new();
            for digest in digests {
                if !granted.contains(&digest) || !service.blobs().has(&digest)? {
                    missing.push(digest);
                }
            }
            Ok(MissingBlobs(missing))
        })
        .await
    }

    /// Says whether a tenant has a blob. Blocks.
    pub(crate) fn tenant_has(&self, tenant: TenantId, digest: &Digest) -> Result<bool, Error> {
        Ok(self.grants().has(tenant, digest)? && self.blobs().has(digest)?)
    }

    /// Stores a blob whose bytes are all there; with `expected`, only when that is its digest.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the digest is another.
    pub async fn put_blob(
        self: &Arc<Self>,
        actor: &Actor,
        expected: Option<Digest>,
        bytes: Vec<u8>,
    ) -> Result<Digest, Error> {
        actor.needs(Role::Developer)?;
        let tenant = actor.tenant.id;
        self.blocking(move |service| {
            let actual = Digest::of(&bytes);
            if let Some(expected) = expected.filter(|e| *e != actual) {
                let why = format!("the bytes have the digest {actual}, not {expected}");
                return Err(Error::invalid("digest", why));
            }
            service.keep_blob(tenant, &bytes)
        })
        .await
    }

    /// Stores bytes for a tenant.
    pub(crate) fn keep_blob(&self, tenant: TenantId, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = self.blobs().put_bytes(bytes)?.digest;
        self.grants().add(tenant, &[digest])?;
        self.blobs().keep(&[digest])?;
        Ok(digest)
    }

    /// Reads a small blob of the actor's tenant.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::TooLarge`] above `limit` bytes.
    pub async fn read_blob(
        self: &Arc<Self>,
        actor: &Actor,
        digest: Digest,
        limit: u64,
    ) -> Result<Vec<u8>, Error> {
        let tenant = actor.tenant.id;
        self.blocking(move |service| {
            if !service.tenant_has(tenant, &digest)? {
                return Err(Error::not_found("blob", digest));
            }
            Ok(service.blobs().read(&digest, limit)?)
        })
        .await
    }

    /// Begins or resumes an upload. Blocks.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Conflict`] while somebody else uploads the same;
    /// [`Error::TooLarge`] when the tenant has too much that is not finished.
    pub fn begin_blob(
        self: &Arc<Self>,
        actor: &Actor,
        digest: Digest,
    ) -> Result<BlobUpload, Error> {
        actor.needs(Role::Developer)?;
        let tenant = actor.tenant.id;
        let partial = Partial::new(&self.config().data_dir, tenant, &digest);
        let service = Arc::clone(self);
        let (file, written) = match self.tenant_has(tenant, &digest)? {
            true => {
                // Where servers share a store it may be here only: an earlier try was cut short.
                self.blobs().keep(&[digest])?;
                partial.remove()?;
                (None, 0)
            }
            false => {
                let file = partial.open()?;
                let written = file.metadata().map_err(Error::internal)?.len();
                (Some(file), written)
            }
        };
        Ok(BlobUpload { service, tenant, digest, partial, file, written, unchecked: 0 })
    }

    /// Keeps a context whose files are all uploaded, and returns its digest.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the entry that is wrong or whose bytes are missing.
    pub async fn put_context(
        self: &Arc<Self>,
        actor: &Actor,
        manifest: ContextManifest,
    ) -> Result<Digest, Error> {
        actor.needs(Role::Developer)?;
        let tenant = actor.tenant.id;
        self.blocking(move |service| service.keep_context(tenant, manifest)).await
    }

    pub(crate) fn keep_context(
        &self,
        tenant: TenantId,
        manifest: ContextManifest,
    ) -> Result<Digest, Error> {
        manifest.check()?;
        let digests: Vec<Digest> = manifest.digests().map(|(digest, _)| digest).collect();
        let granted = self.grants().among(tenant, &digests)?;
        for (i, (digest, size)) in manifest.digests().enumerate() {
            let stored = match granted.contains(&digest) {
                true => self.blobs().size(&digest)?,
                false => None,
            };
            let field = || format!("files[{i}].digest");
            match stored {
                None => {
                    let why = format!("there is no blob {digest}; upload it first");
                    return Err(Error::invalid(field(), why));
                }
                Some(stored) if size.is_some_and(|s| s != stored) => {
                    let why = format!("the blob {digest} has {stored} bytes");
                    return Err(Error::invalid(field(), why));
                }
                Some(_) => {}
            }
        }
        self.blobs().keep(&digests)?;
        let bytes = manifest.encode()?;
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            let what = "the context's list".to_owned();
            return Err(Error::TooLarge { what, max: MANIFEST_BYTES_MAX, unit: "bytes" });
        }
        let digest = self.blobs().put_bytes(&bytes)?.digest;
        self.grants().add_context(tenant, digest)?;
        self.blobs().keep(&[digest])?;
        Ok(digest)
    }

    /// Says whether a tenant has a context: a blob that was checked as one when it was kept, or that
    /// an earlier build of the tenant was accepted with.
    pub(crate) async fn has_context(
        &self,
        tenant: TenantId,
        digest: Digest,
    ) -> Result<bool, Error> {
        let (grants, blobs) = (self.grants().clone(), self.blobs().clone());
        let look = move || -> Result<Option<bool>, Error> {
            if !grants.has(tenant, &digest)? || !blobs.has(&digest)? {
                return Ok(Some(false));
            }
            // Where servers share a store it may be here only, kept by a server that died over it.
            blobs.keep(&[digest])?;
            Ok(grants.has_context(tenant, &digest)?.then_some(true))
        };
        match tokio::task::spawn_blocking(look).await.map_err(Error::internal)?? {
            Some(known) => Ok(known),
            None => Ok(self.store().holds_context(tenant, digest).await?),
        }
    }
}

impl BlobUpload {
    /// Says whether the tenant has the blob already.
    pub const fn is_complete(&self) -> bool {
        self.file.is_none()
    }

    /// Returns how many bytes there are: where the client goes on.
    pub const fn offset(&self) -> u64 {
        self.written
    }

    /// Throws away what there is, to begin anew.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn restart(&mut self) -> Result<(), Error> {
        if let Some(file) = &self.file {
            file.set_len(0).map_err(Error::internal)?;
            self.written = 0;
        }
        Ok(())
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; when the file system refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let Some(file) = &mut self.file else { return Ok(()) };
        self.written += bytes.len() as u64;
        if self.written > BLOB_BYTES_MAX {
            let what = "the blob".to_owned();
            return Err(Error::TooLarge { what, max: BLOB_BYTES_MAX, unit: "bytes" });
        }
        self.unchecked += bytes.len() as u64;
        if self.unchecked >= CHECK_EVERY {
            self.unchecked = 0;
            self.partial.check_room()?;
        }
        file.write_all(bytes).map_err(Error::internal)
    }

    /// Checks the digest and makes the blob visible. With another digest everything is thrown
    /// away; whatever else fails, all bytes stay, so that the client only has to finish again.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the digest is another. [`Error::Unavailable`] while the blob store
    /// does not answer.
    pub fn finish(self) -> Result<(), Error> {
        let Some(mut file) = self.file else { return Ok(()) };
        file.seek(SeekFrom::Start(0)).map_err(Error::internal)?;
        let blobs = self.service.blobs();
        match blobs.put_reader(&mut file, Some(&self.digest)) {
            Ok(_) => {}
            Err(error @ BlobError::Mismatch { .. }) => {
                self.partial.remove()?;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
        self.service.grants().add(self.tenant, &[self.digest])?;
        blobs.keep(&[self.digest])?;
        self.partial.remove()
    }
}
