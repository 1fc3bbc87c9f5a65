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

mod error;
mod joined;
mod private;
mod resolve;
mod tags;

use std::sync::Arc;
use std::time::Instant;

use ashlar_blobs::{BlobInfo, BlobStore};
use ashlar_core::{Digest, Platform};

pub use error::PullError;
use joined::Joined;
pub use private::{Marks, Reader, Readership};
use resolve::Resolve;
pub(crate) use resolve::join_layers;
pub use tags::PulledTag;

use crate::files;
use crate::image::{LocalImage, Origin, ResolvedImage};
use crate::manifest::{CONFIG_BYTES_MAX, Descriptor, MANIFEST_BYTES_MAX};
use crate::reference::Reference;
use crate::registry::{FetchedManifest, PARALLEL_BLOBS, Registry};
use crate::store::ImageStore;
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
    /// Whose view it is; all is seen when absent.
    viewer: Option<Arc<private::Viewer>>,
    /// Marks that other machines know; files of the image store when absent.
    marks: Option<Arc<dyn Marks>>,
    /// What tags lead to, being asked right now.
    questions: Arc<Joined<Reference, Digest>>,
    /// What registries said since then is new enough, a few seconds long; only what they say from
    /// now on when absent.
    since: Option<Instant>,
}

type Result<T, E = PullError> = std::result::Result<T, E>;

impl Images {
    /// Joins the parts.
    pub fn new(blobs: BlobStore, store: ImageStore, registry: Registry) -> Self {
        let (marks, questions) = (None, Arc::default());
        Self { blobs, store, registry, viewer: None, marks, questions, since: None }
    }

    /// Returns the same images for whoever wants to know what tags lead to at some time since then:
    /// a question that was asked a few seconds ago need not be asked again when that was after it.
    #[must_use]
    pub fn since(self, since: Instant) -> Self {
        Self { since: Some(since), ..self }
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
                // What a tag of a private repository leads to is nobody else's business.
                let is_news = earlier.is_none_or(|e| e.digest != digest);
                if is_news && !self.is_private(reference.repository()) {
                    self.note_pulled(reference, digest)?;
                }
                Ok(image)
            }
            (Err(error), Some(earlier))
                if policy == PullPolicy::Default && error.is_unreachable() =>
            {
                let offline = Resolve { may_fetch: false, ..resolve };
                // When the earlier image is not whole any more, the first error says more.
                let Ok(mut image) = offline.at(earlier.digest) else { return Err(error) };
                image.repository = Some(reference.repository().clone());
                image.stale = Some(format!("{error}; using what was pulled {}", earlier.since));
                Ok(image)
            }
            (Err(error), _) => Err(error),
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
        let found = image.layers.get(layer).ok_or_else(missing)?;
        let blob = found.blob.as_ref().ok_or_else(missing)?;
        if let Some(repository) = &image.repository {
            // The snapshot store names the layer by its diff id.
            if let Some(diff_id) = found.diff_id
                && !self.may_take(&blob.digest)?
            {
                self.reserve(repository, &diff_id)?;
            }
            return self.fetch_readable(repository, blob, transfer);
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
        let config =
            serde_json::from_slice(&image.config).map_err(|e| resolve::not_image(reference, &e))?;
        let manifest = image.manifest.map(|digest| -> Result<Descriptor> {
            let bytes = self.blobs.read(&digest, MANIFEST_BYTES_MAX)?;
            let document = resolve::parse(&bytes, digest)?;
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

    /// Asks what digest a tag has now, together with all who ask it at the same time with no
    /// credentials of their own.
    fn ask_registry(&self, reference: &Reference, transfer: &Transfer<'_>) -> Result<Digest> {
        let ask = || self.ask_registry_alone(reference, transfer);
        match self.is_private(reference.repository()) {
            true => ask(),
            false => {
                let since = self.since.unwrap_or_else(Instant::now);
                self.questions.ask(reference, since, || transfer.is_cancelled(), ask)
            }
        }
    }

    /// Reads the manifest when the registry does not say its digest.
    fn ask_registry_alone(&self, reference: &Reference, transfer: &Transfer<'_>) -> Result<Digest> {
        if let Some(digest) = self.registry.head_manifest(reference, transfer)? {
            return Ok(digest);
        }
        let fetched = self.registry.manifest(reference, transfer)?;
        self.keep_manifest(reference, &fetched)?;
        Ok(fetched.descriptor.digest)
    }

    fn keep_manifest(&self, reference: &Reference, fetched: &FetchedManifest) -> Result<()> {
        let digest = fetched.descriptor.digest;
        let new = !self.blobs.has_here(&digest)?;
        self.note_received(reference.repository(), &digest, new)?;
        self.blobs.put_bytes(&fetched.bytes)?;
        Ok(())
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
