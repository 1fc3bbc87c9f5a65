//! How long daemons are waited for, and whether one still lives.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long daemons are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until a connection has come about, and the daemon has said what it is.
    pub connect: Duration,
    /// Until a daemon of which nothing is heard counts as lost. One that lives asks every few seconds
    /// whether its client does, whatever it builds.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(60) }
    }
}

/// When something was heard of a daemon last.
pub(crate) struct Pulse(Mutex<Instant>);

impl Pulse {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Says that something was heard.
    pub(crate) fn beat(&self) {
        *self.last() = Instant::now();
    }

    /// Waits until nothing was heard for so long.
    pub(crate) async fn stopped(&self, silence: Duration) {
        loop {
            let end = *self.last() + silence;
            tokio::time::sleep_until(end.into()).await;
            let now = Instant::now();
            if now > end + silence / 2 {
                // We slept ourselves (a stopped process): what came meanwhile is yet to be read.
                self.beat();
            } else if *self.last() + silence <= now {
                return;
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
