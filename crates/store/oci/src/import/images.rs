//! From an index document to images, once all blobs are in the store.

use ashlar_blobs::{BlobError, BlobStore};
use ashlar_core::Platform;
use ashlar_core::image::ImageConfig;

use super::{ImportError, Imported, Result};
use crate::export::{IMAGE_NAME, REF_NAME};
use crate::files;
use crate::image::{LocalImage, Origin};
use crate::manifest::{CONFIG_BYTES_MAX, Descriptor, Document, Index, Manifest};
use crate::pull::join_layers;
use crate::reference::Reference;
use crate::walk::{self, Absent, Node};

/// Reads the entries of an `index.json`.
pub(super) fn read_index(bytes: &[u8], blobs: &BlobStore) -> Result<Vec<Imported>> {
    let name = || "index.json".to_owned();
    let json = |source| ImportError::Json { name: name(), source };
    let index: Index = serde_json::from_slice(bytes).map_err(json)?;
    let count = index.manifests.len();
    if count > crate::manifest::INDEX_ENTRIES_MAX {
        return Err(ImportError::Limit { what: format!("an index.json with {count} entries") });
    }
    let mut imported: Vec<Imported> = Vec::new();
    for entry in &index.manifests {
        let names = names_of(entry);
        if let Some(known) = imported.iter_mut().find(|i| i.root.digest == entry.digest) {
            known.names.extend(names);
            continue;
        }
        let images = images_of(entry, blobs)?;
        let mut root = entry.clone();
        root.annotations = None;
        imported.push(Imported { root, names, images });
    }
    if imported.iter().all(|i| i.images.is_empty()) {
        return Err(ImportError::Missing { from: name(), what: "an image".into() });
    }
    Ok(imported)
}

/// The whole name wins; a bare tag names nothing by itself.
fn names_of(entry: &Descriptor) -> Vec<Reference> {
    let whole = entry.annotation(IMAGE_NAME);
    let tag = entry.annotation(REF_NAME).filter(|n| n.contains(['/', ':']));
    whole.or(tag).and_then(|n| n.parse().ok()).into_iter().collect()
}

/// Reads the images below a manifest or index that is in the store, one a platform, and checks that
/// all they name is there: the way from a composed manifest to a record of the image store.
///
/// # Errors
/// See [`ImportError`].
pub fn images_of(root: &Descriptor, blobs: &BlobStore) -> Result<Vec<LocalImage>> {
    let nodes = walk::documents(blobs, root, Absent::Skip)?;
    let mut images = Vec::new();
    for node in &nodes {
        check_size(&node.descriptor, node.bytes.len() as u64)?;
        if let Document::Manifest(manifest) = &node.document
            && crate::media_type::is_config(&manifest.config.media_type)
            && node.descriptor.annotation("vnd.docker.reference.type").is_none()
        {
            images.push(image_of(node, manifest, blobs)?);
        }
    }
    Ok(images)
}

/// Checks one manifest and everything that it names.
fn image_of(node: &Node, manifest: &Manifest, blobs: &BlobStore) -> Result<LocalImage> {
    let who = format!("manifest {}", node.descriptor.digest);
    for blob in node.blobs() {
        let missing =
            || ImportError::Missing { from: who.clone(), what: format!("blob {}", blob.digest) };
        match blobs.stat(&blob.digest) {
            Ok(info) => check_size(blob, info.size)?,
            Err(BlobError::Missing(_)) => return Err(missing()),
            Err(error) => return Err(error.into()),
        }
    }
    let bytes = blobs.read(&manifest.config.digest, CONFIG_BYTES_MAX)?;
    let json = |source| ImportError::Json { name: format!("the config of {who}"), source };
    let parsed: ImageConfig = serde_json::from_slice(&bytes).map_err(json)?;
    let layers = join_layers(manifest, &parsed)
        .map_err(|reason| ImportError::Wrong { what: who.clone(), reason })?;
    let (os, architecture) = (parsed.os, parsed.architecture);
    let platform = match &node.descriptor.platform {
        Some(platform) => platform.clone(),
        None if os.is_empty() || architecture.is_empty() => Platform::host(),
        None => Platform { os, architecture, variant: parsed.variant },
    };
    Ok(LocalImage {
        names: Vec::new(),
        platform: platform.normalised(),
        config: serde_json::from_slice(&bytes).map_err(json)?,
        config_digest: Some(manifest.config.digest),
        layers,
        manifest: Some(Descriptor::new(
            node.document.media_type(),
            node.descriptor.digest,
            node.bytes.len() as u64,
        )),
        origin: Origin::Imported,
        repository: None,
        created: files::now(),
    })
}

fn check_size(blob: &Descriptor, actual: u64) -> Result<()> {
    if blob.size == actual {
        return Ok(());
    }
    let reason = format!("it has {actual} bytes, its descriptor says {}", blob.size);
    Err(ImportError::Wrong { what: format!("blob {}", blob.digest), reason })
}
