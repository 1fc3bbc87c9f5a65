//! What can go wrong in a use case, in words for the client and for the operator.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use ashlar_blobs::{BlobError, RemoteError};
use ashlar_core::failure::Failure;
use ashlar_records::Error as StoreError;

/// When to try again what is not available now.
const RETRY_DEFAULT: Duration = Duration::from_secs(1);

/// What kind of error it is; stable. Each door maps it to its own codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no such thing, or not for this actor.
    NotFound,
    /// Nobody knows who asks.
    Unauthorized,
    /// The actor may not do this.
    Forbidden,
    /// The state of things does not allow it now.
    Conflict,
    /// The request is wrong.
    Invalid,
    /// The request, or a part of it, is too large.
    TooLarge,
    /// Too many requests.
    RateLimited,
    /// Try again later.
    Unavailable,
    /// A fault of the service.
    Internal,
}

/// What the service itself needs, and cannot reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Away {
    /// Records, journals and the queue.
    Database,
    /// The blob store that several machines share.
    BlobStore,
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "the database",
            Self::BlobStore => "the blob store",
        })
    }
}

/// A use case did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such thing, or not for this actor.
    #[error("there is no {what} '{name}'")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
        /// What it was called.
        name: String,
    },
    /// Nobody knows who asks.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// The actor may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// The state of things does not allow it now.
    #[error("{0}")]
    Conflict(String),
    /// The request is wrong.
    #[error("{field}: {why}")]
    Invalid {
        /// Which part, as the client named it.
        field: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// The request, or a part of it, is too large.
    #[error("{what} is too large: at most {max} {unit} fit")]
    TooLarge {
        /// What.
        what: String,
        /// The bound.
        max: u64,
        /// The bound's unit.
        unit: &'static str,
    },
    /// Too many requests.
    #[error("too many requests; try again in {} s", retry_after.as_secs().max(1))]
    RateLimited {
        /// When to try again.
        retry_after: Duration,
    },
    /// Try again later.
    #[error("{0}")]
    Unavailable(String),
    /// What the service needs is not there; the same may succeed later.
    #[error("{0} does not answer; try again")]
    Away(Away),
    /// A fault of the service. The source is for the operator.
    #[error("something in the service broke; its log says more")]
    Internal(#[source] Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// Returns the kind.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Unauthorized(_) => ErrorKind::Unauthorized,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::RateLimited { .. } => ErrorKind::RateLimited,
            Self::Unavailable(_) | Self::Away(_) => ErrorKind::Unavailable,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Returns when the same request may succeed, where that is known.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            Self::Unavailable(_) | Self::Away(_) => Some(RETRY_DEFAULT),
            _ => None,
        }
    }

    /// Returns the text for the client: no paths, hosts or causes.
    pub fn public(&self) -> String {
        self.to_string()
    }

    /// Returns the text for the operator: with all causes.
    pub fn internal_text(&self) -> String {
        let mut text = self.to_string();
        let mut source = StdError::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }

    /// Says that there is no such thing.
    pub fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound { what, name: name.to_string().chars().take(200).collect() }
    }

    /// Says that a part of the request is wrong.
    pub fn invalid(field: impl Into<String>, why: impl ToString) -> Self {
        Self::Invalid { field: field.into(), why: why.to_string() }
    }

    /// Says that the work was to stop before it was done.
    pub(crate) fn stopped() -> Self {
        Self::Conflict("it was stopped before it was done".into())
    }

    /// Wraps a fault of the service.
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSuchBuild(build) => Self::not_found("build", build),
            StoreError::Taken { .. } | StoreError::KeyReused(_) | StoreError::ScopeBusy(_) => {
                Self::Conflict(error.to_string())
            }
            StoreError::NotKept(_) => Self::invalid("base", error),
            StoreError::Refused(refusal) => Self::Conflict(refusal.to_string()),
            StoreError::TooLarge { what, max, unit } => {
                Self::TooLarge { what: what.to_owned(), max, unit }
            }
            StoreError::PageSize { .. } => Self::invalid("limit", error),
            StoreError::Name(_) => Self::invalid("name", error),
            StoreError::Segment { ref source, .. } if is_away(source) => {
                tracing::warn!(error = chain(&error), "the blob store is not available");
                Self::Away(Away::BlobStore)
            }
            error if error.is_transient() => {
                tracing::warn!(error = chain(&error), "the database is not available");
                Self::Away(Away::Database)
            }
            error => Self::internal(error),
        }
    }
}

/// Says whether a log could not be read because the store that it is in does not answer.
fn is_away(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<BlobError>());
    matches!(inner, Some(BlobError::Remote(RemoteError::Unavailable { .. })))
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure.store_away {
            true => Self::Away(Away::BlobStore),
            false => Self::internal(failure),
        }
    }
}

impl From<BlobError> for Error {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Missing(digest) => Self::not_found("blob", digest),
            BlobError::Mismatch { .. } => Self::invalid("digest", error),
            error @ BlobError::Remote(RemoteError::Unavailable { .. }) => {
                tracing::warn!(error = chain(&error), "the blob store is not available");
                Self::Away(Away::BlobStore)
            }
            error => Self::internal(error),
        }
    }
}

/// Returns an error's text with those of its causes.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
