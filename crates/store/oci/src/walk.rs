//! Walks from a manifest or index in the store to everything that it needs.

use std::collections::HashSet;

use ashlar_blobs::{BlobError, BlobStore};
use ashlar_core::Digest;

use crate::manifest::{Descriptor, Document, INDEX_ENTRIES_MAX, MANIFEST_BYTES_MAX, ManifestError};
use crate::pull::INDEX_DEPTH_MAX;

/// The store does not hold a whole image.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A blob lacks or can not be read.
    #[error("the local blob store does not give what the image needs")]
    Blob(#[from] BlobError),
    /// A manifest can not be used.
    #[error("manifest {digest} can not be used")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// Why.
        source: ManifestError,
    },
    /// Indexes are nested too deeply.
    #[error("indexes are nested more than {INDEX_DEPTH_MAX} deep")]
    Depth,
    /// Nested indexes have too many entries in all.
    #[error("the image has more than {INDEX_ENTRIES_MAX} manifests")]
    TooMany,
}

/// A manifest or index, and the bytes that its digest names.
pub(crate) struct Node {
    pub(crate) descriptor: Descriptor,
    pub(crate) document: Document,
    pub(crate) bytes: Vec<u8>,
}

/// What to do when an index names a manifest that is not in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Fail.
    Refuse,
    /// Leave it out: `docker save` writes the whole index beside the images of one platform.
    Skip,
}

/// Lists all manifests and indexes below `root`, each once, parents after their children.
pub(crate) fn documents(
    blobs: &BlobStore,
    root: &Descriptor,
    absent: Absent,
) -> Result<Vec<Node>, WalkError> {
    let mut walk = Walk { blobs, absent, seen: HashSet::new(), nodes: Vec::new() };
    walk.visit(root, 0)?;
    Ok(walk.nodes)
}

struct Walk<'a> {
    blobs: &'a BlobStore,
    absent: Absent,
    seen: HashSet<Digest>,
    nodes: Vec<Node>,
}

impl Walk<'_> {
    fn visit(&mut self, descriptor: &Descriptor, depth: usize) -> Result<(), WalkError> {
        if depth > INDEX_DEPTH_MAX {
            return Err(WalkError::Depth);
        }
        if !self.seen.insert(descriptor.digest) {
            return Ok(());
        }
        if self.seen.len() > INDEX_ENTRIES_MAX {
            return Err(WalkError::TooMany);
        }
        let digest = descriptor.digest;
        let bytes = match self.blobs.read(&digest, MANIFEST_BYTES_MAX) {
            Err(BlobError::Missing(_)) if depth > 0 && self.absent == Absent::Skip => return Ok(()),
            result => result?,
        };
        let document = Document::parse(&bytes, Some(&descriptor.media_type))
            .map_err(|source| WalkError::Manifest { digest, source })?;
        if let Document::Index(index) = &document {
            for child in &index.manifests {
                self.visit(child, depth + 1)?;
            }
        }
        self.nodes.push(Node { descriptor: descriptor.clone(), document, bytes });
        Ok(())
    }
}

impl Node {
    /// Returns the config and the layers, when this is a manifest.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let manifest = match &self.document {
            Document::Manifest(manifest) => Some(manifest),
            Document::Index(_) => None,
        };
        manifest.into_iter().flat_map(|m| std::iter::once(&m.config).chain(&m.layers))
    }
}
