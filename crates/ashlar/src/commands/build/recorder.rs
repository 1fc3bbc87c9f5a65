//! Writes a build into the history, which opens while the build begins: a build that is answered
//! from the cache is over almost before a database is open.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use ashlar_core::failure::Failure;
use ashlar_core::journal::{Event, Progress, Record, Sink, Submission};
use ashlar_core::state::State;
use ashlar_records::blocking::{BuildWriter, LocalHistory};
use ashlar_sandbox::Cancel;

use crate::progress::Display;

/// Passes what happens on to the history and to the view.
pub(super) struct Hub {
    display: Display,
    journal: Mutex<Journal>,
}

enum Journal {
    /// What was said before the history was open.
    Waiting(Vec<Event>),
    Open(BuildWriter),
    /// The history cannot be written; the build is being stopped.
    Lost,
}

impl Hub {
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Hub {
    fn event(&self, event: Event) {
        self.display.lock().event(&event);
        match &mut *self.journal() {
            Journal::Waiting(events) => events.push(event),
            Journal::Open(writer) => writer.event(event),
            Journal::Lost => {}
        }
    }

    fn progress(&self, progress: Progress) {
        self.display.lock().progress(&progress);
    }
}

/// A build's way into the history.
pub(super) struct Recorder {
    hub: Arc<Hub>,
    opening: JoinHandle<Result<BuildWriter>>,
}

impl Recorder {
    /// Begins a build. When the history cannot be opened, `cancel` is called and
    /// [`Recorder::finish`] says why.
    pub(super) fn begin(
        database: PathBuf,
        submission: impl FnOnce(&LocalHistory) -> Submission + Send + 'static,
        display: Display,
        cancel: Cancel,
    ) -> Self {
        let hub = Arc::new(Hub { display, journal: Mutex::new(Journal::Waiting(Vec::new())) });
        let shared = hub.clone();
        let opening = std::thread::spawn(move || {
            let open = || -> Result<BuildWriter> {
                let history = LocalHistory::open(&database)?;
                Ok(history.begin(submission(&history))?)
            };
            let writer = open().inspect_err(|_| cancel.cancel());
            let mut journal = shared.journal();
            let next = writer.as_ref().map_or(Journal::Lost, |w| Journal::Open(w.clone()));
            let before = std::mem::replace(&mut *journal, next);
            if let (Journal::Waiting(events), Ok(writer)) = (before, &writer) {
                events.into_iter().for_each(|event| writer.event(event));
            }
            writer
        });
        Self { hub, opening }
    }

    /// Returns where the engine tells what happens.
    pub(super) fn sink(&self) -> Arc<Hub> {
        self.hub.clone()
    }

    /// Ends the build; it is in the history on return.
    ///
    /// # Errors
    /// When the history could not be opened or written.
    pub(super) fn finish(self, state: State, failure: Option<&Failure>) -> Result<Record> {
        let opened = self.opening.join();
        let writer =
            opened.map_err(|_| anyhow!("the thread that opens the history panicked"))??;
        if state == State::Cancelled {
            writer.event(Event::CancelRequested { by: "user".into(), reason: None });
        }
        Ok(writer.finish(state, failure.cloned())?)
    }
}

#[cfg(test)]
mod tests {
    use ashlar_core::Digest;
    use ashlar_core::journal::{BuildKind, LogLine, Mode, OnLost};

    use super::*;
    use crate::progress::{ProgressKind, view};

    fn submission(history: &LocalHistory) -> Submission {
        Submission {
            build: history.new_build_id().unwrap(),
            tenant: history.tenant(),
            scope: "s".into(),
            principal: history.principal(),
            dialect: "local".into(),
            kind: BuildKind::Build,
            parent: None,
            retry_of: None,
            name: "n".into(),
            source: "dockerfile".into(),
            definition: serde_json::Value::Null,
            definition_digest: Digest::of("d"),
            backend: None,
            on_lost: OnLost::Fail,
            mode: Mode::Managed,
            priority: 0,
            labels: Default::default(),
        }
    }

    fn line(i: usize) -> Event {
        Event::Log(LogLine::service(ashlar_core::journal::Level::Info, i.to_string()))
    }

    #[test]
    fn what_is_said_while_the_history_opens_is_kept_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (database, cancel) = (dir.path().join("history.db"), Cancel::new().unwrap());
        let display = Display::new(view(ProgressKind::Quiet));
        let recorder = Recorder::begin(database.clone(), submission, display, cancel);
        let sink = recorder.sink();
        (0..500).for_each(|i| sink.event(line(i)));
        let record = recorder.finish(State::Failed, None).unwrap();
        let history = LocalHistory::open(&database).unwrap();
        let entries = history.journal(record.submission.build, 0, 1000).unwrap();
        let said: Vec<Event> = entries.into_iter().map(|e| e.event).collect();
        let lines: Vec<Event> = said.into_iter().filter(|e| matches!(e, Event::Log(_))).collect();
        assert_eq!(lines, (0..500).map(line).collect::<Vec<_>>());
    }

    #[test]
    fn a_history_that_cannot_be_opened_stops_the_build_and_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let cancel = Cancel::new().unwrap();
        let display = Display::new(view(ProgressKind::Quiet));
        let database = dir.path().join("missing/history.db");
        let recorder = Recorder::begin(database, submission, display, cancel.clone());
        let error = recorder.finish(State::Cancelled, None).unwrap_err();
        assert!(cancel.is_cancelled() && error.to_string().contains("cannot open"), "{error:#}");
    }
}
