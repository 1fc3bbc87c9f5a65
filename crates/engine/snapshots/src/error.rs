//! What can go wrong with the snapshot store.

use std::io;
use std::path::{Path, PathBuf};

use ashlar_layers::LayerError;

use crate::LayerId;

/// The store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file system refused an operation.
    #[error("cannot {action} '{}'", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A layer is not in the store (any more).
    #[error("the layer {0} is not in the store; build or pull it again")]
    Missing(LayerId),
    /// A layer's files or records contradict each other.
    #[error("the layer {id} is damaged ({reason}); remove it and build or pull it again")]
    Damaged {
        /// Which layer.
        id: LayerId,
        /// How.
        reason: &'static str,
    },
    /// A layer's directory or archive could not be read or written.
    #[error("layer: {0}")]
    Layer(#[from] LayerError),
    /// The bytes of an image layer are not those that its config names.
    #[error("the layer's content is {actual}, but its image says {expected}; pull it again")]
    WrongDiffId {
        /// What the image config says.
        expected: LayerId,
        /// What arrived.
        actual: LayerId,
    },
    /// The kernel refused an overlay mount.
    #[error(
        "cannot mount an overlay of {layers} layers at option '{option}' (Linux 6.8 or later and root are needed)"
    )]
    Mount {
        /// Number of lower directories.
        layers: usize,
        /// The option or step that was refused.
        option: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A path in a tree is not what was asked for.
    #[error("'{path}' {reason}")]
    Path {
        /// The path within the tree.
        path: String,
        /// What is the matter.
        reason: &'static str,
    },
}

/// Shorthand of this crate.
pub type Result<T, E = SnapshotError> = std::result::Result<T, E>;

impl SnapshotError {
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.to_owned(), source: source.into() }
    }

    pub(crate) fn path(path: &[u8], reason: &'static str) -> Self {
        Self::Path { path: String::from_utf8_lossy(path).into_owned(), reason }
    }
}
