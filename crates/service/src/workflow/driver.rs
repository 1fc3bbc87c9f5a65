//! Drives runs: claims them, begins nodes, waits for builds, writes the end.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ashlar_core::BuildId;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::StepId;
use ashlar_core::journal::{BuildKind, Event, Level, LogLine, Sink, StepOutcome};
use ashlar_core::state::State;
use ashlar_records::{Claim, Error as StoreError, JournalWriter, Stamped, now};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::definition::{Node, Workflow};
use super::node::{Sealed, draw_id};
use super::progress::{Next, NodeState, NodeStatus, Progress};
use super::{Begun, NodeDriver, Run};
use crate::error::chain;
use crate::{Actor, Error, ErrorKind, Recipe, Record, Service};

/// Runs that one process drives at once: they wait for builds, so they cost little.
const RUNS_MAX: usize = 256;
/// How often an idle driver looks for runs, and a waiting one at its builds, although nobody woke
/// it: other processes do not on SQLite.
const POLL: Duration = Duration::from_millis(500);
/// How long after a fault that may pass the run goes on.
const PAUSE: Duration = Duration::from_secs(1);
/// Entries of a run's journal that are read at once.
const ENTRIES_AT_ONCE: usize = 1000;

/// What the drivers of a process share.
pub(crate) struct Runs {
    slots: Arc<Semaphore>,
    drivers: RwLock<BTreeMap<&'static str, Arc<dyn NodeDriver>>>,
    wake: Notify,
}

impl Default for Runs {
    fn default() -> Self {
        let slots = Arc::new(Semaphore::new(RUNS_MAX));
        Self { slots, drivers: RwLock::default(), wake: Notify::new() }
    }
}

impl Runs {
    pub(crate) fn driver(&self, dialect: &str) -> Option<Arc<dyn NodeDriver>> {
        self.drivers.read().unwrap_or_else(PoisonError::into_inner).get(dialect).cloned()
    }

    /// Waits until no run is driven here.
    pub(crate) async fn idle(&self) {
        let all = u32::try_from(RUNS_MAX).unwrap_or(u32::MAX);
        // Never closed, so that an error is no case.
        let _ = self.slots.acquire_many(all).await;
    }

    /// Lets an idle driver look at the queue.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }
}

/// A run under way in this process.
struct Drive {
    service: Arc<Service>,
    record: Record,
    actor: Actor,
    workflow: Workflow,
    progress: Progress,
    sealed: Sealed,
    writer: JournalWriter,
    changes: Receiver<BuildId>,
}

impl Service {
    /// Returns a run's nodes and where they are.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when the build is no run.
    pub async fn run_progress(
        &self,
        actor: &Actor,
        run: BuildId,
    ) -> Result<(Workflow, Progress), Error> {
        let record = self.show(actor, run).await?;
        let Recipe::Workflow(workflow) = crate::Definition::of(&record)?.recipe else {
            return Err(Error::Conflict("the build is no run of builds".into()));
        };
        Ok((workflow, self.fold_progress(run).await?))
    }

    async fn fold_progress(&self, run: BuildId) -> Result<Progress, Error> {
        let (mut progress, mut from) = (Progress::default(), 0);
        loop {
            let entries = self.store().journal(run, from, ENTRIES_AT_ONCE).await?;
            let Some(last) = entries.last() else { return Ok(progress) };
            from = last.number + 1;
            entries.iter().for_each(|e| progress.fold(&e.event));
        }
    }

    /// Registers who begins the nodes of a dialect's runs that are not plain builds. To be called
    /// before [`Service::start`].
    pub fn set_node_driver(&self, dialect: &'static str, driver: Arc<dyn NodeDriver>) {
        let mut known = self.runs().drivers.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(dialect, driver);
    }

