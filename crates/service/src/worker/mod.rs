//! The workers inside this process: claim, prepare, run on a thread, write the end.
//!
//! Whatever is written carries the claim's fencing number. A worker that was given up (its lease
//! ended, another took the build) finds its writes refused and stops.

mod end;
mod job;
mod pool;
mod stopped;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ashlar_core::Timestamp;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{BuildKind, Event, Level, LogLine, OnLost, Record, Sink};
use ashlar_records::{Claim, Error as StoreError, JournalWriter, now};
use ashlar_sandbox::Cancel;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use crate::error::{Away, chain};
use crate::{Definition, Finished, Service};
use job::Job;
pub(crate) use pool::Workers;
pub(crate) use stopped::Stopped;
use stopped::retried;

/// How often an idle worker looks for builds that other processes accepted.
const POLL: Duration = Duration::from_millis(250);
/// Builds that are claimed in one transaction.
const CLAIMED_AT_ONCE: usize = 8;
/// How often a blob store that does not answer is asked again.
const STORE_POLL: Duration = Duration::from_secs(1);
/// How often a running build is looked at for the wish to stop that another process took.
const WATCH: Duration = Duration::from_secs(1);

impl Service {
    /// Starts the workers and the upkeep, as tasks of the calling runtime.
    pub fn start(self: &Arc<Self>) {
        if self.config().slots > 0 {
            tokio::spawn(Arc::clone(self).dispatch());
        }
        tokio::spawn(Arc::clone(self).drive_runs());
        self.start_upkeep();
    }

    /// Takes builds as long as there are slots.
    async fn dispatch(self: Arc<Self>) {
        let slots = || Arc::clone(&self.workers().slots);
        loop {
            let Ok(permit) = slots().acquire_owned().await else { return };
            let mut permits = vec![permit];
            while permits.len() < CLAIMED_AT_ONCE
                && let Ok(permit) = slots().try_acquire_owned()
            {
                permits.push(permit);
            }
            let Some(records) = self.next_builds(permits.len()).await else { return };
            for (record, permit) in records.into_iter().zip(permits) {
                tokio::spawn(Arc::clone(&self).work(record, permit));
            }
        }
    }

    /// Waits for the next builds, so many at most; none when the server ends.
    async fn next_builds(self: &Arc<Self>, most: usize) -> Option<Vec<Record>> {
        let claim = Claim {
            worker: self.workers().id,
            kind: BuildKind::Build,
            backends: vec!["native".into(), "buildkit".into()],
            slots: u32::try_from(self.workers().slots_count()).unwrap_or(u32::MAX),
        };
        loop {
            if self.workers().is_draining() {
                return None;
            }
            self.wait_for_blob_store().await;
            let claimed = self.store().claim_up_to(&claim, most, now);
            match self.counters().timed("claim", claimed).await {
                Ok(records) if records.is_empty() => {}
                Ok(records) => return Some(records),
                Err(error) => tracing::warn!(error = chain(&error), "cannot look at the queue"),
            }
            // A wake-up that comes while nobody waits is kept.
            let _ = timeout(POLL, self.workers().wake.notified()).await;
        }
    }

    /// Waits, after a build has failed because the blob store did not answer, until it does: one
    /// build after the other would use up its attempts otherwise.
    async fn wait_for_blob_store(self: &Arc<Self>) {
        while self.workers().is_store_away() && !self.workers().is_draining() {
            match self.blocking(|service| Ok(service.blobs().check_remote()?)).await {
                Ok(()) => self.workers().set_store_away(false),
                Err(_) => sleep(STORE_POLL).await,
            }
        }
    }

    /// Runs one claimed build to its end.
    async fn work(self: Arc<Self>, record: Record, permit: OwnedSemaphorePermit) {
        let build = record.submission.build;
        let cancel = match Cancel::new() {
            Ok(cancel) => cancel,
            Err(error) => {
                // The lease ends by itself, and the build runs again.
                tracing::error!(%build, error = chain(&error), "cannot start a build");
                return;
            }
        };
        self.workers().register(build, record.fence, &cancel);
        self.counters().started(&record);
        let cap = Some(self.log_cap(&record));
        let writer = JournalWriter::spawn_capped(self.store().clone(), build, record.fence, cap);
        let result = {
            let run = self.run(&record, &writer, &cancel);
            let watch = self.watch(&record, &writer, &cancel);
            tokio::pin!(run);
            tokio::select! {
                result = &mut run => result,
                () = watch => run.await,
            }
        };
        if matches!(result, Err(Stopped::Away(Away::BlobStore))) {
            self.workers().set_store_away(true);
        }
        // What is left waits for the disk, not for a processor.
        drop(permit);
        if let Err(error) = self.end(&record, &writer, &cancel, result).await {
            tracing::warn!(%build, error = error.internal_text(), "a build's end was not written");
        }
        self.workers().forget(build, record.fence);
    }

