//! Reads `manifest.json` of a docker archive, of any version of Docker since 1.10.

use ashlar_blobs::BlobStore;
use ashlar_core::image::ImageConfig;
use serde::Deserialize;

use super::archive::{Member, Members};
use super::{ImportError, Imported, Result, images};
use crate::compose::{self, NewLayer};
use crate::manifest::{CONFIG_BYTES_MAX, Descriptor, INDEX_ENTRIES_MAX, LAYERS_MAX};
use crate::media_type::{self as mt, Compression};
use crate::reference::Reference;

/// Most links that are followed from one name: docker writes one.
const LINKS_MAX: usize = 8;
const NAME: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

pub(super) fn read_manifest(
    bytes: &[u8],
    members: &Members,
    blobs: &BlobStore,
) -> Result<Vec<Imported>> {
    let json = |source| ImportError::Json { name: NAME.into(), source };
    let list: Vec<Image> = serde_json::from_slice(bytes).map_err(json)?;
    if list.len() > INDEX_ENTRIES_MAX {
        return Err(ImportError::Limit { what: format!("a {NAME} of {} images", list.len()) });
    }
    if list.is_empty() {
        return Err(ImportError::Missing { from: NAME.into(), what: "an image".into() });
    }
    list.iter().map(|image| read_image(image, members, blobs)).collect()
}

fn read_image(image: &Image, members: &Members, blobs: &BlobStore) -> Result<Imported> {
    let config = members.find(&image.config)?;
    let bytes = blobs.read(&config.blob.digest, CONFIG_BYTES_MAX)?;
    let json = |source| ImportError::Json { name: format!("config '{}'", image.config), source };
    let parsed: ImageConfig = serde_json::from_slice(&bytes).map_err(json)?;
    let paths = image.layers.as_deref().unwrap_or_default();
    let ids = &parsed.rootfs.diff_ids;
    let wrong = |reason| Err(ImportError::Wrong { what: NAME.to_owned(), reason });
    if paths.len() != ids.len() || paths.len() > LAYERS_MAX {
        return wrong(format!("it names {} layers, its config {}", paths.len(), ids.len()));
    }
    let mut layers = Vec::new();
    for (path, diff_id) in paths.iter().zip(ids) {
        let Member { blob, compression } = members.find(path)?;
        if *compression == Compression::None && blob.digest != *diff_id {
            return wrong(format!("layer '{path}' has digest {}, not {diff_id}", blob.digest));
        }
        layers.push(NewLayer { blob: blob.clone(), diff_id: *diff_id });
    }
    // The config stays as it is, byte by byte: its digest is Docker's id of the image.
    let config = Descriptor::new(mt::OCI_CONFIG, config.blob.digest, config.blob.size);
    let root = compose::put_manifest(blobs, config, &layers, None)?;
    let names = image.repo_tags.as_deref().unwrap_or_default();
    let names = names.iter().filter_map(|n| n.parse::<Reference>().ok()).collect();
    let images = images::images_of(&root, blobs)?;
    Ok(Imported { root, names, images })
}

impl Members {
    /// Finds a file by its path, through links of the archive.
    fn find(&self, path: &str) -> Result<&Member> {
        let mut at = path.trim_start_matches("./");
        for _ in 0..=LINKS_MAX {
            if let Some(member) = self.files.get(at) {
                return Ok(member);
            }
            let Some(next) = self.links.get(at) else { break };
            at = next;
        }
        let what = format!("'{}'", path.chars().take(200).collect::<String>());
        Err(ImportError::Missing { from: NAME.into(), what })
    }
}
