//! Why a context could not be read.

use std::io;

use crate::path::{PATH_BYTES_MAX, shown};
use crate::pattern::PatternError;
use crate::walk::{DEPTH_MAX, ENTRIES_MAX};

/// A context or another source tree could not be read, or lacks what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContextError {
    /// The directory itself.
    #[error("cannot open the directory '{path}'; check that it exists and is a directory")]
    Open {
        /// The directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A source does not exist.
    #[error("'{path}' was not found{}", hint(*.excluded))]
    NotFound {
        /// The source as it was written.
        path: String,
        /// Whether it exists and is left out by the ignore file.
        excluded: bool,
    },
    /// Links lead in a circle.
    #[error("'{path}' has too many symbolic links in it")]
    Links {
        /// The source as it was written.
        path: String,
    },
    /// A file changed while it was read, several times over.
    #[error("'{path}' changed while it was read; build again when nothing writes to it")]
    Changed {
        /// The file.
        path: String,
    },
    /// A path is longer than the kernel takes.
    #[error("the path '{path}' is longer than {PATH_BYTES_MAX} bytes; exclude it from the context")]
    TooLong {
        /// The start of the path.
        path: String,
    },
    /// Directories are nested too deep.
    #[error("'{path}' lies more than {DEPTH_MAX} directories deep; exclude it from the context")]
    TooDeep {
        /// The start of the path.
        path: String,
    },
    /// There are too many files.
    #[error("more than {ENTRIES_MAX} files are selected; exclude what the build does not need")]
    TooMany,
    /// A pattern is malformed.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The system refused something.
    #[error("cannot {action} '{path}'")]
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

fn hint(excluded: bool) -> &'static str {
    match excluded {
        true => "; the ignore file excludes it",
        false => "; paths are relative to the root of the context or stage",
    }
}

impl ContextError {
    pub(crate) fn io(action: &'static str, path: &[u8], source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: shown(path), source: source.into() }
    }

    pub(crate) fn changed(path: &[u8]) -> Self {
        Self::Changed { path: shown(path) }
    }
}
