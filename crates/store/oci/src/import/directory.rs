//! Reads an OCI layout that is a directory.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use ashlar_blobs::BlobStore;
use ashlar_core::Digest;

use super::{ImportError, Imported, Result, Stored, images};
use crate::manifest::MANIFEST_BYTES_MAX;

/// Most blobs of a layout.
const BLOBS_MAX: usize = 65_536;

/// Reads the OCI layout in `dir` into the store.
///
/// # Errors
/// See [`ImportError`].
pub fn read_layout(dir: &Path, blobs: &BlobStore) -> Result<Vec<Imported>> {
    if fs::symlink_metadata(dir.join("oci-layout")).is_err() {
        return Err(ImportError::NotImage);
    }
    let mut index = Vec::new();
    let path = dir.join("index.json");
    let mut file = open(&path)?.take(MANIFEST_BYTES_MAX + 1);
    file.read_to_end(&mut index).map_err(at(&path))?;
    if index.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(ImportError::Limit { what: "an index.json of more than 4 MiB".into() });
    }
    let mut stored = Stored::new(blobs);
    let folder = dir.join("blobs/sha256");
    for (count, entry) in fs::read_dir(&folder).map_err(at(&folder))?.enumerate() {
        let name = entry.map_err(at(&folder))?.file_name();
        let Some(digest) = name.to_str().and_then(|n| Digest::from_hex(n).ok()) else { continue };
        if count > BLOBS_MAX {
            return Err(ImportError::Limit { what: format!("more than {BLOBS_MAX} blobs") });
        }
        if !blobs.has(&digest)? {
            blobs.put_reader(&mut open(&folder.join(&name))?, Some(&digest))?;
            stored.note(digest);
        }
    }
    let imported = images::read_index(&index, blobs)?;
    stored.keep(&imported)?;
    Ok(imported)
}

/// Opens a regular file: a link could lead out of the layout, a pipe could block for ever.
fn open(path: &Path) -> Result<File> {
    let meta = fs::symlink_metadata(path).map_err(at(path))?;
    if !meta.is_file() {
        let name = path.display().to_string();
        return Err(ImportError::Entry { name, reason: "it is not a regular file" });
    }
    File::open(path).map_err(at(path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> ImportError + use<> {
    let path = path.to_owned();
    move |source| ImportError::Read { path: path.clone(), source }
}
