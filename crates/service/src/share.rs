//! Images that are built on one machine and used on all.
//!
//! Names in the local image store are a machine's own. Where machines share a blob store, a build
//! that has succeeded has its image there: manifest, config, layers, and a blob that is the image's
//! record. The build's artifact names that record; whoever needs the image reads it and then knows
//! the image as if it had been pulled, its layers to be fetched when a step needs them.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ashlar_core::image::ImageConfig;
use ashlar_core::journal::{ArtifactRecord, Record};
use ashlar_core::{BuildId, Digest, TenantId};
use ashlar_layers::Stop;
use ashlar_oci::{Descriptor, LayerRef, LocalImage};
use ashlar_records::IMAGE_RECORD;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::artifacts::{DOCUMENT_BYTES_MAX, blobs_of, image_of};
use crate::recipe::{Adopt, image_name};
use crate::{Away, Error, ErrorKind, Service};

/// The version of the record's form.
const VERSION: u32 = 1;
/// How long a finished result is tried to be stored while the blob store does not answer.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The pause before the next try.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// An image as other machines need it.
#[derive(Debug, Serialize, Deserialize)]
struct ImageRecord {
    version: u32,
    image: LocalImage,
}

impl Service {
    /// Stores the image that a build has made where all machines find it, before the build counts
    /// as succeeded. Does nothing where there is no such place.
    pub(crate) fn publish(
        &self,
        tenant: TenantId,
        artifacts: &mut [ArtifactRecord],
        epoch: Option<i64>,
        stop: &Stop,
    ) -> Result<(), Error> {
        if self.blobs().remote().is_none() {
            return Ok(());
        }
        let until = Instant::now() + RETRY_MAX;
        for artifact in artifacts.iter_mut().filter(|a| a.kind == "image") {
            let mut again = true;
            let record = loop {
                match self.publish_image(tenant, &artifact.digest, epoch, stop) {
                    // A blob that an earlier build left in the store was removed there just now.
                    Err(Error::NotFound { what: "blob", .. }) if again => again = false,
                    Err(error)
                        if error.kind() == ErrorKind::Unavailable
                            && Instant::now() < until
                            && !stop.is_stopped() =>
                    {
                        std::thread::sleep(RETRY_PAUSE);
                    }
                    other => break other?,
                }
            };
            artifact.references.push(format!("{IMAGE_RECORD}{record}"));
        }
        Ok(())
    }

    fn publish_image(
        &self,
        tenant: TenantId,
        id: &Digest,
        epoch: Option<i64>,
        stop: &Stop,
    ) -> Result<Digest, Error> {
        let store = self.engine().images().store();
        let local = store.record(id).map_err(Error::internal)?;
        let local = local.ok_or_else(|| Error::internal(format!("the image {id} is gone")))?;
        let manifest = match local.manifest.clone() {
            // An earlier build made the same image: its blobs may only be here.
            Some(manifest) => manifest,
            None => self.compose_usual(tenant, local.clone(), epoch, stop)?,
        };
        let bytes = self.blobs().read(&manifest.digest, DOCUMENT_BYTES_MAX)?;
        let mut needed = blobs_of(&manifest.digest, &bytes)?;
        // On every machine the image is known by its manifest: cache keys and frozen answers agree.
        let local = LocalImage { manifest: Some(manifest), ..local };
        store.update(id, &local).map_err(Error::internal)?;
        let image = LocalImage { layers: self.plain_layers(&bytes)?, ..local };
        let record = serde_json::to_vec(&ImageRecord { version: VERSION, image });
        let record = self.blobs().put_bytes(&record.map_err(Error::internal)?)?.digest;
        self.join_readers(tenant, &needed)?;
        needed.push(record);
        self.grants().add(tenant, &needed)?;
        self.keep_blobs(&needed, stop)?;
        Ok(record)
    }

