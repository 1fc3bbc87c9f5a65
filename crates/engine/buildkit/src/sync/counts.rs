//! What was sent of contexts, and what the daemon had already.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::journal::{CacheEvent, Event, Sink};

/// The most files that get journal entries of their own, as with native builds.
const FILE_ENTRIES_MAX: usize = 1000;
/// The name under which a daemon asks for the Dockerfile.
const DOCKERFILE: &str = "dockerfile";

/// What a build sent to its daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Files and directories that the daemon was told of.
    pub listed: u64,
    /// Files whose bytes it asked for.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Counts for all transfers of a build.
pub(crate) struct Counts {
    sink: Arc<dyn Sink>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sent: Sent,
    counted: BTreeSet<(String, String)>,
}

impl Counts {
    pub(crate) fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink, state: Mutex::default() }
    }

    /// Returns all that was sent so far.
    pub(crate) fn sent(&self) -> Sent {
        self.state().sent
    }

    pub(super) fn tell(&self, entries: usize) {
        self.state().sent.listed += entries as u64;
    }

    pub(super) fn sent_file(&self, bytes: u64) {
        let mut state = self.state();
        state.sent.files += 1;
        state.sent.bytes += bytes;
    }

    /// Gives a file of a context its journal entries, once a build.
    pub(super) fn count_file(&self, context: &str, path: &str, sent: bool) {
        if context == DOCKERFILE {
            return;
        }
        let mut state = self.state();
        let is_new = state.counted.len() < FILE_ENTRIES_MAX
            && state.counted.insert((context.to_owned(), path.to_owned()));
        drop(state);
        if !is_new {
            return;
        }
        let statuses: &[CacheStatus] =
            if sent { &[CacheStatus::Miss, CacheStatus::Store] } else { &[CacheStatus::Hit] };
        for status in statuses {
            self.sink.event(Event::Cache(CacheEvent {
                cache: CacheKind::FileBlob,
                status: *status,
                step: None,
                subject: path.to_owned(),
                key: None,
                reason: None,
                bypass: None,
            }));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