    /// Claims runs and drives them until the server ends.
    pub(crate) async fn drive_runs(self: Arc<Self>) {
        let claim = Claim {
            worker: self.workers().id(),
            kind: BuildKind::Workflow,
            backends: Vec::new(),
            slots: 0,
        };
        while !self.workers().is_draining() {
            let slots = Arc::clone(&self.runs().slots);
            let Ok(permit) = slots.acquire_owned().await else { return };
            let claimed = self.store().claim_up_to(&claim, 1, now).await;
            match claimed.map(|mut records| records.pop()) {
                Ok(Some(record)) => {
                    tokio::spawn(Arc::clone(&self).drive(record, permit));
                    continue;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(error = chain(&error), "cannot look for runs"),
            }
            drop(permit);
            let _ = timeout(POLL, self.runs().wake.notified()).await;
        }
    }

    async fn drive(self: Arc<Self>, record: Record, permit: OwnedSemaphorePermit) {
        let run = record.submission.build;
        let writer = JournalWriter::spawn(self.store().clone(), run, record.fence);
        match self.prepare_drive(record, &writer).await {
            Ok(drive) => drive.run_to_end().await,
            Err(error) => self.fail_run(&writer, &error).await,
        }
        drop(permit);
    }

    async fn prepare_drive(
        self: &Arc<Self>,
        record: Record,
        writer: &JournalWriter,
    ) -> Result<Drive, Error> {
        let definition = crate::Definition::of(&record)?;
        let Recipe::Workflow(workflow) = definition.recipe else {
            return Err(Error::Conflict("this is no run of builds".into()));
        };
        let s = &record.submission;
        let actor = self.actor_of(&record).await?;
        let secrets = self.store().build_secrets(self.keys(), s.build, record.fence).await?;
        let changes = self.store().wakeups();
        let progress = self.fold_progress(s.build).await?;
        let (service, writer) = (Arc::clone(self), writer.clone());
        let sealed = Sealed::of(secrets)?;
        Ok(Drive { service, record, actor, workflow, progress, sealed, writer, changes })
    }

    /// Ends a run that cannot be driven, unless the fault may pass: then its lease ends and it is
    /// claimed again.
    async fn fail_run(&self, writer: &JournalWriter, error: &Error) {
        let run = writer.build();
        tracing::warn!(%run, error = error.internal_text(), "cannot drive a run");
        if error.kind() != ErrorKind::Unavailable {
            let failure = Failure::new(FailureKind::Internal, error.public());
            writer.event(Event::Failed(Box::new(failure)));
            writer.event(Event::State { to: State::Failed });
            // Refused: somebody else has ended it.
            let _ = writer.flush().await;
        }
    }

    /// Asks the builds of a run to stop that have not ended.
    pub(crate) async fn cancel_children(&self, actor: &Actor, run: BuildId) -> Result<(), Error> {
        let mut page = ashlar_records::Page::newest(CHILDREN_AT_ONCE);
        loop {
            let listed = self.children(actor, run, &page).await?;
            for child in listed.records.iter().filter(|c| !c.state.is_terminal()) {
                let reason = Some("the run that it belongs to was stopped");
                self.cancel(actor, child.submission.build, reason).await?;
            }
            let Some(next) = listed.next else { return Ok(()) };
            page.at = ashlar_records::At::After(next);
        }
    }
}

/// Children that are looked at at once.
const CHILDREN_AT_ONCE: u32 = 100;

impl Drive {
    /// Drives the run to its end, or until it is another process's.
    async fn run_to_end(mut self) {
        let run = self.record.submission.build;
        self.announce();
        loop {
            if self.writer.flush().await.is_err() {
                self.abandon().await;
                return;
            }
            if self.service.workers().is_draining() {
                self.hand_over().await;
                return;
            }
            match self.round().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%run, error = error.internal_text(), "a run is held up");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Shows the nodes as steps. A later attempt tells again how those ended that have.
    fn announce(&self) {
        let names = self.workflow.nodes.iter().map(|n| n.id.clone()).collect();
        self.writer.event(Event::Executor {
            requested: self.record.submission.backend.clone(),
            ran: "workflow".into(),
            reason: None,
        });
        self.writer.event(Event::Steps { names });
        self.writer.event(Event::State { to: State::Running });
        for node in &self.workflow.nodes {
            let state = self.progress.of(&node.id).state;
            if let Some(outcome) = outcome(state) {
                self.writer.event(self.step_ended(node, outcome));
            }
        }
    }

    fn step(&self, node: &Node) -> StepId {
        let place = self.workflow.place(&node.id).unwrap_or_default();
        StepId(u32::try_from(place + 1).unwrap_or(u32::MAX))
    }

    fn step_ended(&self, node: &Node, outcome: StepOutcome) -> Event {
        let (peak_memory_bytes, cpu_nanos) = (None, None);
        Event::StepEnded { step: self.step(node), outcome, peak_memory_bytes, cpu_nanos }
    }

    /// Does what is to be done now and waits for more; says whether the run has ended.
    async fn round(&mut self) -> Result<bool, Error> {
        let row = self.service.store().row(self.record.submission.build).await?;
        if row.cancellation.is_some() {
            return self.stop().await;
        }
        self.look_at_builds().await?;
        match self.progress.next(&self.workflow) {
            Next::Go { begin, skip } => {
                for place in skip {
                    let node = self.workflow.nodes[place].clone();
                    self.node_ended(&node, NodeState::Skipped, None, None);
                }
                for place in begin {
                    let node = self.workflow.nodes[place].clone();
                    self.begin(&node).await?;
                }
            }
            Next::Wait => self.wait().await,
            Next::Ended(good) => {
                self.end(good);
                // An error: it is no longer ours, which the next round finds.
                return Ok(self.writer.flush().await.is_ok());
            }
        }
        Ok(false)
    }

    /// Begins an attempt of a node.
    async fn begin(&mut self, node: &Node) -> Result<(), Error> {
        let before = self.progress.of(&node.id);
        let attempt = before.attempt + 1;
        self.begin_attempt(node, attempt, draw_id()?, before.build).await
    }

    /// Begins an attempt whose build has its id already: it may be there since before a crash.
    async fn begin_attempt(
        &mut self,
        node: &Node,
        attempt: u32,
        build: BuildId,
        retry_of: Option<BuildId>,
    ) -> Result<(), Error> {
        let run = Run { record: &self.record, actor: &self.actor, progress: &self.progress };
        let begun = self.service.begin_node(&run, node, attempt, &self.sealed).await;
        let request = match begun {
            Ok(Begun::Build(request)) => *request,
            Ok(Begun::Done(value)) => {
                self.set_attempt(node, attempt, None);
                self.node_ended(node, NodeState::Succeeded, Some(value), None);
                return Ok(());
            }
            Ok(Begun::Passed) => {
                self.set_attempt(node, attempt, None);
                self.node_ended(node, NodeState::Passed, None, None);
                return Ok(());
            }
            Err(error) => return self.attempt_refused(node, attempt, error),
        };
        self.set_attempt(node, attempt, Some(build));
        // Durable before the build is: a crash in between finds its id again.
        self.writer.flush().await?;
        let run = Run { record: &self.record, actor: &self.actor, progress: &self.progress };
        match self.service.submit_node(&run, request, build, retry_of).await {
            Ok(()) => {
                self.accepted(node);
                if !node.wait {
                    self.node_ended(node, NodeState::Succeeded, None, None);
                }
                Ok(())
            }
            Err(error) => self.attempt_refused(node, attempt, error),
        }
    }

    /// Writes that an attempt began, unless that was written before.
    fn set_attempt(&mut self, node: &Node, attempt: u32, build: Option<BuildId>) {
        let status = NodeStatus { state: NodeState::Started, attempt, build, ..Default::default() };
        if self.progress.of(&node.id) == status {
            return;
        }
        self.writer.event(Event::StepStarted { step: self.step(node) });
        let note = self.progress.set(&node.id, status);
        self.writer.event(note);
    }

    /// Writes that the build of the current attempt was accepted.
    fn accepted(&mut self, node: &Node) {
        let status = NodeStatus { accepted: true, ..self.progress.of(&node.id) };
        let note = self.progress.set(&node.id, status);
        self.writer.event(note);
    }

    /// A fault that may pass holds the run up; any other one fails the attempt.
    fn attempt_refused(&mut self, node: &Node, attempt: u32, error: Error) -> Result<(), Error> {
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::RateLimited) {
            return Err(error);
        }
        if matches!(error, Error::Internal(_)) {
            tracing::error!(error = error.internal_text(), "a node could not begin");
        }
        self.set_attempt(node, attempt, self.progress.of(&node.id).build);
        self.attempt_failed(node, error.public());
        Ok(())
    }

