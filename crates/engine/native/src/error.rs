//! From the errors of stores and sources to failures of a build.

use std::error::Error;

use ashlar_core::failure::{Failure, FailureKind};

/// Turns an error of our own stores into a failure that is not the user's.
pub(crate) fn internal(error: impl Error) -> Failure {
    Failure::new(FailureKind::Internal, chain(&error))
}

/// Turns an error of a source into a failure.
pub(crate) fn source(error: impl Error) -> Failure {
    Failure::new(FailureKind::Source, chain(&error))
}

/// Turns an error of a file operation into a failure of its step.
pub(crate) fn step(error: impl Error) -> Failure {
    Failure::new(FailureKind::Step, chain(&error))
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
