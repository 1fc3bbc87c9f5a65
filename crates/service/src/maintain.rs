//! Upkeep: lost workers, wake-ups of other processes, and all that is kept for a time only.

use std::sync::Arc;
use std::time::Duration;

use ashlar_core::journal::BuildKind;
use ashlar_core::{BuildId, Timestamp};
use ashlar_records::now;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::collect::{COLLECT_EVERY, Collected};
use crate::error::chain;
use crate::{Error, RetentionRound, Service};

/// How often leases are looked at.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// How often old keys and audit entries are removed.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// How long an idempotency key is remembered.
const KEYS_KEPT: Duration = Duration::from_secs(24 * 3600);
/// How long the audit log is kept.
const AUDIT_KEPT: Duration = Duration::from_secs(400 * 24 * 3600);
/// How often retention lets things go.
const RETENTION_EVERY: Duration = Duration::from_secs(60);
/// How long after a round that left groups or things to others the next one begins.
const RETENTION_PAUSE: Duration = Duration::from_millis(100);
/// How often what nobody needs is looked for on the disk.
const SWEEP_EVERY: Duration = Duration::from_secs(6 * 3600);
/// How often logs of ended builds are looked for.
const LOGS_EVERY: Duration = Duration::from_secs(5);
/// How long to wait before PostgreSQL is listened to again.
const RELAY_PAUSE: Duration = Duration::from_secs(1);

impl Service {
    pub(crate) fn start_upkeep(self: &Arc<Self>) {
        tokio::spawn(Arc::clone(self).expire_leases());
        tokio::spawn(Arc::clone(self).relay());
        tokio::spawn(Arc::clone(self).move_logs());
        tokio::spawn(Arc::clone(self).forget_old());
        tokio::spawn(Arc::clone(self).retain());
        tokio::spawn(Arc::clone(self).sweep());
    }

    async fn retain(self: Arc<Self>) {
        while !self.workers().is_draining() {
            let pause = match self.apply_retention(now()).await {
                Ok(RetentionRound { gone, done }) => {
                    if gone > 0 {
                        tracing::info!(gone, "retention let records, logs or artifacts go");
                    }
                    if done { RETENTION_EVERY } else { RETENTION_PAUSE }
                }
                Err(error) => {
                    tracing::warn!(error = error.internal_text(), "cannot apply retention");
                    RETENTION_EVERY
                }
            };
            self.pause(pause).await;
        }
    }

    async fn sweep(self: Arc<Self>) {
        while !self.workers().is_draining() {
            told("images", self.sweep_images().await);
            told("uploads", self.sweep_uploads().await);
            // Rights in a database are the same for all servers: whoever collects sees to them.
            match self.blobs().remote() {
                None => told("grants", self.sweep_grants().await),
                Some(_) => self.collect().await,
            }
            self.pause(SWEEP_EVERY).await;
        }
    }

    async fn collect(self: &Arc<Self>) {
        match self.collect_objects(COLLECT_EVERY).await {
            Ok(None) => {}
            Ok(Some(Collected { grants, objects, bytes })) => {
                tracing::info!(
                    grants,
                    objects,
                    bytes,
                    "collected what the blob store need not have"
                );
            }
            Err(error) => tracing::warn!(error = error.internal_text(), "cannot collect objects"),
        }
    }

    /// Waits for a time, or until the server ends.
    async fn pause(&self, time: Duration) {
        let _ = timeout(time, self.stopped()).await;
    }

    async fn expire_leases(self: Arc<Self>) {
        let mut every = interval(EXPIRE_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.workers().is_draining() {
            every.tick().await;
            match self.store().expire(now()).await {
                Ok(changed) if changed.is_empty() => {}
                Ok(changed) => {
                    tracing::warn!(builds = changed.len(), "leases ended");
                    self.workers().wake();
                    self.runs().wake();
                    self.stop_builds_of_lost(&changed).await;
                }
                Err(error) => tracing::warn!(error = chain(&error), "cannot look at leases"),
            }
        }
    }

    /// Asks the builds of runs to stop that have ended with the lease of their driver, for they may
    /// not be driven again.
    async fn stop_builds_of_lost(&self, changed: &[BuildId]) {
        for build in changed {
            let stopped = async {
                let row = self.store().row(*build).await?;
                if row.submission.kind == BuildKind::Workflow && row.state.is_terminal() {
                    self.cancel_children(&self.actor_of(&row).await?, *build).await?;
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = stopped.await {
                let error = error.internal_text();
                tracing::warn!(run = %build, error, "builds of a run may go on");
            }
        }
    }

    /// Moves logs of ended builds into the blob store.
    async fn move_logs(self: Arc<Self>) {
        while !self.workers().is_draining() {
            self.pause(LOGS_EVERY).await;
            let mut from = Some(0);
            while let Some(place) = from {
                from = self.store().move_logs(place).await.unwrap_or_else(|error| {
                    tracing::warn!(error = chain(&error), "logs stay in the database for now");
                    None
                });
            }
        }
    }

    async fn relay(self: Arc<Self>) {
        while !self.workers().is_draining() {
            let relayed = tokio::select! {
                relayed = self.store().relay_wakeups() => relayed,
                () = self.stopped() => return,
            };
            match relayed {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "not woken by other servers");
                    self.pause(RELAY_PAUSE).await;
                }
            }
        }
    }

    async fn forget_old(self: Arc<Self>) {
        while !self.workers().is_draining() {
            let keys = self.store().forget_keys(ago(KEYS_KEPT)).await;
            let audit = self.store().forget_audit(ago(AUDIT_KEPT)).await;
            if let Err(error) = keys.and(audit) {
                tracing::warn!(error = chain(&error), "cannot remove what is too old");
            }
            self.pause(FORGET_EVERY).await;
        }
    }
}

/// Says what a sweep came to; one that fails is no reason not to do the others.
fn told(what: &'static str, swept: Result<usize, Error>) {
    match swept {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "swept {what} that nothing needs"),
        Err(error) => tracing::warn!(error = error.internal_text(), "cannot sweep {what}"),
    }
}

pub(crate) fn ago(time: Duration) -> Timestamp {
    let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    Timestamp::from_nanos(now().nanos().saturating_sub(nanos))
}
