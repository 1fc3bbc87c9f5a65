//! Why an image can not be had.

use ashlar_blobs::BlobError;
use ashlar_core::{Digest, Platform};

use crate::files::FileError;
use crate::manifest::ManifestError;
use crate::reference::Reference;
use crate::registry::RegistryError;
use crate::store::ImageStoreError;
use crate::walk::WalkError;

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
    /// The store does not hold a whole image.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The blob store failed.
    #[error("the local blob store failed")]
    Blob(#[from] BlobError),
    /// The image store failed.
    #[error(transparent)]
    Store(#[from] ImageStoreError),
    /// It could not be found out, or noted, who may read something.
    #[error("the marks of private content cannot be read or set")]
    Marks(#[source] std::io::Error),
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

impl PullError {
    /// Tells whether the registry could not be reached, see [`RegistryError::is_unreachable`].
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Registry(error) if error.is_unreachable())
    }

    /// Tells whether the registry itself refused the credentials, or wants some.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Registry(error) if error.is_refused())
    }

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
