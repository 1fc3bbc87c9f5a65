//! Leases: who works on a build, and what happens when that worker is no longer heard of.

use std::time::Duration;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{BuildKind, Cancellation, Event};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Timestamp, WorkerId};

use crate::builds::{self, Loaded};
use crate::db::{Tx, args};
use crate::facets::kind_word;
use crate::journal::Stamped;
use crate::store::retried;
use crate::{Error, Store, journal};

/// How long a worker is believed to be alive after it was heard of, unless set otherwise.
pub const LEASE: Duration = Duration::from_secs(30);
/// How often a worker is heard of in the time of one lease.
const BEATS: u32 = 3;
/// Leases that one look ends at most; the next look ends more.
const EXPIRED_AT_ONCE: u32 = 100;

/// What a worker learns when it is heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// The build is still the worker's.
    Yes {
        /// Somebody wants it to stop.
        cancellation: Option<Cancellation>,
    },
    /// It is not: stop, what is written is refused.
    No,
}

/// Writes who works on a build from now on.
pub(crate) async fn grant(
    tx: &mut Tx,
    loaded: &Loaded,
    worker: WorkerId,
    until: Timestamp,
) -> Result<(), Error> {
    let sql = "INSERT INTO leases (build, scope, tenant, worker, kind, fence, expires_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let s = &loaded.record.submission;
    let (kind, fence) = (kind_word(s.kind), loaded.record.fence);
    let values = args![loaded.position, loaded.scope, s.tenant, worker, kind, fence, until];
    tx.run(sql, values).await?;
    Ok(())
}

pub(crate) fn after(now: Timestamp, time: Duration) -> Timestamp {
    let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    Timestamp::from_nanos(now.nanos().saturating_add(nanos))
}

impl Store {
    /// Sets how long a worker that is not heard of is believed to be alive ([`LEASE`] by default).
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Self { lease, ..self }
    }

    /// Returns how long a worker that is not heard of is believed to be alive.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Returns how often a worker should be heard of.
    pub fn heartbeat_every(&self) -> Duration {
        self.lease / BEATS
    }

    /// Returns until when a worker that was heard of now holds what it works on.
    pub(crate) fn leased_until(&self, now: Timestamp) -> Timestamp {
        after(now, self.lease)
    }

    /// Says that a worker is alive and still works on a build. The clock is read when the database
    /// has answered: the wait for it must not be a part of the lease.
    ///
    /// # Errors
    /// When the database fails; [`JournalWriter`](crate::JournalWriter) goes on until its lease
    /// would have ended.
    pub async fn heartbeat(
        &self,
        build: BuildId,
        fence: u64,
        clock: impl FnOnce() -> Timestamp + Send,
    ) -> Result<Held, Error> {
        let sql = "UPDATE leases SET expires_at = $3 WHERE fence = $2 AND build = \
                   (SELECT position FROM builds WHERE id = $1)";
        let mut tx = self.db.write().await?;
        let held = tx.run(sql, args![build, fence, self.leased_until(clock())]).await? > 0;
        tx.commit().await?;
        if !held {
            return Ok(Held::No);
        }
        let record = self.row(build).await?;
        Ok(Held::Yes { cancellation: record.cancellation })
    }

    /// Sets when the build's current phase must be over, or that it has no limit of time. Without
    /// effect when the worker no longer holds the build.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_deadline(
        &self,
        build: BuildId,
        fence: u64,
        deadline: Option<Timestamp>,
    ) -> Result<(), Error> {
        let sql = "UPDATE leases SET deadline = $3 WHERE fence = $2 AND build = \
                   (SELECT position FROM builds WHERE id = $1)";
        self.db.run(sql, args![build, fence, deadline]).await.map(drop)
    }

    /// Ends the leases of lost workers and of phases that took too long, and returns the builds
    /// that changed: they wait again, failed, or are cancelled when somebody wanted that. A run that
    /// somebody wants to stop waits for the next driver, which stops its builds. To be called often;
    /// it costs one look into an index when there is nothing to do.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire(&self, now: Timestamp) -> Result<Vec<BuildId>, Error> {
        let sql = "SELECT b.id, l.fence FROM leases l JOIN builds b ON b.position = l.build \
                   WHERE l.expires_at < $1 ORDER BY l.expires_at LIMIT $2";
        let lost = self.db.all(sql, args![now, EXPIRED_AT_ONCE]).await?;
        let sql = "SELECT b.id, l.fence FROM leases l JOIN builds b ON b.position = l.build \
                   WHERE l.deadline < $1 ORDER BY l.deadline LIMIT $2";
        let late = self.db.all(sql, args![now, EXPIRED_AT_ONCE]).await?;
        let mut changed = Vec::new();
        for row in lost.iter().chain(&late) {
            let build = row.build(0)?;
            let fence = row.count(1)?;
            if retried(|| self.end_lease(build, fence, now)).await? {
                changed.push(build);
            }
        }
        Ok(changed)
    }

    /// Ends one lease, unless the worker was heard of in the meantime.
    async fn end_lease(&self, build: BuildId, fence: u64, now: Timestamp) -> Result<bool, Error> {
        let mut tx = self.db.write().await?;
        let mut loaded = match builds::load(&mut tx, build).await {
            Err(Error::NoSuchBuild(_)) => return Ok(false),
            other => other?,
        };
        let sql = "SELECT expires_at, deadline FROM leases WHERE build = $1 AND fence = $2";
        let Some(row) = tx.maybe(sql, args![loaded.position, fence]).await? else {
            return Ok(false);
        };
        let late = row.maybe_time(1)?.is_some_and(|deadline| deadline < now);
        if !late && row.time(0)? >= now {
            return Ok(false);
        }
        let events = ending(&loaded, late).into_iter().map(|event| Stamped::new(now, event));
        journal::append(&mut tx, &mut loaded, None, events).await?;
        journal::announce(&mut tx, build).await?;
        tx.commit().await?;
        self.wakeups.wake(build);
        Ok(true)
    }
}

/// Returns what is to be written when a lease ends.
fn ending(loaded: &Loaded, late: bool) -> Vec<Event> {
    let failed =
        |failure| vec![Event::Failed(Box::new(failure)), Event::State { to: State::Failed }];
    let requeued =
        || vec![Event::Requeued { reason: "the worker was lost".into(), planned: false }];
    if loaded.record.cancellation.is_some() {
        // A run is not over before its builds are: somebody has to stop those first.
        let stops = loaded.record.submission.kind == BuildKind::Workflow;
        return match stops && loaded.record.may_run_again() {
            true => requeued(),
            false => vec![Event::State { to: State::Cancelled }],
        };
    }
    if late {
        let mut failure = Failure::new(FailureKind::Limit, "the phase took longer than allowed")
            .hint("raise the limit of time, or make the build faster");
        failure.limit = Some("time".into());
        return failed(failure);
    }
    if loaded.record.may_run_again() {
        return requeued();
    }
    let failure = Failure::new(FailureKind::Interrupted, "the worker was lost during the build");
    failed(failure.hint("start the build again"))
}