    /// Writes that an attempt failed: the node waits for its next one, or has failed.
    fn attempt_failed(&mut self, node: &Node, why: String) {
        let status = self.progress.of(&node.id);
        if status.attempt < node.attempts {
            let text = format!("node {}: attempt {} failed: {why}", node.id, status.attempt);
            self.writer.event(Event::Log(LogLine::service(Level::Warn, text)));
            let status = NodeStatus { state: NodeState::Waiting, error: Some(why), ..status };
            let note = self.progress.set(&node.id, status);
            self.writer.event(note);
        } else {
            self.node_ended(node, NodeState::Failed, None, Some(why));
        }
    }

    fn node_ended(
        &mut self,
        node: &Node,
        state: NodeState,
        value: Option<serde_json::Value>,
        error: Option<String>,
    ) {
        if let Some(outcome) = outcome(state) {
            self.writer.event(self.step_ended(node, outcome));
        }
        let before = self.progress.of(&node.id);
        let status = NodeStatus { state, value, error, ..before };
        let note = self.progress.set(&node.id, status);
        self.writer.event(note);
    }

    /// Takes in what became of the builds that nodes wait for.
    async fn look_at_builds(&mut self) -> Result<(), Error> {
        let started: Vec<(Node, NodeStatus)> = self
            .progress
            .started(&self.workflow)
            .map(|(node, status)| (node.clone(), status.clone()))
            .collect();
        for (node, status) in started {
            let Some(build) = status.build else {
                // Begun before a crash, by a dialect: once more.
                self.begin_attempt(&node, status.attempt, draw_id()?, None).await?;
                continue;
            };
            match self.service.store().row(build).await {
                Ok(row) => {
                    if !status.accepted {
                        self.accepted(&node);
                    }
                    match node.wait {
                        true => self.build_is(&node, &row),
                        false => self.node_ended(&node, NodeState::Succeeded, None, None),
                    }
                }
                // Retention leaves it alone until the run has ended, but somebody may delete it.
                Err(StoreError::NoSuchBuild(_)) if status.accepted => {
                    let why = "its build was deleted before the run had seen how it ended";
                    self.node_ended(&node, NodeState::Failed, None, Some(why.to_owned()));
                }
                Err(StoreError::NoSuchBuild(_)) => {
                    self.begin_attempt(&node, status.attempt, build, None).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn build_is(&mut self, node: &Node, row: &Record) {
        match row.state {
            State::Succeeded => self.node_ended(node, NodeState::Succeeded, None, None),
            State::Skipped => self.node_ended(node, NodeState::Passed, None, None),
            State::Failed => {
                let why = row.failure.as_ref().map_or("the build failed", |f| f.message.as_str());
                self.attempt_failed(node, why.to_owned());
            }
            // Somebody stopped the build itself: that is no fault that another attempt mends.
            State::Cancelled => {
                let why = Some("the build was cancelled".to_owned());
                self.node_ended(node, NodeState::Failed, None, why);
            }
            State::Queued | State::Preparing | State::Running | State::Exporting => {}
        }
    }

    /// Waits until something happens to the run or to one of its builds, or it is time to look.
    async fn wait(&mut self) {
        let mut ours: Vec<BuildId> =
            self.progress.started(&self.workflow).filter_map(|(_, s)| s.build).collect();
        ours.push(self.record.submission.build);
        let changes = &mut self.changes;
        let changed = async {
            loop {
                match changes.recv().await {
                    Ok(build) if !ours.contains(&build) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let _ = timeout(POLL, changed).await;
    }

    /// Stops what is at work, as somebody wished; says whether all has ended.
    async fn stop(&mut self) -> Result<bool, Error> {
        let run = self.record.submission.build;
        self.service.cancel_children(&self.actor, run).await?;
        let mut left = false;
        let started: Vec<(Node, Option<BuildId>)> = self
            .progress
            .started(&self.workflow)
            .map(|(node, status)| (node.clone(), status.build))
            .collect();
        for (node, build) in started {
            let ended = match build {
                None => true,
                Some(build) => match self.service.store().row(build).await {
                    Ok(row) => row.state.is_terminal(),
                    Err(StoreError::NoSuchBuild(_)) => true,
                    Err(error) => return Err(error.into()),
                },
            };
            match ended {
                true => self.node_ended(&node, NodeState::Cancelled, None, None),
                false => left = true,
            }
        }
        if left {
            self.wait().await;
            return Ok(false);
        }
        for node in self.workflow.nodes.clone() {
            if self.progress.of(&node.id).state == NodeState::Waiting {
                self.node_ended(&node, NodeState::Cancelled, None, None);
            }
        }
        self.writer.event(Event::State { to: State::Cancelled });
        Ok(self.writer.flush().await.is_ok())
    }

    fn end(&self, good: bool) {
        if good {
            self.writer.event(Event::State { to: State::Succeeded });
            return;
        }
        let failed = |n: &&Node| self.progress.of(&n.id).state == NodeState::Failed && !n.optional;
        let first = self.workflow.nodes.iter().find(failed);
        let (id, why) =
            first.map_or(("", None), |n| (n.id.as_str(), self.progress.of(&n.id).error));
        let text = format!("node {id} failed: {}", why.unwrap_or_default());
        let failure = Failure::new(FailureKind::Step, text);
        self.writer.event(Event::Failed(Box::new(failure)));
        self.writer.event(Event::State { to: State::Failed });
    }

    /// Gives the run back when this process ends; its builds go on.
    async fn hand_over(self) {
        let reason = "the server was shut down".to_owned();
        let events = [Stamped::new(now(), Event::Requeued { reason, planned: true })];
        let (run, fence) = (self.record.submission.build, self.record.fence);
        if let Err(error) = self.service.store().finish(run, fence, events, &[]).await {
            // Its lease ends by itself.
            tracing::warn!(%run, error = chain(&error), "a run was not handed over");
        }
    }

    /// The run is no longer this process's: it was ended from outside, or another process has it.
    async fn abandon(self) {
        let run = self.record.submission.build;
        match self.service.store().row(run).await {
            Ok(row) if row.state.is_terminal() => {
                if let Err(error) = self.service.cancel_children(&self.actor, run).await {
                    tracing::warn!(%run, error = error.internal_text(), "builds of a run go on");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%run, error = chain(&error), "a run was given up"),
        }
    }
}

/// Returns how a node's end shows as a step's.
const fn outcome(state: NodeState) -> Option<StepOutcome> {
    match state {
        NodeState::Succeeded => Some(StepOutcome::Ran),
        NodeState::Passed | NodeState::Skipped => Some(StepOutcome::Cached),
        NodeState::Failed => Some(StepOutcome::Failed),
        NodeState::Cancelled => Some(StepOutcome::Cancelled),
        NodeState::Waiting | NodeState::Started => None,
    }
}
