//! Numbers for operators, in a registry of Prometheus' own client library. Names follow its
//! conventions: base units, counters end in `_total`, one meaning a name.

use std::time::{Duration, Instant};

use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::journal::{Event, Record};
use ashlar_core::state::State;
use ashlar_records::{At, Filter, Order, Page};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::service::{READY_MAX, within};
use crate::{Away, Error, Service};

/// Bounds of the histograms of builds, in seconds: from a cache hit to a large compilation.
const BUILD_SECONDS: &[f64] =
    &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0];
/// Bounds of the histogram of the database's answers, in seconds.
const STORE_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5];

/// What this process has counted since it started, and what it reads when it is asked.
#[derive(Debug)]
pub(crate) struct Counters {
    registry: Registry,
    builds: IntGaugeVec,
    running: IntGauge,
    slots: IntGauge,
    started: IntCounter,
    ended: IntCounterVec,
    waited: HistogramVec,
    ran: HistogramVec,
    cache: IntCounterVec,
    log_bytes: IntCounter,
    store: HistogramVec,
}

impl Counters {
    pub(crate) fn new() -> Result<Self, Error> {
        Self::made().map_err(Error::internal)
    }

    fn made() -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("ashlar_{name}"), help);
        let seconds = |name: &str, help: &str, bounds: &[f64]| {
            HistogramOpts::from(opts(name, help)).buckets(bounds.to_vec())
        };
        let waited = seconds(
            "build_queue_duration_seconds",
            "Time that attempts waited before they were started.",
            BUILD_SECONDS,
        );
        let ran = seconds(
            "build_duration_seconds",
            "Time that attempts ran, by the state after them.",
            BUILD_SECONDS,
        );
        let store =
            seconds("store_duration_seconds", "Time of database operations.", STORE_SECONDS);
        let builds = opts("builds", "Builds that are known, by state, of all servers and tenants.");
        let running = opts("worker_slots_busy", "Builds that run in this process.");
        let slots = opts("worker_slots", "Builds that may run in this process at once.");
        let started = opts("attempts_started_total", "Attempts that this process began.");
        let ended = opts(
            "attempts_ended_total",
            "Attempts that ended in this process, by the state after them (queued: to run again).",
        );
        let cache = opts("cache_results_total", "Results of caches, by cache and result.");
        let log_bytes = opts("log_bytes_total", "Bytes that steps wrote to their logs.");
        let counters = Self {
            registry: Registry::new(),
            builds: IntGaugeVec::new(builds, &["state"])?,
            running: IntGauge::with_opts(running)?,
            slots: IntGauge::with_opts(slots)?,
            started: IntCounter::with_opts(started)?,
            ended: IntCounterVec::new(ended, &["state"])?,
            waited: HistogramVec::new(waited, &[])?,
            ran: HistogramVec::new(ran, &["state"])?,
            cache: IntCounterVec::new(cache, &["cache", "result"])?,
            log_bytes: IntCounter::with_opts(log_bytes)?,
            store: HistogramVec::new(store, &["operation"])?,
        };
        counters.register()?;
        Ok(counters)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let info = Opts::new("ashlar_build_info", "The version of this program; always 1.");
        let info = IntGauge::with_opts(info.const_label("version", env!("CARGO_PKG_VERSION")))?;
        info.set(1);
        let all: [Box<dyn prometheus::core::Collector>; 11] = [
            Box::new(info),
            Box::new(self.builds.clone()),
            Box::new(self.running.clone()),
            Box::new(self.slots.clone()),
            Box::new(self.started.clone()),
            Box::new(self.ended.clone()),
            Box::new(self.waited.clone()),
            Box::new(self.ran.clone()),
            Box::new(self.cache.clone()),
            Box::new(self.log_bytes.clone()),
            Box::new(self.store.clone()),
        ];
        // A rate needs the zero before the first event.
        for state in &State::ALL {
            self.ended.with_label_values(&[state.as_str()]);
        }
        all.into_iter().try_for_each(|one| self.registry.register(one))
    }

    pub(crate) fn started(&self, record: &Record) {
        self.started.inc();
        let waited = record.started_at.unwrap_or(record.updated_at).since(record.queued_at);
        self.waited.with_label_values::<&str>(&[]).observe(waited.as_secs_f64());
    }

    pub(crate) fn ended(&self, record: &Record) {
        let state = [record.state.as_str()];
        self.ended.with_label_values(&state).inc();
        let ran: Duration = record.duration().unwrap_or_default();
        self.ran.with_label_values(&state).observe(ran.as_secs_f64());
    }

    /// Counts what a build says while it runs.
    pub(crate) fn said(&self, event: &Event) {
        match event {
            Event::Log(line) => {
                let bytes = line.raw.as_ref().map_or(line.text.len(), Vec::len);
                self.wrote(bytes + usize::from(!line.partial));
            }
            Event::Cache(cache) => {
                let labels = [cache_word(cache.cache), result_word(cache.status)];
                self.cache.with_label_values(&labels).inc();
            }
            _ => {}
        }
    }

    /// Counts what steps write.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.log_bytes.inc_by(bytes as u64);
    }

    /// Measures an operation of the database.
    pub(crate) async fn timed<F: Future>(&self, operation: &str, work: F) -> F::Output {
        let begun = Instant::now();
        let done = work.await;
        let took = begun.elapsed().as_secs_f64();
        self.store.with_label_values(&[operation]).observe(took);
        done
    }
}

const fn cache_word(cache: CacheKind) -> &'static str {
    match cache {
        CacheKind::Layer => "layer",
        CacheKind::FileBlob => "file_blob",
        CacheKind::FinalArtifact => "final_artifact",
    }
}

const fn result_word(status: CacheStatus) -> &'static str {
    match status {
        CacheStatus::Hit => "hit",
        CacheStatus::Miss => "miss",
        CacheStatus::Bypass => "bypass",
        CacheStatus::Store => "store",
    }
}

impl Service {
    /// Returns the registry of this service's numbers, for a door to add its own to.
    pub fn metrics_registry(&self) -> &Registry {
        &self.counters().registry
    }

    /// Brings the numbers that are read from the database and the workers up to date, those of the
    /// database only if it answers within [`READY_MAX`]: who scrapes them does not wait for long.
    ///
    /// # Errors
    /// When the database fails, or does not answer in time; its numbers are the old ones then.
    pub async fn update_metrics(&self) -> Result<(), Error> {
        let c = self.counters();
        c.running.set(count(self.workers().running_count() as u64));
        c.slots.set(count(self.workers().slots_count() as u64));
        within(READY_MAX, Away::Database, self.count_builds()).await
    }

    async fn count_builds(&self) -> Result<(), Error> {
        let c = self.counters();
        for state in &State::ALL {
            let filter = Filter { state: Some(*state), ..Filter::default() };
            // A page by its number comes with the total, from counts by block.
            let page = Page { size: 1, at: At::Number(1), order: Order::NewestFirst };
            let listed = c.timed("count", self.store().list(&filter, &page)).await?;
            let builds = listed.total.unwrap_or_default();
            c.builds.with_label_values(&[state.as_str()]).set(count(builds));
        }
        Ok(())
    }
}

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
