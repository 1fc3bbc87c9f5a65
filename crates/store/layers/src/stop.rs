//! A flag that tells long work to end early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{LayerError, Result};

/// Asks work on other threads to end; clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Makes every later [`Stop::check`] fail.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`Stop::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns the flag, for what watches a flag itself.
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }

    /// Fails once the flag is set.
    ///
    /// # Errors
    /// [`LayerError::Stopped`].
    pub fn check(&self) -> Result<()> {
        if self.is_stopped() { Err(LayerError::Stopped) } else { Ok(()) }
    }
}
