//! How a build's end is written.

use std::sync::atomic::Ordering;

use ashlar_core::TenantId;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{Event, Record, Sink};
use ashlar_core::state::State;
use ashlar_records::{JournalWriter, NewAlias, Stamped, now};
use ashlar_sandbox::Cancel;

use super::stopped::{Stopped, retried};
use crate::{Definition, Error, Finished, Service, promote};

impl Service {
    /// Writes how a build ended.
    pub(super) async fn end(
        &self,
        record: &Record,
        writer: &JournalWriter,
        cancel: &Cancel,
        result: Result<Finished, Stopped>,
    ) -> Result<(), Error> {
        let tenant = record.submission.tenant;
        if let Ok(finished) = &result {
            for artifact in &finished.artifacts {
                writer.event(Event::Artifact(artifact.clone()));
            }
        }
        writer.end_log();
        // An error: the attempt was given up, or the build has ended; nothing more is ours to write.
        writer.flush().await?;
        // The writer's own row may be from before somebody wished to stop.
        let build = record.submission.build;
        let row = retried(build, || self.store().row(build)).await?;
        let giving_up = self.workers().giving_up.load(Ordering::Acquire);
        let (events, names) = match result {
            Ok(_) => (vec![Event::State { to: State::Succeeded }], names_of(record, tenant)),
            Err(_) if row.cancellation.is_some() => {
                (vec![Event::State { to: State::Cancelled }], Vec::new())
            }
            Err(_) if cancel.is_cancelled() && giving_up => {
                (interrupted(&row, "the server was shut down"), Vec::new())
            }
            Err(Stopped::Away(what)) => {
                (interrupted(&row, &format!("{what} did not answer")), Vec::new())
            }
            Err(Stopped::Failed(failure)) => {
                let failed = Event::Failed(Box::new(failure));
                (vec![failed, Event::State { to: State::Failed }], Vec::new())
            }
        };
        let row = self.write_end(record, &events, &names).await?;
        self.counters().ended(&row);
        self.tell_observer(&row);
        tracing::info!(
            build = %record.submission.build,
            state = row.state.as_str(),
            attempt = row.attempt,
            "build ended"
        );
        Ok(())
    }

    async fn write_end(
        &self,
        record: &Record,
        events: &[Event],
        names: &[NewAlias],
    ) -> Result<Record, Error> {
        let (build, fence) = (record.submission.build, record.fence);
        let finish = || {
            let stamp = |event: &Event| Stamped::new(now(), event.clone());
            let stamped: Vec<Stamped> = events.iter().map(stamp).collect();
            self.counters().timed("finish", self.store().finish(build, fence, stamped, names))
        };
        Ok(retried(build, finish).await?)
    }
}

/// What is written when a build was stopped by no fault of its own.
fn interrupted(row: &Record, why: &str) -> Vec<Event> {
    if row.may_run_again() {
        return vec![Event::Requeued { reason: why.into() }];
    }
    let text = format!("{why} during the build");
    let failure = Failure::new(FailureKind::Interrupted, text).hint("start the build again");
    vec![Event::Failed(Box::new(failure)), Event::State { to: State::Failed }]
}

fn names_of(record: &Record, tenant: TenantId) -> Vec<NewAlias> {
    let Ok(definition) = Definition::of(record) else { return Vec::new() };
    let native = definition.tags.iter().map(|tag| promote::alias(tenant, tag));
    let own = definition.own_tags.iter().map(|tag| promote::own_alias(tenant, tag));
    native.chain(own).chain(definition.names.iter().map(|n| n.alias(tenant))).collect()
}
