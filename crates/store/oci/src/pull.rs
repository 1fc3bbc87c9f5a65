//! From a reference to an image, lazily: manifest and config at once, layers when somebody asks.
//!
//! # Where an image comes from
//! A reference with a digest never needs the network once its manifest and config are here.
//! For a tag the policy decides:
//!
//! | policy | local image of that name | registry | earlier pull of that tag |
//! |---|---|---|---|
//! | [`PullPolicy::Default`] | taken when it was built or imported here | asked each time, as BuildKit does | taken when no endpoint can be reached, and [`ResolvedImage::stale`] says why |
//! | [`PullPolicy::Pull`] | passed over | asked each time | passed over |
//! | [`PullPolicy::Local`] | taken, pulled ones too | never asked | taken |

use std::path::PathBuf;

use ashlar_blobs::{BlobError, BlobInfo, BlobStore};
use ashlar_core::image::ImageConfig;
use ashlar_core::{Digest, Platform, Timestamp};
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};
use crate::image::{LayerRef, LocalImage, Origin, ResolvedImage};
use crate::manifest::{
    CONFIG_BYTES_MAX, Descriptor, Document, MANIFEST_BYTES_MAX, Manifest, ManifestError,
};
use crate::media_type as mt;
use crate::platform;
use crate::reference::{Reference, Repository};
use crate::registry::{PARALLEL_BLOBS, Registry, RegistryError};
use crate::store::{ImageStore, ImageStoreError};
use crate::transfer::Transfer;

/// Deepest nesting of indexes that is followed.
pub const INDEX_DEPTH_MAX: usize = 4;

/// Whether the registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Local images first, then the registry, then an earlier pull.
    #[default]
    Default,
    /// Always the registry.
    Pull,
    /// Never the registry.
    Local,
}

/// The images of a data directory and the registries to pull more from. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    blobs: BlobStore,
    store: ImageStore,
    registry: Registry,
}

/// What a tag led to when it was last asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PulledTag {
    /// The reference.
    pub reference: Reference,
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// When the registry first said so.
    pub since: Timestamp,
}

/// An image can not be had.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry could not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The image exists, but not for this platform.
    #[error("{reference} has no image for {wanted}; it offers {}", list(offered))]
    NoPlatform {
        /// What was asked for.
        reference: Box<Reference>,
        /// The platform that was asked for.
        wanted: Platform,
        /// What the index has.
        offered: Vec<Platform>,
    },
    /// The policy forbids the network and the image is not here.
    #[error("{reference} is not here and the pull policy forbids to ask its registry")]
    NotLocal {
        /// What was asked for.
        reference: Box<Reference>,
    },
    /// A layer is neither here nor may it be fetched.
    #[error("layer {layer} of {reference} is not here and can not be fetched")]
    NoLayer {
        /// The image.
        reference: Box<Reference>,
        /// Number of the layer, from 0.
        layer: usize,
    },
    /// What was found is something else than a container image.
    #[error("{reference} is not a container image: {reason}")]
    NotImage {
        /// The image.
        reference: Box<Reference>,
        /// Why.
        reason: String,
    },
    /// A manifest in the local store can not be used.
    #[error("manifest {digest} in the local store can not be used")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// Why.
        source: ManifestError,
    },
    /// The blob store failed.
    #[error("the local blob store failed")]
    Blob(#[from] BlobError),
    /// The image store failed.
    #[error(transparent)]
    Store(#[from] ImageStoreError),
    /// A record could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none".to_owned();
    }
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

type Result<T, E = PullError> = std::result::Result<T, E>;

/// One resolution: what is asked for and how.
struct Resolve<'a> {
    images: &'a Images,
    reference: &'a Reference,
    platform: &'a Platform,
    transfer: &'a Transfer<'a>,
    may_fetch: bool,
}

impl PullError {
    /// Returns what a user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::NoPlatform { .. } => Some("choose one of these with --platform"),
            Self::NotLocal { .. } | Self::NoLayer { .. } => {
                Some("run `ashlar images pull` or `ashlar images import` first")
            }
            _ => None,
        }
    }
}

impl Images {
    /// Joins the parts.
    pub fn new(blobs: BlobStore, store: ImageStore, registry: Registry) -> Self {
        Self { blobs, store, registry }
    }

    /// Returns the blob store.
    pub fn blobs(&self) -> &BlobStore {
        &self.blobs
    }