    /// Returns what the log of an attempt may hold.
    fn log_cap(&self, record: &Record) -> u64 {
        let most = self.config().log_cap;
        let asked = Definition::of(record).ok().and_then(|d| d.limits.log_bytes);
        asked.map_or(most, |asked| asked.min(most))
    }

    /// Calls `cancel` when the build shall stop, and returns then.
    async fn watch(&self, record: &Record, writer: &JournalWriter, cancel: &Cancel) {
        let build = record.submission.build;
        let by_others = async {
            loop {
                sleep(WATCH).await;
                if is_over(&self.store().row(build).await, record.fence) {
                    return;
                }
            }
        };
        tokio::select! {
            () = writer.cancelled() => {}
            () = by_others => {}
        }
        cancel.cancel();
    }

    async fn run(
        self: &Arc<Self>,
        record: &Record,
        writer: &JournalWriter,
        cancel: &Cancel,
    ) -> Result<Finished, Stopped> {
        let definition = Definition::of(record).map_err(Stopped::broken)?;
        let requested = record.submission.backend.as_deref();
        let executor = self.executors().choose(requested, &definition);
        let why = self.executors().why_not(requested, executor.name(), &definition);
        announce(record, writer, executor.name(), why);
        let build = record.submission.build;
        let secrets = tokio::select! {
            secrets = self.lease_out(record, &definition) => {
                secrets.map_err(|e| Stopped::broken(e.into()))?
            }
            // Whatever the database would say comes too late.
            () = writer.cancelled() => return Err(Stopped::told()),
        };
        let job = Job {
            service: Arc::clone(self),
            record: record.clone(),
            definition,
            secrets,
            executor: Arc::clone(executor),
            writer: writer.clone(),
            cancel: cancel.clone(),
        };
        let done = tokio::task::spawn_blocking(move || job.run()).await;
        done.unwrap_or_else(|panic| {
            tracing::error!(%build, error = chain(&panic), "the executor panicked");
            let text = "the executor broke; the server's log says more";
            Err(Failure::new(FailureKind::Internal, text).into())
        })
    }

    /// Sets when the build has to be over, and returns its secrets.
    async fn lease_out(
        &self,
        record: &Record,
        definition: &Definition,
    ) -> Result<BTreeMap<String, Vec<u8>>, StoreError> {
        let (build, fence) = (record.submission.build, record.fence);
        if let Some(seconds) = definition.limits.build_seconds {
            let nanos = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
            let deadline = Some(Timestamp::from_nanos(now().nanos().saturating_add(nanos)));
            retried(build, || self.store().set_deadline(build, fence, deadline)).await?;
        }
        let secrets = || self.store().build_secrets(self.keys(), build, fence);
        let secrets = retried(build, secrets).await?;
        Ok(secrets.into_iter().map(|(id, s)| (id, s.expose().to_vec())).collect())
    }
}

/// Says whether an attempt is to stop, as far as the database tells. One that does not answer, or
/// answers something else, tells nothing.
fn is_over(looked: &Result<Record, StoreError>, fence: u64) -> bool {
    match looked {
        Ok(row) => !holds(row, fence),
        Err(error) => matches!(error, StoreError::NoSuchBuild(_)),
    }
}

/// Says whether an attempt is still to go on.
fn holds(row: &Record, fence: u64) -> bool {
    row.fence == fence && row.state.is_active() && row.cancellation.is_none()
}

/// Says which executor runs the build, and why it is not the one that was asked for.
fn announce(record: &Record, writer: &JournalWriter, ran: &str, why: Option<String>) {
    let requested = record.submission.backend.clone();
    let reason = why.map(|why| format!("{why}; {ran} runs the build"));
    if let Some(text) = &reason {
        writer.event(Event::Log(LogLine::service(Level::Info, text.clone())));
    }
    writer.event(Event::Executor { requested, ran: ran.to_owned(), reason });
    if record.attempt > 1
        && let OnLost::Requeue { attempts_max } = record.submission.on_lost
    {
        let counted = record.attempts_counted();
        let text = match record.attempts_spared {
            0 => format!("attempt {counted} of {attempts_max}"),
            spared => format!(
                "attempt {counted} of {attempts_max}, beside {spared} that ended with the server"
            ),
        };
        writer.event(Event::Log(LogLine::service(Level::Warn, text)));
    }
}

#[cfg(test)]
mod tests {
    use ashlar_core::BuildId;

    use super::*;

    #[test]
    fn only_a_row_or_its_absence_stops_an_attempt() {
        let fault = || Err(StoreError::Damaged { what: "a row".into(), why: "of a test".into() });
        assert!(!is_over(&fault(), 1));
        assert!(!is_over(&Err(StoreError::Gone), 1));
        let build = BuildId::from_parts(1, [1; 10]);
        assert!(is_over(&Err(StoreError::NoSuchBuild(build)), 1));
    }
}
