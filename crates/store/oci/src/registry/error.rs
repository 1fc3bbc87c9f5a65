//! What can go wrong with a registry, and what to do about it.

use std::fmt;
use std::time::Duration;

use ashlar_blobs::BlobError;
use ashlar_core::Digest;

use super::egress::EgressRefused;
use crate::manifest::ManifestError;
use crate::walk::WalkError;

/// An operation failed at every endpoint, or was stopped.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No endpoint could do it.
    #[error("cannot {what}: {}", failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Endpoints {
        /// What was to be done, for example `read the manifest of docker.io/library/busybox:latest`.
        what: String,
        /// Each endpoint that was tried, in order.
        failures: Vec<EndpointFailure>,
    },
    /// The caller stopped it.
    #[error("the transfer was cancelled")]
    Cancelled,
    /// The local blob store failed.
    #[error("the local blob store failed while talking to a registry")]
    Store(#[from] BlobError),
    /// What is to be pushed is not a whole image.
    #[error("the image can not be pushed")]
    Image(#[from] WalkError),
    /// Indexes are nested too deeply.
    #[error("indexes are nested more than {0} deep")]
    Nested(usize),
}

/// Why one endpoint could not do it.
#[derive(Debug)]
pub struct EndpointFailure {
    /// Scheme and host, for example `https://registry-1.docker.io`.
    pub endpoint: String,
    /// Why, after the last try.
    pub failure: Failure,
}

impl fmt::Display for EndpointFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.failure)
    }
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection, or a broken one.
    #[error("{0}")]
    Network(String),
    /// No bytes came for too long.
    #[error("no bytes came for {0:?}")]
    Stalled(Duration),
    /// The registry answered with an error.
    #[error("answered {status}{}", detail(message.as_deref()))]
    Status {
        /// HTTP status.
        status: u16,
        /// The registry's own words, cleaned and cut.
        message: Option<String>,
        /// How long the registry asks to wait.
        retry_after: Option<Duration>,
    },
    /// The registry wants credentials, or other ones.
    #[error("refused the credentials ({0})")]
    Unauthorized(String),
    /// It does not have what was asked for.
    #[error("not found")]
    NotFound,
    /// The bytes have another digest than they should.
    #[error("sent content with digest {actual} instead of {expected}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// There are more or fewer bytes than there should be.
    #[error("sent {actual} bytes where {expected} were announced")]
    Size {
        /// Size in the descriptor.
        expected: u64,
        /// Bytes that came or were announced.
        actual: u64,
    },
    /// A document is larger than is allowed.
    #[error("sent a document of more than {limit} bytes")]
    TooLarge {
        /// Limit in bytes.
        limit: u64,
    },
    /// The document can not be used.
    #[error("sent a manifest that can not be used: {0}")]
    Manifest(#[from] ManifestError),
    /// A redirect or token service that must not be followed.
    #[error("sent us to {0}, which is not followed (plain http, or a loopback address)")]
    Unsafe(String),
    /// A host that builds do not reach.
    #[error(transparent)]
    Egress(#[from] EgressRefused),
    /// It answered something that the distribution spec does not allow.
    #[error("broke the protocol: {0}")]
    Protocol(String),
    /// The client could not be set up.
    #[error("{0}")]
    SetUp(String),
    /// The local blob store failed.
    #[error("the local blob store failed")]
    Store(#[source] BlobError),
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
}

fn detail(message: Option<&str>) -> String {
    message.map_or_else(String::new, |m| format!(" ({m})"))
}

impl Failure {
    /// Tells whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Network(_) | Self::Stalled(_) => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }

    /// Tells whether no other endpoint can help.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Store(_) | Self::Cancelled)
    }
}

impl RegistryError {
    /// Tells whether the registry itself failed in a way that may pass: the network is down, say.
    /// What its mirrors said does not count.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Endpoints { failures, .. }
            if failures.last().is_some_and(|f| f.failure.is_transient()))
    }

    /// Tells whether the registry itself says that it has no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Endpoints { failures, .. }
            if failures.last().is_some_and(|f| matches!(f.failure, Failure::NotFound)))
    }

    /// Tells whether the registry itself, or its token service, refused the credentials or wants
    /// some.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Endpoints { failures, .. }
            if failures.last().is_some_and(|f| matches!(f.failure, Failure::Unauthorized(_)
                | Failure::Status { status: 403, .. })))
    }

    /// Returns what a user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        let Self::Endpoints { failures, .. } = self else { return None };
        failures.iter().rev().find_map(|f| f.failure.hint())
    }
}

impl Failure {
    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unauthorized(_) => {
                "check the name, or log in (`docker login` writes the config that is read here)"
            }
            Self::NotFound => {
                "check name and tag; `ashlar images list` shows local images, \
                 `ashlar images import` makes one without a registry"
            }
            Self::Status { status: 429, .. } => {
                "the registry limits how much is pulled: log in, or use --registry-mirror HOST=URL"
            }
            Self::Network(_) | Self::Stalled(_) => {
                "check the network, use --registry-mirror HOST=URL, \
                 or `ashlar images import` to build with no registry"
            }
            Self::Digest { .. } | Self::Size { .. } => {
                "a proxy or mirror may alter content; try another one"
            }
            Self::Egress(_) => EgressRefused::HINT,
            Self::Unsafe(_) => "name the host in the settings if plain http is meant",
            _ => return None,
        })
    }
}
