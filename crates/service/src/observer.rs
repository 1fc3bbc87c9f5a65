//! Somebody outside of the service who wants to know how builds went, for example a tracing system.

use ashlar_core::BuildId;
use ashlar_core::journal::{Entry, Event, Record};
use ashlar_records::{Stamped, Writer, now};
use serde_json::json;

use crate::client::ClientInfo;
use crate::error::chain;
use crate::recipe::NOTE_DIALECT;
use crate::{Error, Service};

/// The note that holds the trace that a submission belongs to.
const TRACE_KEY: &str = "trace_parent";
/// Entries that are read at once.
const PIECE: usize = 10_000;
/// Entries of one attempt that an observer is given; log lines do not count.
const ENTRIES_MAX: usize = 100_000;

/// Is told of every attempt that ended in this process.
pub trait Observer: Send + Sync {
    /// Takes the build's row after the attempt and its journal without log lines. Called on a task
    /// of the service, which waits for nothing: hand on what takes long.
    fn attempt_ended(&self, record: &Record, journal: &[Entry]);
}

/// Returns the W3C trace parent that a build was submitted with.
pub fn trace_parent(journal: &[Entry]) -> Option<&str> {
    journal.iter().find_map(|entry| match &entry.event {
        Event::Note { dialect, value } if dialect == NOTE_DIALECT => value.get(TRACE_KEY)?.as_str(),
        _ => None,
    })
}

impl Service {
    /// Tells the observer of an attempt's end, beside whatever else goes on.
    pub(crate) fn tell_observer(&self, record: &Record) {
        let Some(observer) = self.config().observer.clone() else { return };
        let (store, record) = (self.store().clone(), record.clone());
        tokio::spawn(async move {
            match told(&store, record.submission.build).await {
                Ok(journal) => observer.attempt_ended(&record, &journal),
                Err(error) => tracing::warn!(error = chain(&error), "a build was not observed"),
            }
        });
    }

    /// Writes down which trace the request at work belongs to, when it said so.
    pub(crate) async fn note_trace(&self, build: BuildId) -> Result<(), Error> {
        let client = ClientInfo::current();
        let Some(parent) = client.trace_parent() else { return Ok(()) };
        let value = json!({ TRACE_KEY: parent });
        let event = Event::Note { dialect: NOTE_DIALECT.into(), value };
        self.store().append(build, Writer::Service, [Stamped::new(now(), event)]).await?;
        Ok(())
    }
}

async fn told(
    store: &ashlar_records::Store,
    build: BuildId,
) -> Result<Vec<Entry>, ashlar_records::Error> {
    let (mut journal, mut from) = (Vec::new(), 0);
    while journal.len() < ENTRIES_MAX {
        // Rows of a log are passed over, and not taken apart.
        let entries = store.events(build, from, PIECE.min(ENTRIES_MAX - journal.len())).await?;
        let Some(last) = entries.last() else { break };
        from = last.number + 1;
        journal.extend(entries);
    }
    journal.truncate(ENTRIES_MAX);
    Ok(journal)
}
