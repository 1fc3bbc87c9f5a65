//! The workers inside this process: claim, prepare, run on a thread, write the end.
//!
//! Whatever is written carries the claim's fencing number. A worker that was given up (its lease
//! ended, another took the build) finds its writes refused and stops.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::Answers;
use ashlar_core::graph::Network;
use ashlar_core::journal::{
    ArtifactRecord, BuildKind, Event, Level, LogLine, OnLost, Record, Sink,
};
use ashlar_core::state::State;
use ashlar_core::{BuildId, TenantId, Timestamp, WorkerId};
use ashlar_native::BuildRequest;
use ashlar_records::{Claim, JournalWriter, NewAlias, Stamped, now};
use ashlar_sandbox::Cancel;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::contexts::Held;
use crate::error::chain;
use crate::recipe::{Guarded, answers_note, decode_answers, encode_answers};
use crate::{Definition, Error, Finished, Service, promote};

/// How often an idle worker looks for builds that other processes accepted.
const POLL: Duration = Duration::from_millis(250);
/// How often a running build is looked at for the wish to stop that another process took.
const WATCH: Duration = Duration::from_secs(1);
/// How long the end of a build is tried to be written while the database does not answer.
const END_RETRY_MAX: Duration = Duration::from_secs(60);
/// The largest blob of answers, in bytes.
const ANSWERS_BYTES_MAX: u64 = 64 << 20;

/// The workers' shared state.
#[derive(Debug)]
pub(crate) struct Workers {
    id: WorkerId,
    slots: Arc<Semaphore>,
    slots_count: usize,
    wake: Notify,
    draining: AtomicBool,
    /// Builds that a drain has given up.
    giving_up: AtomicBool,
    /// The attempts at work, by their fencing numbers too: a new attempt may begin here before the
    /// one that was given up has ended.
    running: Mutex<HashMap<BuildId, (u64, Cancel)>>,
    /// Signalled when a build has ended.
    ended: Notify,
    /// True once a drain is over.
    stopped: watch::Sender<bool>,
}

impl Workers {
    pub(crate) fn new(id: WorkerId, slots: usize) -> Self {
        Self {
            id,
            slots: Arc::new(Semaphore::new(slots)),
            slots_count: slots,
            wake: Notify::new(),
            draining: AtomicBool::new(false),
            giving_up: AtomicBool::new(false),
            running: Mutex::default(),
            ended: Notify::new(),
            stopped: watch::Sender::new(false),
        }
    }

    /// Lets an idle worker look at the queue.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Stops a build if it runs here.
    pub(crate) fn cancel(&self, build: BuildId) {
        if let Some((_, cancel)) = self.running().get(&build) {
            cancel.cancel();
        }
    }

    pub(crate) fn running_count(&self) -> usize {
        self.running().len()
    }

    pub(crate) const fn slots_count(&self) -> usize {
        self.slots_count
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Takes no more builds.
    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake();
    }

    /// Stops all builds, to be run again by somebody else.
    pub(crate) fn give_up(&self) {
        self.giving_up.store(true, Ordering::Release);
        self.running().values().for_each(|(_, cancel)| cancel.cancel());
    }

