//! Threads around the solver: whoever ends a job takes the next one.
//!
//! The solver is a pure state machine behind one lock. A thread that has done a job gives the
//! ending event, takes one of the jobs that follow and starts threads for the others; so a chain
//! of look-ups runs on one thread from end to end. Reports go out under the lock, in order: sinks
//! must not block.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::NodeId;
use ashlar_core::journal::LogText;
use ashlar_sandbox::Cancel;
use ashlar_solver::{
    Action, BuildKey, BuildRequest, Event, Job, Outcome, Report, ShareGroup, Solver, SolverLimits,
    VertexId,
};

use crate::output::Output;

/// Does the jobs of one build and hears of them.
pub(crate) trait Worker: Send + Sync {
    /// Finds out what a source stands for.
    fn resolve(&self, job: &Job<Output>, cancel: &Cancel) -> Result<Output, Failure>;

    /// Looks for an earlier result; `Err(key)` when there is none.
    fn look_up(&self, job: &Job<Output>) -> Result<Found, Failure>;

    /// Runs the operation.
    fn run(&self, job: &Job<Output>, cancel: &Cancel) -> Result<Output, Failure>;

    /// Hears what became of a node.
    fn report(&self, node: NodeId, vertex: VertexId, report: &Report<Output, Failure>);

    /// Hears what the step of a node wrote.
    fn log(&self, node: NodeId, text: &LogText);
}

/// What a look-up came to.
pub(crate) enum Found {
    /// An earlier result.
    Hit(Output),
    /// None for this key.
    Miss(ashlar_core::Digest),
}

/// One scheduler serves all builds of a process.
pub(crate) struct Scheduler {
    state: Mutex<State>,
}

struct State {
    solver: Solver<Output, Failure>,
    builds: HashMap<BuildKey, Running>,
    jobs: HashMap<VertexId, Cancel>,
    next_build: u64,
}

struct Running {
    worker: Arc<dyn Worker>,
    done: SyncSender<Outcome<Output, Failure>>,
}

/// A build that the scheduler works on.
pub(crate) struct Ticket {
    /// Its key, for [`Scheduler::cancel`].
    pub(crate) key: BuildKey,
    done: Receiver<Outcome<Output, Failure>>,
}

impl Ticket {
    /// Waits for the build's end.
    ///
    /// # Errors
    /// When the scheduler went away, which is a bug.
    pub(crate) fn wait(self) -> Result<Outcome<Output, Failure>, Failure> {
        let gone = |_| Failure::new(FailureKind::Internal, "the scheduler lost the build");
        self.done.recv().map_err(gone)
    }
}

enum Work {
    Resolve(Job<Output>),
    LookUp(Job<Output>),
    Run(Job<Output>),
}

struct Assignment {
    work: Work,
    worker: Arc<dyn Worker>,
    cancel: Cancel,
}

