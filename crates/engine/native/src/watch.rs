//! Who hears of slow work, and who may stop it.

use std::sync::atomic::{AtomicBool, Ordering};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{Progress, Sink};

/// A sink, and a flag that ends transfers early.
#[derive(Clone, Copy)]
pub(crate) struct Watch<'a> {
    pub(crate) sink: &'a dyn Sink,
    pub(crate) stop: &'a AtomicBool,
}

impl Watch<'_> {
    /// Shows how far something is.
    pub(crate) fn progress(&self, subject: String, done: u64, total: u64) {
        self.sink.progress(Progress { subject, done, total });
    }

    /// Fails once the flag is set.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Failure::new(FailureKind::Source, "the build was cancelled"));
        }
        Ok(())
    }
}