    /// Waits until no build runs here.
    pub(crate) async fn idle(&self) {
        loop {
            let ended = self.ended.notified();
            if self.running_count() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Says that the drain is over.
    pub(crate) fn stop(&self) {
        self.stopped.send_replace(true);
    }

    pub(crate) async fn stopped(&self) {
        // The sender lives as long as `self`.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    fn running(&self) -> MutexGuard<'_, HashMap<BuildId, (u64, Cancel)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, build: BuildId, fence: u64, cancel: &Cancel) {
        self.running().insert(build, (fence, cancel.clone()));
        if self.giving_up.load(Ordering::Acquire) {
            cancel.cancel();
        }
    }

    fn forget(&self, build: BuildId, fence: u64) {
        let mut running = self.running();
        if running.get(&build).is_some_and(|(held, _)| *held == fence) {
            running.remove(&build);
        }
        drop(running);
        self.ended.notify_waiters();
        self.wake();
    }
}

impl Service {
    /// Starts the workers and the upkeep, as tasks of the calling runtime.
    pub fn start(self: &Arc<Self>) {
        if self.config().slots > 0 {
            tokio::spawn(Arc::clone(self).dispatch());
        }
        self.start_upkeep();
    }

    /// Takes builds as long as there are slots.
    async fn dispatch(self: Arc<Self>) {
        loop {
            let Ok(permit) = Arc::clone(&self.workers().slots).acquire_owned().await else {
                return;
            };
            let Some(record) = self.next_build().await else { return };
            tokio::spawn(Arc::clone(&self).work(record, permit));
        }
    }

    /// Waits for the next build; none when the server ends.
    async fn next_build(&self) -> Option<Record> {
        let claim = Claim {
            worker: self.workers().id,
            kind: BuildKind::Build,
            backends: vec!["native".into(), "buildkit".into()],
        };
        loop {
            if self.workers().is_draining() {
                return None;
            }
            match self.store().claim(&claim, now()).await {
                Ok(Some(record)) => return Some(record),
                Ok(None) => {}
                Err(error) => tracing::warn!(error = chain(&error), "cannot look at the queue"),
            }
            // A wake-up that comes while nobody waits is kept.
            let _ = timeout(POLL, self.workers().wake.notified()).await;
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
        let writer = JournalWriter::spawn(self.store().clone(), build, record.fence);
        let result = {
            let run = self.run(&record, &writer, &cancel);
            let watch = self.watch(&record, &writer, &cancel);
            tokio::pin!(run);
            tokio::select! {
                result = &mut run => result,
                () = watch => run.await,
            }
        };
        if let Err(error) = self.end(&record, &writer, &cancel, result).await {
            tracing::warn!(%build, error = error.internal_text(), "a build's end was not written");
        }
        self.workers().forget(build, record.fence);
        drop(permit);
    }

    /// Calls `cancel` when the build shall stop, and returns then.
    async fn watch(&self, record: &Record, writer: &JournalWriter, cancel: &Cancel) {
        let build = record.submission.build;
        let by_others = async {
            loop {
                sleep(WATCH).await;
                match self.store().row(build).await {
                    Ok(row) if holds(&row, record.fence) => {}
                    // A database that does not answer is no wish to stop.
                    Err(error) if error.is_transient() => {}
                    _ => return,
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
    ) -> Result<Finished, Failure> {
        let failed = |e: Error| Failure::new(FailureKind::Internal, e.internal_text());
        announce(record, writer, self.executor().name());
        let definition = Definition::of(record).map_err(failed)?;
        if let Some(seconds) = definition.limits.build_seconds {
            let nanos = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
            let deadline = Timestamp::from_nanos(now().nanos().saturating_add(nanos));
            let (build, fence) = (record.submission.build, record.fence);
            let set = self.store().set_deadline(build, fence, Some(deadline)).await;
            set.map_err(|e| failed(e.into()))?;
        }
        let build = record.submission.build;
        let secrets = self.store().build_secrets(self.keys(), build, record.fence).await;
        let secrets = secrets.map_err(|e| failed(e.into()))?;
        let secrets = secrets.into_iter().map(|(id, s)| (id, s.expose().to_vec())).collect();
        let job = Job {
            service: Arc::clone(self),
            record: record.clone(),
            definition,
            secrets,
            writer: writer.clone(),
            cancel: cancel.clone(),
        };
        let done = tokio::task::spawn_blocking(move || job.run()).await;
        done.unwrap_or_else(|panic| {
            tracing::error!(%build, error = chain(&panic), "the executor panicked");
            Err(Failure::new(
                FailureKind::Internal,
                "the executor broke; the server's log says more",
            ))
        })
    }

    /// Writes how a build ended.
    async fn end(
        &self,
        record: &Record,
        writer: &JournalWriter,
        cancel: &Cancel,
        result: Result<Finished, Failure>,
    ) -> Result<(), Error> {
        let tenant = record.submission.tenant;
        if let Ok(finished) = &result {
            for artifact in &finished.artifacts {
                writer.event(Event::Artifact(artifact.clone()));
            }
        }
        // An error: the attempt was given up, or the build has ended; nothing more is ours to write.
        writer.flush().await?;
        // The writer's own row may be from before somebody wished to stop.
        let row = self.store().row(record.submission.build).await?;
        let giving_up = self.workers().giving_up.load(Ordering::Acquire);
        let (events, names) = match result {
            Ok(_) => (vec![Event::State { to: State::Succeeded }], names_of(record, tenant)),
            Err(_) if row.cancellation.is_some() => {
                (vec![Event::State { to: State::Cancelled }], Vec::new())
            }
            Err(_) if cancel.is_cancelled() && giving_up => (interrupted(&row), Vec::new()),
            Err(failure) => {
                let failed = Event::Failed(Box::new(failure));
                (vec![failed, Event::State { to: State::Failed }], Vec::new())
            }
        };
        let row = self.write_end(record, &events, &names).await?;
        self.counters().ended(&row);
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
        let until = Instant::now() + END_RETRY_MAX;
        loop {
            let stamped: Vec<Stamped> =
                events.iter().map(|e| Stamped::new(now(), e.clone())).collect();
            let (build, fence) = (record.submission.build, record.fence);
            match self.store().finish(build, fence, stamped, names).await {
                Err(error) if error.is_transient() && Instant::now() < until => {
                    tracing::warn!(%build, error = chain(&error), "trying again to write the end");
                    sleep(POLL).await;
                }
                other => return Ok(other?),
            }
        }
    }
}

/// Says whether an attempt is still to go on.
fn holds(row: &Record, fence: u64) -> bool {
    row.fence == fence && row.state.is_active() && row.cancellation.is_none()
}

/// What is written when a drain has stopped a build.
fn interrupted(row: &Record) -> Vec<Event> {
    if row.may_run_again() {
        return vec![Event::Requeued { reason: "the server was shut down".into() }];
    }
    let text = "the server was shut down during the build";
    let failure = Failure::new(FailureKind::Interrupted, text).hint("start the build again");
    vec![Event::Failed(Box::new(failure)), Event::State { to: State::Failed }]
}

fn names_of(record: &Record, tenant: TenantId) -> Vec<NewAlias> {
    let Ok(definition) = Definition::of(record) else { return Vec::new() };
    let native = definition.tags.iter().map(|tag| promote::alias(tenant, tag));
    native.chain(definition.names.iter().map(|n| n.alias(tenant))).collect()
}

/// Says which executor runs the build, and why it is not the one that was asked for.
fn announce(record: &Record, writer: &JournalWriter, ran: &str) {
    let requested = record.submission.backend.clone();
    let differs = requested.as_deref().is_some_and(|r| r != ran);
    let reason = differs.then(|| format!("no other backend is configured; {ran} runs the build"));
    if let Some(text) = &reason {
        writer.event(Event::Log(LogLine::service(Level::Info, text.clone())));
    }
    writer.event(Event::Executor { requested, ran: ran.to_owned(), reason });
    if record.attempt > 1
        && let OnLost::Requeue { attempts_max } = record.submission.on_lost
    {
        let text = format!("attempt {} of {attempts_max}", record.attempt);
        writer.event(Event::Log(LogLine::service(Level::Warn, text)));
    }
}

/// One build on its thread.
struct Job {
    service: Arc<Service>,
    record: Record,
    definition: Definition,
    secrets: BTreeMap<String, Vec<u8>>,
    writer: JournalWriter,
    cancel: Cancel,
}

impl Job {
    fn run(self) -> Result<Finished, Failure> {
        let broken = |e: Error| match e {
            Error::Internal(_) => Failure::new(FailureKind::Internal, e.internal_text()),
            other => Failure::new(FailureKind::Source, other.public()),
        };
        let contexts = self.contexts().map_err(broken)?;
        let tenant = self.record.submission.tenant;
        let frozen = self.frozen().map_err(broken)?;
        let frontend = Guarded::new(&self.definition, tenant, frozen).map_err(broken)?;
        let frontend = Arc::new(frontend);
        let sink = Arc::new(AnswersSink {
            job_sink: self.writer.clone(),
            frontend: Arc::clone(&frontend),
            service: Arc::clone(&self.service),
            tenant,
            told: AtomicBool::new(false),
        });
        let request = self.request(frontend, sink, &contexts);
        let mut finished = self.service.executor().build(request, &self.cancel)?;
        for (name, bytes) in std::mem::take(&mut finished.files) {
            let digest = self.service.keep_blob(tenant, &bytes).map_err(broken)?;
            let (kind, bytes) = ("file".to_owned(), Some(bytes.len() as u64));
            let references = Vec::new();
            finished.artifacts.push(ArtifactRecord { name, kind, digest, bytes, references });
        }
        Ok(finished)
    }

    fn contexts(&self) -> Result<BTreeMap<String, Held>, Error> {
        let blobs = self.service.engine().images().blobs();
        let hold = |(name, digest): (&String, &ashlar_core::Digest)| {
            Ok((name.clone(), self.service.contexts().hold(blobs, *digest)?))
        };
        self.definition.contexts.iter().map(hold).collect()
    }

    fn frozen(&self) -> Result<Answers, Error> {
        let Some(digest) = &self.definition.answers else { return Ok(Answers::new()) };
        let blobs = self.service.engine().images().blobs();
        decode_answers(&blobs.read(digest, ANSWERS_BYTES_MAX)?)
    }

    fn request(
        &self,
        frontend: Arc<Guarded>,
        sink: Arc<AnswersSink>,
        contexts: &BTreeMap<String, Held>,
    ) -> BuildRequest {
        let (s, config) = (&self.record.submission, self.service.config());
        let network = match self.definition.network {
            Network::Default => config.network,
            // A tenant gets the host's network only when the operator made it the default.
            Network::Host => config.network,
            said => said,
        };
        BuildRequest {
            frontend,
            tenant: s.tenant.to_string(),
            scope: s.scope.clone(),
            name: s.name.clone(),
            build: s.build.to_string(),
            contexts: contexts.iter().map(|(n, held)| (n.clone(), held.path.clone())).collect(),
            secrets: self.secrets.clone(),
            ssh: BTreeMap::new(),
            limits: self.definition.limits.within(&config.limits),
            network,
            entitlements: BTreeSet::new(),
            epoch: self.definition.epoch,
            sink,
        }
    }
}

/// Passes events on to the journal, and once the plan is known notes what its questions came to.
struct AnswersSink {
    job_sink: JournalWriter,
    frontend: Arc<Guarded>,
    service: Arc<Service>,
    tenant: TenantId,
    told: AtomicBool,
}

impl AnswersSink {
    fn note(&self) {
        let Some(answers) = self.frontend.answers() else { return };
        if self.told.swap(true, Ordering::AcqRel) || answers.iter().next().is_none() {
            return;
        }
        let kept = encode_answers(&answers);
        match kept.and_then(|bytes| self.service.keep_blob(self.tenant, &bytes)) {
            Ok(digest) => self.job_sink.event(answers_note(digest)),
            // A retry then asks again, as if for the newest.
            Err(error) => tracing::warn!(error = error.internal_text(), "answers were not kept"),
        }
    }
}

impl Sink for AnswersSink {
    fn event(&self, event: Event) {
        // The steps are the first thing that is said once there is a plan.
        let planned = matches!(event, Event::Steps { .. });
        self.job_sink.event(event);
        if planned {
            self.note();
        }
    }
}
