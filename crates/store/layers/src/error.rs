//! What can go wrong with a layer or an archive.

use std::io;

/// A layer directory could not be read, or an archive could not be read, written or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The file system refused an operation.
    #[error("cannot {action} '{path}'")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The path within the layer or archive.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The stream that an archive is read from or written to failed.
    #[error("cannot {action} the archive")]
    Stream {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the stream said.
        source: io::Error,
    },
    /// The bytes are not a tar archive, or a broken one.
    #[error("the archive is malformed at byte {offset}: {reason}")]
    Malformed {
        /// Where in the uncompressed archive.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// A member tries what no honest archive needs.
    #[error("the archive's member '{path}' is refused: {reason}")]
    Refused {
        /// The member's path as far as it could be read.
        path: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// The archive or directory is larger than the limits allow.
    #[error("the {what} exceed the limit of {limit}; at '{path}'")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// The limit in the unit of `what`.
        limit: u64,
        /// Where the limit was passed.
        path: String,
    },
    /// A file changed while its layer was being read.
    #[error("'{path}' changed while its layer was read; a layer must be left alone once taken")]
    Changed {
        /// The path within the layer.
        path: String,
    },
    /// A path cannot be expressed in a layer archive.
    #[error("'{path}' cannot be stored in a layer: {reason}")]
    Unrepresentable {
        /// The path within the layer.
        path: String,
        /// Why not.
        reason: &'static str,
    },
    /// An entry record is damaged.
    #[error("the entry record is damaged: {0}")]
    Record(&'static str),
    /// The caller asked to stop.
    #[error("stopped, as was asked")]
    Stopped,
}

/// Shorthand of this crate.
pub type Result<T, E = LayerError> = std::result::Result<T, E>;

impl LayerError {
    pub(crate) fn io(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: lossy(path), source: source.into() }
    }

    pub(crate) fn refused(path: &[u8], reason: &'static str) -> Self {
        Self::Refused { path: lossy(path), reason }
    }

    pub(crate) fn limit(what: &'static str, limit: u64, path: &[u8]) -> Self {
        Self::Limit { what, limit, path: lossy(path) }
    }

    /// Whether the input is to blame (a user error), and not this machine.
    pub fn is_input(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Stream { .. } | Self::Stopped | Self::Record(_))
    }
}

/// Longest part of a hostile path that an error repeats.
const SHOWN_PATH_BYTES_MAX: usize = 300;

/// Returns a path for people to read.
pub(crate) fn lossy(path: &[u8]) -> String {
    let shown = &path[..path.len().min(SHOWN_PATH_BYTES_MAX)];
    let text = String::from_utf8_lossy(shown).replace(char::is_control, "\u{fffd}");
    if shown.len() < path.len() { format!("{text}...") } else { text }
}
