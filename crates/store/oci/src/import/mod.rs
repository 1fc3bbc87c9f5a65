//! Takes images in: OCI layouts as directories or archives, and docker archives of any age.
//!
//! Everything here may come from an enemy. Blobs are named by the digest of what was read; paths
//! are looked up in a list, never on the disk; sizes, numbers and nesting have limits.

mod archive;
mod directory;
mod docker;
mod images;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use ashlar_blobs::{BlobError, BlobStore};
use ashlar_core::Digest;

pub use archive::read_archive;
pub use directory::read_layout;
pub use images::images_of;

use crate::compose::ComposeError;
use crate::image::LocalImage;
use crate::manifest::Descriptor;
use crate::pull::Images;
use crate::reference::Reference;
use crate::store::ImageStoreError;
use crate::walk::WalkError;

/// One entry of a layout or archive, with its blobs in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Manifest or index.
    pub root: Descriptor,
    /// Names that it came with.
    pub names: Vec<Reference>,
    /// The images, one a platform.
    pub images: Vec<LocalImage>,
}

/// An image can not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is neither an OCI layout nor a docker archive.
    #[error(
        "this is no image: it has neither oci-layout with index.json nor manifest.json; \
             a root file system is imported with --rootfs"
    )]
    NotImage,
    /// The input can not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file, or `archive`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An entry of an archive is not allowed.
    #[error("entry '{name}' of the archive is refused: {reason}")]
    Entry {
        /// Its name, cut.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// A limit was passed.
    #[error("the image has {what}")]
    Limit {
        /// What there is too much of.
        what: String,
    },
    /// A JSON document is not of its shape.
    #[error("{name} is not valid")]
    Json {
        /// Which document.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Something that is named does not exist.
    #[error("{from} names {what}, which is not there")]
    Missing {
        /// Who names it.
        from: String,
        /// What is named.
        what: String,
    },
    /// What is there is not what is named.
    #[error("{what}: {reason}")]
    Wrong {
        /// Which part.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A manifest can not be used.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// A manifest could not be made.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The blob store failed.
    #[error("the local blob store failed")]
    Blob(#[source] BlobError),
    /// The image store failed.
    #[error(transparent)]
    Store(#[from] ImageStoreError),
}

impl From<BlobError> for ImportError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Mismatch { expected, actual } => Self::Wrong {
                what: format!("blob {expected}"),
                reason: format!("its content has digest {actual}"),
            },
            other => Self::Blob(other),
        }
    }
}

type Result<T, E = ImportError> = std::result::Result<T, E>;

impl Images {
    /// Adds imported images to the local ones, under the names that they came with and `name`.
    /// Returns the ids of the images.
    ///
    /// # Errors
    /// When a store fails.
    pub fn add_imported(
        &self,
        imported: &[Imported],
        name: Option<&Reference>,
    ) -> Result<Vec<Digest>> {
        self.blobs().sync()?;
        let mut ids = Vec::new();
        for entry in imported {
            let mut names = entry.names.clone();
            names.extend(name.cloned());
            let is_index = crate::media_type::is_index(&entry.root.media_type);
            let index = is_index.then_some(entry.root.digest);
            ids.extend(self.store().add(&entry.images, &names, index)?);
        }
        Ok(ids)
    }
}

/// Blobs that an import stored; what it does not use in the end is removed again.
pub(crate) struct Stored<'a> {
    blobs: &'a BlobStore,
    new: BTreeSet<Digest>,
}

impl<'a> Stored<'a> {
    fn new(blobs: &'a BlobStore) -> Self {
        Self { blobs, new: BTreeSet::new() }
    }

    fn note(&mut self, digest: Digest) {
        self.new.insert(digest);
    }

    fn keep(&mut self, imported: &[Imported]) -> Result<()> {
        for entry in imported {
            for node in crate::walk::documents(self.blobs, &entry.root, crate::walk::Absent::Skip)?
            {
                self.new.remove(&node.descriptor.digest);
                for blob in node.blobs() {
                    self.new.remove(&blob.digest);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Stored<'_> {
    fn drop(&mut self) {
        for digest in &self.new {
            // Garbage collection takes what stays.
            drop(self.blobs.remove(digest));
        }
    }
}
