//! How a build's end is written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ashlar_core::TenantId;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{Event, Record};
use ashlar_core::state::State;
use ashlar_records::{Ending, JournalWriter, NewAlias};
use ashlar_sandbox::Cancel;

use super::stopped::Stopped;
use crate::{Definition, Error, Finished, Service, promote, push};

impl Service {
    /// Writes how a build ended.
    pub(super) async fn end(
        &self,
        record: &Record,
        writer: &JournalWriter,
        cancel: &Cancel,
        result: Result<Finished, Stopped>,
    ) -> Result<(), Error> {
        let giving_up = cancel.is_cancelled() && self.workers().giving_up.load(Ordering::Acquire);
        let names = names_of(record, record.submission.tenant);
        let decide = move |row: &Record| {
            let events = last_words(row, &result, giving_up);
            let good = matches!(events.last(), Some(Event::State { to: State::Succeeded }));
            Ending { events, names: if good { names.clone() } else { Vec::new() } }
        };
        // An error: the attempt was given up, or the build has ended; nothing more is ours to write.
        let row = self.counters().timed("finish", writer.finish(Arc::new(decide))).await?;
        self.counters().ended(&row);
        self.tell_observer(&row);
        let build = record.submission.build;
        tracing::info!(%build, state = row.state.as_str(), attempt = row.attempt, "build ended");
        Ok(())
    }
}

/// Returns what is written when an attempt has ended.
fn last_words(row: &Record, result: &Result<Finished, Stopped>, giving_up: bool) -> Vec<Event> {
    let state = |to| Event::State { to };
    let cancelled = row.cancellation.is_some();
    let stopped = match result {
        // The wish to stop came too late where others have what was made: to say that the build was
        // cancelled would be untrue.
        Ok(finished) if !cancelled || row.effect_began || was_pushed(finished) => {
            let made = finished.artifacts.iter().cloned().map(Event::Artifact);
            return made.chain([state(State::Succeeded)]).collect();
        }
        Ok(_) => return vec![state(State::Cancelled)],
        Err(stopped) => stopped,
    };
    match stopped {
        _ if cancelled => vec![state(State::Cancelled)],
        _ if giving_up => handed_over(row),
        Stopped::Away(what) => interrupted(row, &format!("{what} did not answer")),
        Stopped::Failed(failure) => {
            vec![Event::Failed(Box::new(failure.clone())), state(State::Failed)]
        }
    }
}

fn was_pushed(finished: &Finished) -> bool {
    finished.artifacts.iter().any(|artifact| artifact.kind == push::KIND)
}

/// What is written when the server ends while a build runs: that uses up no attempt.
fn handed_over(row: &Record) -> Vec<Event> {
    const WHY: &str = "the server was shut down";
    if row.may_be_handed_over() {
        return vec![Event::Requeued { reason: WHY.into(), planned: true }];
    }
    interrupted(row, WHY)
}

/// What is written when a build was stopped by no fault of its own.
fn interrupted(row: &Record, why: &str) -> Vec<Event> {
    if row.may_run_again() {
        return vec![Event::Requeued { reason: why.into(), planned: false }];
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
