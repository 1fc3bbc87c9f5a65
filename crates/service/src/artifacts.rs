//! What builds made: images as manifests, blobs and archives.

use std::fs::File;
use std::sync::Arc;

use ashlar_core::image::ImageConfig;
use ashlar_core::journal::{Event, Record, Sink};
use ashlar_core::{BuildId, Digest, TenantId};
use ashlar_layers::Stop;
use ashlar_oci::{LocalImage, Transfer};
use serde_json::json;

use crate::{Actor, Definition, Error, Service};

/// The largest manifest or config that is read into memory, in bytes.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;

/// An image that has a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packaged {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's media type.
    pub media_type: String,
    /// The manifest.
    pub manifest: Vec<u8>,
}

/// Returns the local id of a build's image.
pub(crate) fn image_of(record: &Record) -> Option<Digest> {
    record.artifacts.iter().find(|a| a.kind == "image").map(|a| a.digest)
}

/// Hears nothing: the progress of packaging for a download interests nobody.
pub(crate) struct Quiet;

impl Sink for Quiet {
    fn event(&self, _: Event) {}
}

impl Service {
    /// Returns the config of a build's image: variables, user, labels, health check.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such build, or it has no image (any more).
    pub async fn image(
        self: &Arc<Self>,
        actor: &Actor,
        build: BuildId,
    ) -> Result<ImageConfig, Error> {
        let record = self.row(actor, build).await?;
        self.blocking(move |service| {
            let image = service.local_image(&record)?;
            serde_json::from_value(image.config).map_err(Error::internal)
        })
        .await
    }

    /// Returns a build's image with manifest, config and layers as blobs, making those that are
    /// not there yet. The tenant may read them from then on.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such build, or it has no image (any more).
    pub async fn package(
        self: &Arc<Self>,
        actor: &Actor,
        build: BuildId,
    ) -> Result<Packaged, Error> {
        let record = self.show(actor, build).await?;
        self.blocking(move |service| service.make_package(&record)).await
    }

