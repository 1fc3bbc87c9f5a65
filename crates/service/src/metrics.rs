//! Numbers for operators.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ashlar_core::journal::Record;
use ashlar_core::state::State;

use crate::{Error, Service};

/// What this process has counted since it started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    started: AtomicU64,
    ended: [AtomicU64; State::ALL.len()],
    waited_nanos: AtomicU64,
    ran_nanos: AtomicU64,
}

impl Counters {
    pub(crate) fn started(&self, record: &Record) {
        self.started.fetch_add(1, Ordering::Relaxed);
        let waited = record.started_at.unwrap_or(record.updated_at).since(record.queued_at);
        add(&self.waited_nanos, waited);
    }

    pub(crate) fn ended(&self, record: &Record) {
        self.ended[record.state as usize].fetch_add(1, Ordering::Relaxed);
        add(&self.ran_nanos, record.duration().unwrap_or_default());
    }
}

fn add(counter: &AtomicU64, time: Duration) {
    counter.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Numbers at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// Builds that wait, in the whole installation.
    pub waiting: u64,
    /// Builds that run in this process.
    pub running: u64,
    /// Builds that may run in this process at once.
    pub slots: u64,
    /// Builds that this process has started.
    pub started: u64,
    /// Attempts that ended in this process, by the state after them (`queued`: to run again).
    pub ended: Vec<(State, u64)>,
    /// Seconds that started builds had waited, in all.
    pub waited_seconds: f64,
    /// Seconds that ended builds had run, in all.
    pub ran_seconds: f64,
}

impl Service {
    /// Returns the numbers now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn metrics(&self) -> Result<Metrics, Error> {
        let c = self.counters();
        let seconds = |n: &AtomicU64| Duration::from_nanos(n.load(Ordering::Relaxed)).as_secs_f64();
        let ended = |s: &State| (*s, c.ended[*s as usize].load(Ordering::Relaxed));
        Ok(Metrics {
            waiting: self.waiting().await?,
            running: self.workers().running_count() as u64,
            slots: self.workers().slots_count() as u64,
            started: c.started.load(Ordering::Relaxed),
            ended: State::ALL.iter().map(ended).collect(),
            waited_seconds: seconds(&c.waited_nanos),
            ran_seconds: seconds(&c.ran_nanos),
        })
    }
}
