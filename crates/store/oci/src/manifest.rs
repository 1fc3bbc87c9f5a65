//! Manifests, indexes and descriptors, as OCI and Docker write them.
//!
//! Source: OCI image spec 1.1 (manifest.md, image-index.md, descriptor.md) and Docker's image
//! manifest version 2, schema 2. Documents are kept as the bytes that came, since their digest is
//! their name; these types are for reading them and for writing new ones.

use std::collections::BTreeMap;

use ashlar_core::{Digest, Platform};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::media_type as mt;

/// Largest manifest or index that is read, in bytes (the distribution spec asks for this much).
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Largest image config that is read, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Most layers of an image; overlayfs and every runtime refuse far fewer.
pub const LAYERS_MAX: usize = 1024;
/// Most entries of an index.
pub const INDEX_ENTRIES_MAX: usize = 4096;

/// Names a blob: its type, digest and size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the bytes.
    #[serde(default)]
    pub media_type: String,
    /// Digest of the bytes.
    pub digest: Digest,
    /// Number of bytes.
    pub size: u64,
    /// Platform of an image in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free names and values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Fields that this program does not know, kept as they came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The manifest of an image of one platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image's config.
    pub config: Descriptor,
    /// The layers, bottom first. BuildKit writes null when there are none.
    #[serde(default, deserialize_with = "or_empty")]
    pub layers: Vec<Descriptor>,
    /// Free names and values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Fields that this program does not know, kept as they came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn or_empty<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Vec<Descriptor>, D::Error> {
    Option::deserialize(input).map(Option::unwrap_or_default)
}

/// A list of manifests, one a platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Media type of this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// Free names and values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Fields that this program does not know, kept as they came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a manifest's digest can name.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// An image of one platform.
    Manifest(Box<Manifest>),
    /// Images of several platforms.
    Index(Index),
}

/// Bytes are not a manifest that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not JSON of the right shape.
    #[error("the manifest is not valid JSON of its type")]
    Json(#[from] serde_json::Error),
    /// The type is none that holds an image.
    #[error("'{0}' is not a type of manifest that holds a container image")]
    MediaType(String),
    /// Docker's old format, which names no config.
    #[error("the manifest is of Docker's schema 1, which is not supported; push the image anew")]
    Schema1,
    /// The document could be read in two ways (CVE-2021-41190).
    #[error("the manifest has both 'layers' and 'manifests', which is not allowed")]
    Ambiguous,
    /// There are too many entries.
    #[error("the manifest has {count} entries, more than the {limit} allowed")]
    TooMany {
        /// How many there are.
        count: usize,
        /// How many may be.
        limit: usize,
    },
}

impl Descriptor {
    /// Describes bytes.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            platform: None,
            annotations: None,
            other: Map::new(),
        }
    }

    /// Sets the platform.
    #[must_use]
    pub fn with_platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// Adds an annotation.
    #[must_use]
    pub fn with_annotation(mut self, name: &str, value: impl Into<String>) -> Self {
        self.annotations.get_or_insert_default().insert(name.to_owned(), value.into());
        self
    }

    /// Returns the value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

/// The fields that tell the kinds of documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a document. Its own `mediaType` counts more than `content_type`, which registries and
    /// proxies get wrong.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, ManifestError> {
        let shape: Shape = serde_json::from_slice(bytes)?;
        if shape.schema_version == 1 {
            return Err(ManifestError::Schema1);
        }
        if shape.manifests.is_some() && (shape.layers.is_some() || shape.config.is_some()) {
            return Err(ManifestError::Ambiguous);
        }
        let is_generic = |t: &&str| !t.is_empty() && *t != "application/json";
        let declared = shape.media_type.as_deref().or(content_type).filter(is_generic);
        let is_index = match declared {
            Some(t) if mt::is_index(t) => true,
            Some(t) if mt::is_manifest(t) => false,
            Some(t) if shape.media_type.is_some() || !mt::is_sloppy(t) => {
                return Err(ManifestError::MediaType(t.chars().take(100).collect()));
            }
            _ => shape.manifests.is_some(),
        };
        if is_index { Self::parse_index(bytes) } else { Self::parse_manifest(bytes) }
    }

    fn parse_index(bytes: &[u8]) -> Result<Self, ManifestError> {
        let index: Index = serde_json::from_slice(bytes)?;
        let count = index.manifests.len();
        if count > INDEX_ENTRIES_MAX {
            return Err(ManifestError::TooMany { count, limit: INDEX_ENTRIES_MAX });
        }
        Ok(Self::Index(index))
    }

    fn parse_manifest(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Manifest = serde_json::from_slice(bytes)?;
        let count = manifest.layers.len();
        if count > LAYERS_MAX {
            return Err(ManifestError::TooMany { count, limit: LAYERS_MAX });
        }
        Ok(Self::Manifest(Box::new(manifest)))
    }

    /// Returns the media type that the document says, or OCI's for its kind.
    pub fn media_type(&self) -> &str {
        match self {
            Self::Manifest(m) => m.media_type.as_deref().unwrap_or(mt::OCI_MANIFEST),
            Self::Index(i) => i.media_type.as_deref().unwrap_or(mt::OCI_INDEX),
        }
    }
}
