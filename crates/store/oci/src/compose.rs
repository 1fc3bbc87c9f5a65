//! Makes an image out of a config and layers that are blobs already.

use std::collections::BTreeMap;

use ashlar_blobs::{BlobError, BlobStore};
use ashlar_core::{Digest, Platform, Timestamp};
use serde_json::{Map, Value, json};

use crate::manifest::{Descriptor, Index, LAYERS_MAX, Manifest};
use crate::media_type::{self as mt, Compression};

/// A layer that is a blob, and the digest of its uncompressed archive.
#[derive(Debug, Clone, PartialEq)]
pub struct NewLayer {
    /// The blob.
    pub blob: Descriptor,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
}

/// A manifest and a config that are in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Composed {
    /// The manifest, with the platform of its config.
    pub manifest: Descriptor,
    /// The config.
    pub config: Descriptor,
}

/// An image can not be made.
#[derive(Debug, thiserror::Error)]
pub enum ComposeError {
    /// The config is not a JSON object.
    #[error("the image config is not a JSON object")]
    Config,
    /// Readers pair layers with history, so the numbers must agree.
    #[error("the history tells of {history} layers, but there are {layers}")]
    History {
        /// Entries that made a layer.
        history: usize,
        /// Layers.
        layers: usize,
    },
    /// There are too many layers.
    #[error("the image has {0} layers, more than the {LAYERS_MAX} allowed")]
    TooMany(usize),
    /// The blob store failed.
    #[error("the local blob store failed")]
    Blob(#[from] BlobError),
}

/// Writes `config` (with the layers' diff ids) and a manifest to the store.
///
/// # Errors
/// See [`ComposeError`].
pub fn compose(
    blobs: &BlobStore,
    mut config: Value,
    layers: &[NewLayer],
    annotations: Option<BTreeMap<String, String>>,
) -> Result<Composed, ComposeError> {
    if layers.len() > LAYERS_MAX {
        return Err(ComposeError::TooMany(layers.len()));
    }
    let object = config.as_object_mut().ok_or(ComposeError::Config)?;
    check_history(object, layers.len())?;
    let diff_ids: Vec<_> = layers.iter().map(|l| l.diff_id.to_string()).collect();
    object.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": diff_ids }));
    let platform = platform_of(object);
    let config = put_json(blobs, &config, mt::OCI_CONFIG)?;
    let mut manifest = put_manifest(blobs, config.clone(), layers, annotations)?;
    manifest.platform = platform;
    Ok(Composed { manifest, config })
}

/// Writes a manifest for a config that is in the store as it has to be.
pub(crate) fn put_manifest(
    blobs: &BlobStore,
    config: Descriptor,
    layers: &[NewLayer],
    annotations: Option<BTreeMap<String, String>>,
) -> Result<Descriptor, ComposeError> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(mt::OCI_MANIFEST.to_owned()),
        config,
        layers: layers.iter().map(|l| oci_layer(&l.blob)).collect(),
        annotations,
        other: Map::new(),
    };
    put_json(blobs, &manifest, mt::OCI_MANIFEST)
}

/// Writes an index of manifests, which must have their platforms set.
///
/// # Errors
/// When the blob store fails.
pub fn compose_index(
    blobs: &BlobStore,
    manifests: Vec<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
) -> Result<Descriptor, ComposeError> {
    let index = Index {
        schema_version: 2,
        media_type: Some(mt::OCI_INDEX.to_owned()),
        manifests,
        annotations,
        other: Map::new(),
    };
    put_json(blobs, &index, mt::OCI_INDEX)
}

/// Returns the config of an image that is one imported root file system.
pub fn imported_config(platform: &Platform, created: Timestamp, comment: &str) -> Value {
    let mut config = json!({
        "created": created.rfc3339(),
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["/bin/sh"],
        },
        "history": [{ "created": created.rfc3339(), "comment": comment }],
    });
    if let Some(variant) = &platform.variant {
        config["variant"] = json!(variant);
    }
    config
}

fn check_history(config: &Map<String, Value>, layers: usize) -> Result<(), ComposeError> {
    let Some(entries) = config.get("history").and_then(Value::as_array) else { return Ok(()) };
    let is_empty = |e: &&Value| e.get("empty_layer").and_then(Value::as_bool).unwrap_or(false);
    let history = entries.len() - entries.iter().filter(is_empty).count();
    if history == layers { Ok(()) } else { Err(ComposeError::History { history, layers }) }
}

fn platform_of(config: &Map<String, Value>) -> Option<Platform> {
    let text = |name: &str| config.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    let (os, architecture) = (text("os")?.to_owned(), text("architecture")?.to_owned());
    Some(Platform { os, architecture, variant: text("variant").map(str::to_owned) })
}

/// An OCI manifest names OCI types, also for layers that came from a Docker manifest.
fn oci_layer(blob: &Descriptor) -> Descriptor {
    let mut blob = blob.clone();
    if !blob.media_type.starts_with("application/vnd.oci.")
        && let Some(compression) = Compression::of_media_type(&blob.media_type)
    {
        compression.oci_layer().clone_into(&mut blob.media_type);
    }
    blob
}

fn put_json<T: serde::Serialize>(
    blobs: &BlobStore,
    value: &T,
    media_type: &str,
) -> Result<Descriptor, ComposeError> {
    // Maps of these types have text keys only, which is all that could fail.
    let bytes = serde_json::to_vec(value).map_err(|_| ComposeError::Config)?;
    let info = blobs.put_bytes(&bytes)?;
    Ok(Descriptor::new(media_type, info.digest, info.size))
}
