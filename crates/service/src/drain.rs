//! Ends gracefully.

use std::time::Duration;

use tokio::time::timeout;

use crate::Service;

/// How long stopped builds may take to end, and then runs of builds to be handed over.
const STOP_MAX: Duration = Duration::from_secs(15);

impl Service {
    /// Takes no more builds, lets those that run go on for the configured time, and stops the
    /// rest, which then wait to run again where their submission allows that.
    pub async fn drain(&self) {
        self.workers().begin_drain();
        let running = self.workers().running_count();
        if running > 0 {
            tracing::info!(builds = running, "waiting for running builds");
        }
        if timeout(self.config().drain, self.workers().idle()).await.is_err() {
            self.workers().give_up();
            if timeout(STOP_MAX, self.workers().idle()).await.is_err() {
                tracing::warn!("some builds did not stop; they run again when their leases end");
            }
        }
        if timeout(STOP_MAX, self.runs().idle()).await.is_err() {
            tracing::warn!(
                "some runs were not handed over; others take them when their leases end"
            );
        }
        self.workers().stop();
    }

    /// Returns the longest that [`Service::drain`] takes.
    pub fn drain_max(&self) -> Duration {
        self.config().drain.saturating_add(STOP_MAX).saturating_add(STOP_MAX)
    }

    /// Says whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.workers().is_draining()
    }

    /// Returns when the workers have ended: followers of builds that wait to run again elsewhere
    /// must not keep connections open.
    pub async fn stopped(&self) {
        self.workers().stopped().await;
    }

    /// Closes the database. The last call.
    pub async fn close(&self) {
        self.store().close().await;
    }
}
