//! From the digest of a manifest or index to an image.

use ashlar_blobs::BlobError;
use ashlar_core::image::ImageConfig;
use ashlar_core::{Digest, Platform};

use super::{INDEX_DEPTH_MAX, Images, PullError, Result};
use crate::image::{LayerRef, ResolvedImage};
use crate::manifest::{CONFIG_BYTES_MAX, Descriptor, Document, MANIFEST_BYTES_MAX, Manifest};
use crate::media_type as mt;
use crate::platform;
use crate::reference::{Reference, Repository};
use crate::registry::RegistryError;
use crate::transfer::Transfer;

/// One resolution: what is asked for and how.
pub(super) struct Resolve<'a> {
    pub(super) images: &'a Images,
    pub(super) reference: &'a Reference,
    pub(super) platform: &'a Platform,
    pub(super) transfer: &'a Transfer<'a>,
    pub(super) may_fetch: bool,
}

impl Resolve<'_> {
    /// Reads the manifest or index `digest` and what it leads to.
    pub(super) fn at(&self, digest: Digest) -> Result<ResolvedImage> {
        let (mut digest, mut index) = (digest, None);
        for _ in 0..=INDEX_DEPTH_MAX {
            match self.document(digest)? {
                Document::Manifest(manifest) => return self.image(digest, index, &manifest),
                Document::Index(list) => {
                    let fitting = platform::select(&list, self.platform);
                    let next = fitting.ok_or_else(|| PullError::NoPlatform {
                        reference: Box::new(self.reference.clone()),
                        wanted: self.platform.clone(),
                        offered: platform::offered(&list),
                    })?;
                    index.get_or_insert(digest);
                    digest = next.digest;
                }
            }
        }
        Err(RegistryError::Nested(INDEX_DEPTH_MAX).into())
    }

    fn document(&self, digest: Digest) -> Result<Document> {
        if self.images.may_take(&digest)? {
            match self.images.blobs.read(&digest, MANIFEST_BYTES_MAX) {
                Ok(bytes) => return parse(&bytes, digest),
                Err(BlobError::Missing(_) | BlobError::Corrupt { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !self.may_fetch {
            return Err(PullError::NotLocal { reference: Box::new(self.reference.clone()) });
        }
        let pinned = self.reference.clone().pinned(digest);
        let fetched = self.images.registry.manifest(&pinned, self.transfer)?;
        self.images.keep_manifest(self.reference, &fetched)?;
        Ok(fetched.document)
    }

    fn image(
        &self,
        digest: Digest,
        index: Option<Digest>,
        manifest: &Manifest,
    ) -> Result<ResolvedImage> {
        let config = self.config(&manifest.config)?;
        let parsed: ImageConfig =
            serde_json::from_slice(&config).map_err(|e| not_image(self.reference, &e))?;
        let layers = join_layers(manifest, &parsed).map_err(|reason| PullError::NotImage {
            reference: Box::new(self.reference.clone()),
            reason,
        })?;
        let (os, architecture) = (parsed.os.clone(), parsed.architecture.clone());
        let found = Platform { os, architecture, variant: parsed.variant }.normalised();
        let is_said = !parsed.os.is_empty() && !parsed.architecture.is_empty();
        Ok(ResolvedImage {
            reference: self.reference.clone(),
            platform: if is_said { found } else { self.platform.clone() },
            index,
            manifest: Some(digest),
            config,
            layers,
            repository: self.may_fetch.then(|| self.repository()),
            stale: None,
        })
    }

    fn config(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        let not_image =
            |reason| PullError::NotImage { reference: Box::new(self.reference.clone()), reason };
        if !mt::is_config(&blob.media_type) {
            let shown: String = blob.media_type.chars().take(100).collect();
            return Err(not_image(format!("its config is of type '{shown}'")));
        }
        if blob.size > CONFIG_BYTES_MAX {
            return Err(not_image(format!("its config has {} bytes", blob.size)));
        }
        let blobs = &self.images.blobs;
        if self.may_fetch {
            let quiet = self.transfer.without_progress();
            self.images.fetch_readable(&self.repository(), blob, &quiet)?;
        } else if !self.images.may_take(&blob.digest)? {
            return Err(PullError::NotLocal { reference: Box::new(self.reference.clone()) });
        }
        Ok(blobs.read(&blob.digest, CONFIG_BYTES_MAX)?)
    }

    fn repository(&self) -> Repository {
        self.reference.repository().clone()
    }
}

/// Puts the manifest's layers and the config's diff ids together.
///
/// # Errors
/// A text when there are more of one than of the other.
pub(crate) fn join_layers(
    manifest: &Manifest,
    config: &ImageConfig,
) -> Result<Vec<LayerRef>, String> {
    let (layers, ids) = (&manifest.layers, &config.rootfs.diff_ids);
    if layers.len() != ids.len() {
        let (layers, ids) = (layers.len(), ids.len());
        return Err(format!("its manifest has {layers} layers and its config {ids} diff ids"));
    }
    let join = |(blob, id): (&Descriptor, &Digest)| LayerRef {
        tree: None,
        diff_id: Some(*id),
        blob: Some(blob.clone()),
    };
    Ok(layers.iter().zip(ids).map(join).collect())
}

pub(super) fn parse(bytes: &[u8], digest: Digest) -> Result<Document> {
    Document::parse(bytes, None).map_err(|source| PullError::Manifest { digest, source })
}

pub(super) fn not_image(reference: &Reference, error: &serde_json::Error) -> PullError {
    let reason = format!("its config is not valid: {error}");
    PullError::NotImage { reference: Box::new(reference.clone()), reason }
}
