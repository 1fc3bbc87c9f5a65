//! Why a build on one daemon comes to nothing.

use std::time::Duration;

use ashlar_core::failure::Failure;
use tonic::Status;

use crate::chain::chain;
use crate::connect::ConnectError;
use crate::tls::TlsError;

/// Why an attempt came to nothing.
pub(crate) enum Trouble {
    /// The daemon is gone, or was never there.
    Lost(Loss),
    /// It cannot send archives.
    NoArchives,
    /// The image is not in its store any more, where it was to be taken from.
    Vanished,
    /// It says why.
    Said(Status),
    /// Something here failed.
    Failed(Failure),
}

/// How a daemon was lost.
pub(crate) enum Loss {
    Connection(ConnectError),
    Call(Status),
    /// Nothing was heard of it for so long.
    Silence(Duration),
    /// It takes no connections any more, and said this last.
    Ending(String),
}

impl Loss {
    /// Returns all that is known, for whoever runs the service.
    pub(crate) fn whole(&self) -> String {
        match self {
            Self::Connection(error) => chain(error),
            Self::Call(status) => chain(status),
            Self::Silence(time) => format!("nothing was heard of it for {} s", time.as_secs_f32()),
            Self::Ending(said) => format!("it is about to end, and said last: {said}"),
        }
    }

    /// Returns the same without the names of files here.
    pub(crate) fn without_files(&self) -> String {
        match self {
            Self::Connection(ConnectError::Tls(TlsError::File { what, source, .. })) => {
                format!("cannot read {what} for TLS: {source}")
            }
            other => other.whole(),
        }
    }
}

impl From<ConnectError> for Trouble {
    fn from(error: ConnectError) -> Self {
        Self::Lost(Loss::Connection(error))
    }
}