    /// Returns a manifest's layers as whoever has only the blobs sees them.
    fn plain_layers(&self, manifest: &[u8]) -> Result<Vec<LayerRef>, Error> {
        #[derive(Deserialize)]
        struct Manifest {
            config: Descriptor,
            layers: Vec<Descriptor>,
        }
        let manifest: Manifest = serde_json::from_slice(manifest).map_err(Error::internal)?;
        let config = self.blobs().read(&manifest.config.digest, DOCUMENT_BYTES_MAX)?;
        let config: ImageConfig = serde_json::from_slice(&config).map_err(Error::internal)?;
        let diff_ids = config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(Error::internal("a manifest and its config have different layers"));
        }
        let layer =
            |(blob, diff_id)| LayerRef { tree: None, diff_id: Some(diff_id), blob: Some(blob) };
        Ok(manifest.layers.into_iter().zip(diff_ids).map(layer).collect())
    }

    /// Returns a build's image, making it known here when another machine has built it.
    pub(crate) fn local_image(&self, record: &Record) -> Result<LocalImage, Error> {
        let s = &record.submission;
        let none = || Error::not_found("image of build", s.build);
        let id = image_of(record).ok_or_else(none)?;
        let store = self.engine().images().store();
        if let Some(image) = store.record(&id).map_err(Error::internal)? {
            return Ok(image);
        }
        let name = image_name(s.tenant, s.build)?;
        let known = store.named(&name).map_err(Error::internal)?;
        for id in known.into_iter().flat_map(|named| named.images) {
            if let Some(image) = store.record(&id).map_err(Error::internal)? {
                return Ok(image);
            }
        }
        let digest = record_of(record).ok_or_else(none)?;
        let bytes = self.blobs().read(&digest, DOCUMENT_BYTES_MAX)?;
        let read: ImageRecord = serde_json::from_slice(&bytes).map_err(Error::internal)?;
        if read.version != VERSION {
            let found = read.version;
            let text = format!("the image's record has version {found}; update this program");
            return Err(Error::internal(text));
        }
        store.add(std::slice::from_ref(&read.image), &[name], None).map_err(Error::internal)?;
        Ok(read.image)
    }
}

/// Returns the digest of the record of a build's image.
fn record_of(record: &Record) -> Option<Digest> {
    let image = record.artifacts.iter().find(|a| a.kind == "image")?;
    image.references.iter().find_map(|r| r.strip_prefix(IMAGE_RECORD)?.parse().ok())
}

/// Images of builds, for a build that is based on them.
pub(crate) struct Images {
    service: Arc<Service>,
    handle: Handle,
    /// Those that are known here.
    adopted: Mutex<Vec<BuildId>>,
    /// What did not answer when one was asked for.
    away: Arc<OnceLock<Away>>,
}

impl Images {
    /// Returns nothing where there is one machine, whose image store knows all. To be called where
    /// a Tokio runtime is.
    pub(crate) fn of(service: &Arc<Service>) -> Option<Self> {
        service.blobs().remote()?;
        let (service, handle) = (Arc::clone(service), Handle::current());
        let (adopted, away) = (Mutex::default(), Arc::default());
        Some(Self { service, handle, adopted, away })
    }

    /// Returns where it says what did not answer, which is no fault of the build.
    pub(crate) fn away(&self) -> Arc<OnceLock<Away>> {
        Arc::clone(&self.away)
    }
}

impl Adopt for Images {
    fn adopt(&self, owner: TenantId, build: BuildId) -> Result<(), String> {
        let known = || self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&build) {
            return Ok(());
        }
        let found = self.handle.block_on(self.service.store().row(build)).map_err(Error::from);
        let own = found.and_then(|record| match record.submission.tenant == owner {
            true => self.service.local_image(&record),
            false => Err(Error::not_found("build", build)),
        });
        match own {
            Ok(_) => {
                known().push(build);
                Ok(())
            }
            Err(error) => {
                if let Error::Away(what) = error {
                    let _ = self.away.set(what);
                }
                tracing::warn!(%build, error = error.internal_text(), "an image cannot be had");
                Err(error.public())
            }
        }
    }
}