    /// Returns the local images.
    pub fn store(&self) -> &ImageStore {
        &self.store
    }

    /// Returns the registry client.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Finds the image that `reference` names for `platform`. Reads manifest and config; layers
    /// stay where they are until [`fetch_layer`](Self::fetch_layer).
    ///
    /// A single manifest with no index is taken whatever its platform: compare
    /// [`ResolvedImage::platform`].
    ///
    /// # Errors
    /// See [`PullError`].
    pub fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        policy: PullPolicy,
        transfer: &Transfer<'_>,
    ) -> Result<ResolvedImage> {
        if policy != PullPolicy::Pull
            && let Some((_, image)) = self.store.find(reference, platform)?
            && (policy == PullPolicy::Local || image.origin != Origin::Pulled)
        {
            return self.resolve_local(reference, image, policy);
        }
        let may_fetch = policy != PullPolicy::Local;
        let resolve = Resolve { images: self, reference, platform, transfer, may_fetch };
        if let Some(digest) = reference.digest() {
            return resolve.at(digest);
        }
        let earlier = self.pulled(reference)?;
        let not_local = || PullError::NotLocal { reference: Box::new(reference.clone()) };
        if !may_fetch {
            return resolve.at(earlier.ok_or_else(not_local)?.digest);
        }
        match (self.ask_registry(reference, transfer), earlier) {
            (Ok(digest), earlier) => {
                let image = resolve.at(digest)?;
                if earlier.is_none_or(|e| e.digest != digest) {
                    self.note_pulled(reference, digest)?;
                }
                Ok(image)
            }
            (Err(error), Some(earlier))
                if policy == PullPolicy::Default && error.is_unreachable() =>
            {
                let offline = Resolve { may_fetch: false, ..resolve };
                // When the earlier image is not whole any more, the first error says more.
                let Ok(mut image) = offline.at(earlier.digest) else { return Err(error.into()) };
                image.repository = Some(reference.repository().clone());
                image.stale = Some(format!("{error}; using what was pulled {}", earlier.since));
                Ok(image)
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Fetches one layer into the blob store, unless it is there.
    ///
    /// # Errors
    /// See [`PullError`].
    pub fn fetch_layer(
        &self,
        image: &ResolvedImage,
        layer: usize,
        transfer: &Transfer<'_>,
    ) -> Result<BlobInfo> {
        let reference = || Box::new(image.reference.clone());
        let missing = || PullError::NoLayer { reference: reference(), layer };
        let blob = image.layers.get(layer).and_then(|l| l.blob.as_ref()).ok_or_else(missing)?;
        if let Some(repository) = &image.repository {
            return Ok(self.registry.fetch_blob(repository, blob, &self.blobs, transfer)?);
        }
        if !self.blobs.has(&blob.digest)? {
            return Err(missing());
        }
        Ok(self.blobs.stat(&blob.digest)?)
    }

    /// Fetches several layers, a few at a time.
    ///
    /// # Errors
    /// The first failure, which stops the others.
    pub fn fetch_layers(
        &self,
        image: &ResolvedImage,
        layers: &[usize],
        transfer: &Transfer<'_>,
    ) -> Result<()> {
        transfer.parallel(PARALLEL_BLOBS, layers, |layer, transfer| {
            self.fetch_layer(image, *layer, transfer).map(drop)
        })
    }

    /// Pulls an image with all its layers and gives it its name among the local images. Returns
    /// it and its id.
    ///
    /// # Errors
    /// See [`PullError`].
    pub fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        transfer: &Transfer<'_>,
    ) -> Result<(Digest, ResolvedImage)> {
        let image = self.resolve(reference, platform, PullPolicy::Pull, transfer)?;
        let all: Vec<usize> = (0..image.layers.len()).collect();
        self.fetch_layers(&image, &all, transfer)?;
        let config = serde_json::from_slice(&image.config).map_err(|e| not_image(reference, &e))?;
        let manifest = image.manifest.map(|digest| -> Result<Descriptor> {
            let bytes = self.blobs.read(&digest, MANIFEST_BYTES_MAX)?;
            let document = parse(&bytes, digest)?;
            Ok(Descriptor::new(document.media_type(), digest, bytes.len() as u64))
        });
        let local = LocalImage {
            names: Vec::new(),
            platform: image.platform.clone(),
            config,
            config_digest: Some(Digest::of(&image.config)),
            layers: image.layers.clone(),
            manifest: manifest.transpose()?,
            origin: Origin::Pulled,
            repository: image.repository.clone(),
            created: files::now(),
        };
        self.blobs.sync()?;
        // The index is not named: it lists images that are not here.
        let ids = self.store.add(&[local], std::slice::from_ref(reference), None)?;
        Ok((ids[0], image))
    }

    /// Returns what a tag led to when it was last resolved.
    ///
    /// # Errors
    /// When the record can not be read.
    pub fn pulled(&self, reference: &Reference) -> Result<Option<PulledTag>> {
        Ok(files::read_json(&self.pulled_path(reference))?)
    }

    /// Lists what tags led to when they were last resolved.
    ///
    /// # Errors
    /// When a record can not be read.
    pub fn pulled_tags(&self) -> Result<Vec<PulledTag>> {
        let dir = self.store.pulled_dir();
        let mut tags = Vec::new();
        for name in files::list(&dir)?.iter().filter(|n| n.ends_with(".json")) {
            tags.extend(files::read_json(&dir.join(name))?);
        }
        Ok(tags)
    }

    /// Forgets what a tag led to, so that garbage collection may take its blobs.
    ///
    /// # Errors
    /// When the record can not be removed.
    pub fn forget_pulled(&self, reference: &Reference) -> Result<()> {
        Ok(files::remove(&self.pulled_path(reference))?)
    }

    fn pulled_path(&self, reference: &Reference) -> PathBuf {
        let hash = Digest::of(reference.to_string());
        self.store.pulled_dir().join(format!("{}.json", hash.hex()))
    }

    fn note_pulled(&self, reference: &Reference, digest: Digest) -> Result<()> {
        let tag = PulledTag { reference: reference.clone(), digest, since: files::now() };
        Ok(files::write_json(&self.pulled_path(reference), &tag)?)
    }

    /// Asks what digest a tag has now; reads the manifest when the registry does not say.
    fn ask_registry(
        &self,
        reference: &Reference,
        transfer: &Transfer<'_>,
    ) -> Result<Digest, RegistryError> {
        if let Some(digest) = self.registry.head_manifest(reference, transfer)? {
            return Ok(digest);
        }
        let fetched = self.registry.manifest(reference, transfer)?;
        Ok(self.blobs.put_bytes(&fetched.bytes)?.digest)
    }

    fn resolve_local(
        &self,
        reference: &Reference,
        image: LocalImage,
        policy: PullPolicy,
    ) -> Result<ResolvedImage> {
        let config = match image.config_digest {
            Some(digest) => self.blobs.read(&digest, CONFIG_BYTES_MAX)?,
            None => image.config.to_string().into_bytes(),
        };
        Ok(ResolvedImage {
            reference: reference.clone(),
            platform: image.platform,
            index: None,
            manifest: image.manifest.map(|m| m.digest),
            config,
            layers: image.layers,
            repository: image.repository.filter(|_| policy != PullPolicy::Local),
            stale: None,
        })
    }
}

impl Resolve<'_> {
    /// Reads the manifest or index `digest` and what it leads to.
    fn at(&self, digest: Digest) -> Result<ResolvedImage> {
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
        let blobs = &self.images.blobs;
        match blobs.read(&digest, MANIFEST_BYTES_MAX) {
            Ok(bytes) => return parse(&bytes, digest),
            Err(BlobError::Missing(_) | BlobError::Corrupt { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if !self.may_fetch {
            return Err(PullError::NotLocal { reference: Box::new(self.reference.clone()) });
        }
        let pinned = self.reference.clone().pinned(digest);
        let fetched = self.images.registry.manifest(&pinned, self.transfer)?;
        blobs.put_bytes(&fetched.bytes)?;
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
            self.images.registry.fetch_blob(&self.repository(), blob, blobs, &quiet)?;
        } else if !blobs.has(&blob.digest)? {
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

fn parse(bytes: &[u8], digest: Digest) -> Result<Document> {
    Document::parse(bytes, None).map_err(|source| PullError::Manifest { digest, source })
}

fn not_image(reference: &Reference, error: &serde_json::Error) -> PullError {
    let reason = format!("its config is not valid: {error}");
    PullError::NotImage { reference: Box::new(reference.clone()), reason }
}
