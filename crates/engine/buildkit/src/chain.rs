//! Errors with their causes, for people.

use std::error::Error;

/// Returns an error's text and that of each of its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}
