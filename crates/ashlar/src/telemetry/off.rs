//! Stands in for traces in a program that was built without them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use ashlar_service::Observer;

use super::wanted;

/// How long the end of the program waits for what is not sent yet: there is nothing.
pub(crate) const FLUSH_MAX: Duration = Duration::ZERO;

/// No traces.
pub(crate) struct Traces;

impl Traces {
    /// Says so when traces are wanted.
    #[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
    pub(crate) fn start() -> Result<Self> {
        if wanted() {
            tracing::warn!("this program was built without the feature 'otlp': it sends no traces");
        }
        Ok(Self)
    }

    #[expect(clippy::unused_self, reason = "with the feature there is one")]
    pub(crate) fn observer(&self) -> Option<Arc<dyn Observer>> {
        None
    }

    #[expect(clippy::unused_async, reason = "with the feature it waits")]
    pub(crate) async fn flush(&self) {}
}