impl Scheduler {
    /// Makes a scheduler for this machine.
    pub(crate) fn new() -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let state = State {
            solver: Solver::new(SolverLimits::for_cores(cores)),
            builds: HashMap::new(),
            jobs: HashMap::new(),
            next_build: 0,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Starts to work on a graph.
    ///
    /// # Errors
    /// When the target is not in the graph.
    pub(crate) fn start(
        self: &Arc<Self>,
        graph: &ashlar_core::graph::Graph,
        target: NodeId,
        group: ShareGroup,
        worker: Arc<dyn Worker>,
    ) -> Result<Ticket, Failure> {
        let (sender, done) = sync_channel(1);
        let key = {
            let mut state = self.lock();
            let key = BuildKey(state.next_build);
            state.next_build += 1;
            state.builds.insert(key, Running { worker, done: sender });
            let request = BuildRequest { group, ..BuildRequest::new(key, graph, target) };
            if let Err(e) = state.solver.add_build(request) {
                state.builds.remove(&key);
                return Err(Failure::new(FailureKind::Internal, e.to_string()));
            }
            key
        };
        self.pump();
        Ok(Ticket { key, done })
    }

    /// Ends a build early; its ticket hears of it when all that only it wanted has stopped.
    pub(crate) fn cancel(self: &Arc<Self>, key: BuildKey) {
        self.lock().solver.cancel(key);
        self.pump();
    }

    /// Returns the workers of all builds that wait for a vertex, with their nodes.
    pub(crate) fn users(&self, vertex: VertexId) -> Vec<(Arc<dyn Worker>, NodeId)> {
        let state = self.lock();
        let users = state.solver.users(vertex).into_iter();
        users.filter_map(|(b, n)| Some((state.builds.get(&b)?.worker.clone(), n))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out all that can be done now, each job to a thread of its own.
    fn pump(self: &Arc<Self>) {
        let work = self.lock().actions();
        work.into_iter().for_each(|w| self.spawn(w));
    }

    fn spawn(self: &Arc<Self>, work: Assignment) {
        let scheduler = Arc::clone(self);
        let vertex = work.work.job().vertex;
        let thread = std::thread::Builder::new().name("ashlar-job".into());
        if let Err(e) = thread.spawn(move || scheduler.work_on(work)) {
            let error = Failure::new(FailureKind::Internal, format!("cannot start a thread: {e}"));
            self.end(Event::Failed { vertex, error });
            self.pump();
        }
    }

    fn work_on(self: &Arc<Self>, mut work: Assignment) {
        loop {
            let event = work.perform();
            let mut next = self.end(event).into_iter();
            let Some(mine) = next.next() else { return };
            next.for_each(|w| self.spawn(w));
            work = mine;
        }
    }

    fn end(&self, event: Event<Output, Failure>) -> Vec<Assignment> {
        let mut state = self.lock();
        state.jobs.remove(&event.vertex());
        let fits = state.solver.event(event);
        debug_assert!(fits.is_ok(), "{fits:?}");
        state.actions()
    }
}

impl State {
    /// Takes all that is to be done now. A job that cannot be assigned fails, which may give
    /// further actions; hence the loop.
    fn actions(&mut self) -> Vec<Assignment> {
        let mut work = Vec::new();
        loop {
            let actions = self.solver.poll_actions();
            if actions.is_empty() {
                return work;
            }
            self.take(actions, &mut work);
        }
    }

    fn take(&mut self, actions: Vec<Action<Output, Failure>>, work: &mut Vec<Assignment>) {
        for action in actions {
            match action {
                Action::Resolve(job) => work.extend(self.assign(Work::Resolve(job))),
                Action::Lookup(job) => work.extend(self.assign(Work::LookUp(job))),
                Action::Run(job) => work.extend(self.assign(Work::Run(job))),
                Action::Cancel { vertex } => {
                    if let Some(cancel) = self.jobs.get(&vertex) {
                        cancel.cancel();
                    }
                }
                Action::Report { build, node, vertex, report } => {
                    if let Some(running) = self.builds.get(&build) {
                        running.worker.report(node, vertex, &report);
                    }
                }
                Action::BuildDone { build, outcome } => {
                    if let Some(running) = self.builds.remove(&build) {
                        // A caller that no longer waits is no reason to stop.
                        let _ = running.done.send(outcome);
                    }
                }
            }
        }
    }

    fn assign(&mut self, work: Work) -> Option<Assignment> {
        let job = work.job();
        let worker = self.builds.get(&job.build).map(|b| b.worker.clone());
        match (worker, Cancel::new()) {
            (Some(worker), Ok(cancel)) => {
                self.jobs.insert(job.vertex, cancel.clone());
                Some(Assignment { work, worker, cancel })
            }
            (worker, cancel) => {
                let why = cancel.err().map_or("its build is gone".into(), |e| e.to_string());
                debug_assert!(worker.is_some(), "a job names a build that has ended");
                let error =
                    Failure::new(FailureKind::Internal, format!("cannot start a job: {why}"));
                let fits = self.solver.event(Event::Failed { vertex: job.vertex, error });
                debug_assert!(fits.is_ok(), "{fits:?}");
                None
            }
        }
    }
}

impl Work {
    const fn job(&self) -> &Job<Output> {
        match self {
            Self::Resolve(job) | Self::LookUp(job) | Self::Run(job) => job,
        }
    }
}

impl Assignment {
    fn perform(&self) -> Event<Output, Failure> {
        let vertex = self.work.job().vertex;
        let finished = |result: Result<Output, Failure>| match result {
            Ok(output) => Event::Finished { vertex, output },
            Err(_) if self.cancel.is_cancelled() => Event::Cancelled { vertex },
            Err(error) => Event::Failed { vertex, error },
        };
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match &self.work {
            Work::Resolve(job) => finished(self.worker.resolve(job, &self.cancel)),
            Work::Run(job) => finished(self.worker.run(job, &self.cancel)),
            Work::LookUp(job) => match self.worker.look_up(job) {
                Ok(Found::Hit(output)) => Event::Hit { vertex, output },
                Ok(Found::Miss(key)) => Event::Miss { vertex, key: Some(key) },
                Err(error) => Event::Failed { vertex, error },
            },
        }));
        caught.unwrap_or_else(|_| Event::Failed {
            vertex,
            error: Failure::new(FailureKind::Internal, "a job of the engine panicked"),
        })
    }
}
