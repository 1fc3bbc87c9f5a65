//! From the errors of stores and sources to failures of a build.

use std::error::Error;
use std::io;

use ashlar_blobs::{BlobError, RemoteError};
use ashlar_core::failure::{Failure, FailureKind};

/// Makes a failure of an error, which tells whether the blob store was away.
pub fn failure_of(kind: FailureKind, error: &(dyn Error + 'static)) -> Failure {
    Failure { store_away: is_store_away(error), ..Failure::new(kind, chain(error)) }
}

/// Says whether an error comes from a blob store elsewhere that does not answer.
fn is_store_away(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(BlobError::Remote(RemoteError::Unavailable { .. })) = error.downcast_ref() {
            return true;
        }
        // What an I/O error was made of is not among its causes.
        let made_of = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match made_of {
            Some(error) => Some(error),
            None => error.source(),
        };
    }
    false
}

/// Turns an error of our own stores into a failure that is not the user's.
pub(crate) fn internal(error: impl Error + 'static) -> Failure {
    failure_of(FailureKind::Internal, &error)
}

/// Turns an error of a source into a failure.
pub(crate) fn source(error: impl Error + 'static) -> Failure {
    failure_of(FailureKind::Source, &error)
}

/// Turns an error of a file operation into a failure of its step.
pub(crate) fn step(error: impl Error + 'static) -> Failure {
    failure_of(FailureKind::Step, &error)
}

/// Returns an error with all its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let said = e.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use ashlar_oci::PullError;

    use super::*;

    fn away() -> BlobError {
        let (place, doing) = ("s3://bucket".into(), "read");
        BlobError::Remote(RemoteError::Unavailable { place, doing, source: "refused".into() })
    }

    #[test]
    fn a_store_that_is_away_is_told_from_all_else() {
        assert!(internal(away()).store_away);
        assert!(source(PullError::Blob(away())).store_away);
        let wrapped = || io::Error::other(PullError::Blob(away()));
        assert!(step(wrapped()).store_away);
        assert!(step(io::Error::other(wrapped())).store_away);
        let full = || BlobError::Remote(RemoteError::Local(io::ErrorKind::StorageFull.into()));
        assert!(!internal(full()).store_away, "our own disk");
        assert!(!source(PullError::Blob(full())).store_away);
        assert!(!internal(io::Error::other("x")).store_away);
    }
}
