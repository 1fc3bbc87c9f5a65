//! Why a file operation failed.

use std::io;

use ashlar_layers::LayerError;

use super::lookup::LookupError;
use super::mode::ModeError;
use crate::error::ContextError;
use crate::path::shown;

/// A file operation failed. What was done until then stays in the tree, which is to be thrown away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileOpError {
    /// A source could not be read or is missing.
    #[error(transparent)]
    Source(#[from] ContextError),
    /// An owner's name is unknown, or the files with the names cannot be read.
    #[error(transparent)]
    Owner(#[from] LookupError),
    /// A mode cannot be read.
    #[error(transparent)]
    Mode(#[from] ModeError),
    /// A directory is to be where something else is.
    #[error("'/{path}' must be a directory, but something else is there; remove it first")]
    NotDirectory {
        /// The path in the tree.
        path: String,
    },
    /// A file is to be where a directory is.
    #[error("cannot replace the directory '/{path}' with a file; remove it first")]
    IsDirectory {
        /// The path in the tree.
        path: String,
    },
    /// What is to be removed or written to is not there.
    #[error("'/{path}' does not exist")]
    Missing {
        /// The path in the tree.
        path: String,
    },
    /// What is to be made is there already.
    #[error("'/{path}' exists already")]
    Exists {
        /// The path in the tree.
        path: String,
    },
    /// The root directory cannot be removed or replaced.
    #[error("the root directory cannot be removed or replaced")]
    RootDirectory,
    /// Links lead in a circle.
    #[error("'/{path}' has too many symbolic links in it")]
    Links {
        /// The path in the tree.
        path: String,
    },
    /// The device would delete a file of the layer below.
    #[error("'{path}' is the character device 0:0, by which layers mark removed files; exclude it")]
    Whiteout {
        /// The path in the tree.
        path: String,
    },
    /// A file is not any more what its digest was made of.
    #[error("'{path}' changed after its digest was made; build again when nothing writes to it")]
    Changed {
        /// The path in the source.
        path: String,
    },
    /// An archive cannot be unpacked.
    #[error("cannot unpack '{path}'")]
    Unpack {
        /// The archive's path in the source.
        path: String,
        /// Why.
        source: LayerError,
    },
    /// An action names an input that there is not.
    #[error("the operation has no input {index}")]
    Input {
        /// The index.
        index: usize,
    },
    /// The system refused something.
    #[error("cannot {action} '/{path}'")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The path within the tree.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The caller asked to stop.
    #[error("stopped, as was asked")]
    Stopped,
}

/// Shorthand of this module.
pub(crate) type Result<T, E = FileOpError> = std::result::Result<T, E>;

impl FileOpError {
    pub(crate) fn io(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: shown(path), source: source.into() }
    }

    /// Whether the definition or the context is to blame, and not this machine.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Stopped | Self::Input { .. } => false,
            Self::Source(source) => {
                !matches!(source, ContextError::Io { .. } | ContextError::Stopped)
            }
            Self::Unpack { source, .. } => source.is_input(),
            _ => true,
        }
    }
}
