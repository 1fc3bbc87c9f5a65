//! What an image is to the rest of Ashlar: its config and its layers, wherever those are.

use ashlar_core::image::ImageConfig;
use ashlar_core::{Digest, Hasher, Platform, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::manifest::Descriptor;
use crate::reference::{Reference, Repository};

/// One layer of an image, in whichever forms it exists.
///
/// A layer of a pulled image has a blob, perhaps still at its registry. A layer of an image that
/// was built here has a tree in the snapshot store, and a blob only once somebody exported it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LayerRef {
    /// Digest of the tree in the snapshot store, when the layer is unpacked there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Digest>,
    /// Digest of the uncompressed archive, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// The archive, compressed or not, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Descriptor>,
}

/// Where a local image came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// It was built here.
    Built,
    /// It was imported from a file or directory.
    Imported,
    /// It was pulled by `images pull`; its name is asked for again at its registry.
    Pulled,
}

/// An image of one platform in the local image store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalImage {
    /// Names that point to it. Kept by the store: what is written here when adding is ignored.
    #[serde(skip)]
    pub names: Vec<Reference>,
    /// Its platform.
    pub platform: Platform,
    /// Its config document; `rootfs.diff_ids` may lack until its layers are archives.
    pub config: Value,
    /// Digest of the config's blob, when it came as one; those bytes count then, not [`config`].
    ///
    /// [`config`]: LocalImage::config
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<Digest>,
    /// Its layers, bottom first.
    pub layers: Vec<LayerRef>,
    /// Its manifest, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Descriptor>,
    /// Where it came from.
    pub origin: Origin,
    /// Where layers without a tree and without a stored blob can be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// When the record was made.
    pub created: Timestamp,
}

/// An image that a reference and a platform led to. Its layers may not be here yet.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedImage {
    /// What was asked for.
    pub reference: Reference,
    /// The image's platform.
    pub platform: Platform,
    /// The index that the reference led to, if it was one.
    pub index: Option<Digest>,
    /// The manifest; none for a local image that was never exported.
    pub manifest: Option<Digest>,
    /// The config document, byte by byte as it was pushed.
    pub config: Vec<u8>,
    /// The layers, bottom first.
    pub layers: Vec<LayerRef>,
    /// Where missing layers can be fetched; none when nothing may be fetched.
    pub repository: Option<Repository>,
    /// Why an image of an earlier pull was taken instead of asking the registry, when it was.
    pub stale: Option<String>,
}

impl ResolvedImage {
    /// Returns a digest that stands for the image's content in cache keys.
    ///
    /// It is the manifest's. An image without one is named by its config and layers.
    pub fn id(&self) -> Digest {
        self.manifest.unwrap_or_else(|| {
            let mut hasher = Hasher::new();
            hasher.field("image without manifest").field(&self.config);
            for layer in &self.layers {
                let id = layer.tree.or(layer.diff_id).or(layer.blob.as_ref().map(|b| b.digest));
                hasher.field(id.map_or_else(Vec::new, |d| d.as_bytes().to_vec()));
            }
            hasher.finish()
        })
    }

    /// Returns the config as a type.
    ///
    /// # Errors
    /// When a known field has another type than it should.
    pub fn image_config(&self) -> Result<ImageConfig, serde_json::Error> {
        serde_json::from_slice(&self.config)
    }
}