    /// Opens a blob that the actor's tenant may read; returns it with its size.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn open_blob(
        self: &Arc<Self>,
        actor: &Actor,
        digest: Digest,
    ) -> Result<(File, u64), Error> {
        let tenant = actor.tenant.id;
        self.blocking(move |service| {
            if !service.tenant_has(tenant, &digest)? {
                return Err(Error::not_found("blob", digest));
            }
            let file = service.engine().images().blobs().open_read(&digest)?;
            let size = file.metadata().map_err(Error::internal)?.len();
            Ok((file, size))
        })
        .await
    }

    /// Removes an artifact of a build that has ended: its name leads nowhere from then on.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] while the build runs.
    pub async fn remove_artifact(
        self: &Arc<Self>,
        actor: &Actor,
        build: BuildId,
        name: &str,
    ) -> Result<Record, Error> {
        let record = self.own(actor, build).await?;
        if !record.state.is_terminal() {
            return Err(Error::Conflict("the build has not ended".into()));
        }
        let artifact = record.artifacts.iter().find(|a| a.name == name);
        let artifact = artifact.ok_or_else(|| Error::not_found("artifact", name))?;
        let is_image = artifact.kind == "image";
        let reason = format!("removed by {}", actor.principal.name);
        let event = Event::ArtifactRemoved { name: name.to_owned(), reason };
        let stamped = [ashlar_records::Stamped::new(ashlar_records::now(), event)];
        let row = self.store().append(build, ashlar_records::Writer::Service, stamped).await?;
        // Afterwards: a record whose image is gone would lie, a name too many is swept.
        if is_image {
            self.drop_image(record.submission.tenant, build).await?;
        }
        self.audit(actor, "artifact.remove", build, json!({ "name": name })).await?;
        Ok(row)
    }

    pub(crate) fn make_package(&self, record: &Record) -> Result<Packaged, Error> {
        let local = self.local_image(record)?;
        let manifest = match local.manifest.clone() {
            Some(manifest) => manifest,
            None => {
                let (tenant, epoch) = (record.submission.tenant, epoch_of(record));
                self.compose_usual(tenant, local, epoch, &Stop::default())?
            }
        };
        let bytes = self.blobs().read(&manifest.digest, DOCUMENT_BYTES_MAX)?;
        let blobs = blobs_of(&manifest.digest, &bytes)?;
        self.join_readers(record.submission.tenant, &blobs)?;
        self.grants().add(record.submission.tenant, &blobs)?;
        let (digest, media_type) = (manifest.digest, manifest.media_type);
        Ok(Packaged { digest, media_type, manifest: bytes })
    }

    /// Marks what a tenant's build made as the tenant's own: the manifest, its config, and the
    /// layers that no registry gave. To know their digests is not enough for others then.
    pub(crate) fn mark_made(
        &self,
        tenant: TenantId,
        digest: &Digest,
        manifest: &[u8],
        own: &[bool],
    ) -> Result<(), Error> {
        let (images, tenant) = (self.engine().images(), tenant.to_string());
        // The manifest first, its layers in their order, the config last.
        let blobs = blobs_of(digest, manifest)?;
        let is_own = |place: usize| match place.checked_sub(1) {
            Some(layer) => own.get(layer).copied().unwrap_or(true),
            None => true,
        };
        for (place, blob) in blobs.iter().enumerate() {
            images.note_made(&tenant, blob, is_own(place)).map_err(Error::internal)?;
        }
        Ok(())
    }

    /// Lets a tenant whose build came to the same as another's read what is marked as theirs.
    pub(crate) fn join_readers(&self, tenant: TenantId, blobs: &[Digest]) -> Result<(), Error> {
        let (images, tenant) = (self.engine().images(), tenant.to_string());
        let join = |blob| images.note_made(&tenant, blob, false).map_err(Error::internal);
        blobs.iter().try_for_each(join)
    }

    /// Fetches the layers of the base that were never needed: after a restart the engine no longer
    /// knows where they are, the image's record does.
    pub(crate) fn fetch_layers(&self, local: &LocalImage, stop: &Stop) -> Result<(), Error> {
        let images = self.engine().images();
        let transfer = Transfer::quiet().with_cancel(stop.flag());
        let Some(repository) = &local.repository else { return Ok(()) };
        for blob in local.layers.iter().filter_map(|l| l.blob.as_ref()) {
            if !images.blobs().has(&blob.digest)? {
                images.registry().fetch_blob(repository, blob, images.blobs(), &transfer).map_err(
                    |e| {
                        tracing::warn!(error = crate::error::chain(&e), "cannot fetch a layer");
                        Error::Unavailable("a layer of the base image cannot be fetched now".into())
                    },
                )?;
            }
        }
        Ok(())
    }

    /// Makes blobs last, unless it is to stop.
    pub(crate) fn keep_blobs(&self, blobs: &[Digest], stop: &Stop) -> Result<(), Error> {
        match self.blobs().keep_while(blobs, || !stop.is_stopped())? {
            true => Ok(()),
            false => Err(Error::stopped()),
        }
    }
}

/// Returns what times of a build's image are cut to; the record has its definition.
pub(crate) fn epoch_of(record: &Record) -> Option<i64> {
    Definition::of(record).ok().and_then(|definition| definition.epoch)
}

/// Says of each layer whether it is a build's own: what a registry gave has a blob.
pub(crate) fn own_layers(local: &LocalImage) -> Vec<bool> {
    local.layers.iter().map(|layer| layer.blob.is_none()).collect()
}

/// Returns the digests of a manifest, of its layers in their order, and of its config.
pub(crate) fn blobs_of(digest: &Digest, manifest: &[u8]) -> Result<Vec<Digest>, Error> {
    let document: serde_json::Value = serde_json::from_slice(manifest).map_err(Error::internal)?;
    let layers = document["layers"].as_array().into_iter().flatten();
    let mut digests = vec![*digest];
    for blob in layers.chain([&document["config"]]) {
        let digest = blob["digest"].as_str().and_then(|d| d.parse().ok());
        digests.push(digest.ok_or_else(|| Error::internal("a manifest without digests"))?);
    }
    Ok(digests)
}
