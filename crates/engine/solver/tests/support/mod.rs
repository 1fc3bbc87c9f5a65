//! Graphs of any shape, and a scripted executor that checks the solver's promises as it goes.

use std::collections::{BTreeMap, BTreeSet};

use ashlar_core::Digest;
use ashlar_core::cache::Bypass;
use ashlar_core::graph::{Exec, FileAction, Graph, Node, NodeId, NodeMeta, Op, StepId};
use ashlar_solver::*;

pub(crate) type Tree = String;
pub(crate) type Act = Action<Tree, String>;

pub(crate) fn exec_op(name: &str) -> Op {
    Op::Exec(Box::new(Exec { args: vec![name.into()], ..Exec::default() }))
}

pub(crate) fn effect_op(name: &str) -> Op {
    Op::Exec(Box::new(Exec { args: vec![name.into()], effect: true, ..Exec::default() }))
}

pub(crate) fn file_op(name: &str) -> Op {
    let path = format!("/{name}");
    Op::File { actions: vec![FileAction::Remove { path, missing_ok: true }] }
}

pub(crate) fn context_op() -> Op {
    Op::Context { name: "context".into(), exclude: vec![] }
}

/// Adds a node that is shown as a step of its own, so that equal nodes stay apart.
pub(crate) fn add(graph: &mut Graph, op: Op, inputs: &[NodeId]) -> NodeId {
    add_with(graph, op, inputs, None)
}

pub(crate) fn add_with(
    graph: &mut Graph,
    op: Op,
    inputs: &[NodeId],
    bypass: Option<Bypass>,
) -> NodeId {
    let step = Some(StepId(graph.nodes().len() as u32 + 1));
    let meta = NodeMeta { step, bypass, ..NodeMeta::default() };
    graph.add(op, inputs.to_vec(), meta).unwrap()
}

/// A source and execs in a row.
pub(crate) fn chain(names: &[&str]) -> (Graph, NodeId) {
    let mut graph = Graph::new();
    let mut last = add(&mut graph, Op::Scratch, &[]);
    for name in names {
        last = add(&mut graph, exec_op(name), &[last]);
    }
    (graph, last)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobKind {
    Resolve,
    Lookup,
    Run,
}

/// Drives a solver and keeps what it said. Panics when the solver breaks a promise.
pub(crate) struct Driver {
    pub(crate) solver: Solver<Tree, String>,
    pub(crate) limits: SolverLimits,
    /// Jobs that are owed an ending event.
    pub(crate) jobs: BTreeMap<VertexId, (JobKind, Job<Tree>)>,
    pub(crate) cancelling: BTreeSet<VertexId>,
    pub(crate) reports: Vec<(BuildKey, NodeId, Report<Tree, String>)>,
    pub(crate) outcomes: BTreeMap<BuildKey, Outcome<Tree, String>>,
    graphs: BTreeMap<BuildKey, (Graph, NodeId)>,
    /// What has an output, by build.
    done: BTreeSet<(BuildKey, NodeId)>,
    pub(crate) runs_started: Vec<String>,
}

impl Driver {
    pub(crate) fn new(exec_slots: usize, io_slots: usize) -> Self {
        let limits = SolverLimits { exec_slots, io_slots };
        Self {
            solver: Solver::new(limits),
            limits,
            jobs: BTreeMap::new(),
            cancelling: BTreeSet::new(),
            reports: Vec::new(),
            outcomes: BTreeMap::new(),
            graphs: BTreeMap::new(),
            done: BTreeSet::new(),
            runs_started: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, key: u64, graph: &Graph, target: NodeId) {
        self.add_in(key, graph, target, 0, 0);
    }

    pub(crate) fn add_in(
        &mut self,
        key: u64,
        graph: &Graph,
        target: NodeId,
        group: u64,
        priority: i32,
    ) {
        let request = BuildRequest {
            group: ShareGroup(group),
            priority,
            ..BuildRequest::new(BuildKey(key), graph, target)
        };
        self.solver.add_build(request).unwrap();
        self.graphs.insert(BuildKey(key), (graph.clone(), target));
        self.poll();
    }

    pub(crate) fn cancel(&mut self, key: u64) {
        self.solver.cancel(BuildKey(key));
        self.poll();
    }

    pub(crate) fn poll(&mut self) {
        for action in self.solver.poll_actions() {
            self.take(action);
        }
        self.check_slots();
    }

    fn take(&mut self, action: Act) {
        match action {
            Action::Resolve(job) => self.begin(JobKind::Resolve, job),
            Action::Lookup(job) => self.begin(JobKind::Lookup, job),
            Action::Run(job) => self.begin(JobKind::Run, job),
            Action::Cancel { vertex } => {
                assert!(self.jobs.contains_key(&vertex), "{vertex:?} has no job to cancel");
                assert!(self.cancelling.insert(vertex), "{vertex:?} is cancelled twice");
            }
            Action::Report { build, node, report, .. } => {
                assert!(!self.outcomes.contains_key(&build), "report after the end of {build:?}");
                if let Report::Done { .. } = report {
                    assert!(self.done.insert((build, node)), "{node:?} done twice");
                }
                self.reports.push((build, node, report));
            }
            Action::BuildDone { build, outcome } => {
                assert!(self.outcomes.insert(build, outcome).is_none(), "{build:?} ends twice");
            }
        }
    }

    fn begin(&mut self, kind: JobKind, job: Job<Tree>) {
        assert!(!self.outcomes.contains_key(&job.build), "job for ended {:?}", job.build);
        assert!(!self.jobs.contains_key(&job.vertex), "{:?} has a job already", job.vertex);
        let node = self.graphs[&job.build].0.node(job.node).clone();
        assert_eq!(job.inputs.len(), node.inputs.len());
        for input in &node.inputs {
            assert!(self.done.contains(&(job.build, *input)), "{input:?} is not done");
        }
        if kind == JobKind::Run {
            self.runs_started.push(name(&node.op));
        }
        self.jobs.insert(job.vertex, (kind, job));
    }

    fn check_slots(&self) {
        let ops = self.jobs.values().filter(|(kind, _)| *kind == JobKind::Run);
        let ops = ops.map(|(_, job)| &self.graphs[&job.build].0.node(job.node).op);
        let (execs, files): (Vec<_>, Vec<_>) = ops.partition(|op| matches!(op, Op::Exec(_)));
        assert!(execs.len() <= self.limits.exec_slots, "{} execs at once", execs.len());
        assert!(files.len() <= self.limits.io_slots, "{} file operations at once", files.len());
    }

    pub(crate) fn build(&self, key: BuildKey) -> (&Graph, NodeId) {
        let (graph, target) = &self.graphs[&key];
        (graph, *target)
    }

    pub(crate) fn node(&self, job: &Job<Tree>) -> &Node {
        self.graphs[&job.build].0.node(job.node)
    }

    pub(crate) fn op(&self, job: &Job<Tree>) -> &Op {
        &self.node(job).op
    }

    /// What a real executor would make: a name for the operation on these inputs.
    pub(crate) fn output(&self, job: &Job<Tree>) -> Tree {
        let name = name(self.op(job));
        Digest::of(format!("{name}({})", job.inputs.join(","))).short()
    }

    pub(crate) fn key(&self, job: &Job<Tree>) -> Digest {
        Digest::of(self.output(job))
    }

    /// Names of the operations with jobs of a kind that are not being cancelled.
    pub(crate) fn under_way(&self, kind: JobKind) -> Vec<String> {
        let jobs =
            self.jobs.iter().filter(|(v, (k, _))| *k == kind && !self.cancelling.contains(v));
        jobs.map(|(_, (_, job))| name(self.op(job))).collect()
    }

    pub(crate) fn vertex(&self, op: &str) -> VertexId {
        let mut found = self
            .jobs
            .iter()
            .filter(|(v, (_, job))| name(self.op(job)) == op && !self.cancelling.contains(*v));
        let vertex = *found.next().unwrap_or_else(|| panic!("{op} has no job")).0;
        assert!(found.next().is_none(), "{op} has several jobs");
        vertex
    }

    pub(crate) fn send(&mut self, event: Event<Tree, String>) {
        self.jobs.remove(&event.vertex());
        self.cancelling.remove(&event.vertex());
        self.solver.event(event).unwrap();
        self.poll();
    }

    pub(crate) fn finish(&mut self, op: &str) {
        let vertex = self.vertex(op);
        let output = self.output(&self.jobs[&vertex].1);
        self.send(Event::Finished { vertex, output });
    }

    pub(crate) fn fail(&mut self, op: &str) {
        let vertex = self.vertex(op);
        self.send(Event::Failed { vertex, error: format!("{op} failed") });
    }

    pub(crate) fn hit(&mut self, op: &str, output: &str) {
        let vertex = self.vertex(op);
        self.send(Event::Hit { vertex, output: output.into() });
    }

    pub(crate) fn miss(&mut self, op: &str) {
        let vertex = self.vertex(op);
        self.send(Event::Miss { vertex, key: None });
    }

    /// Misses with the key that the operation and the inputs' outputs make.
    pub(crate) fn miss_with_key(&mut self, vertex: VertexId) {
        let key = Some(self.key(&self.jobs[&vertex].1));
        self.send(Event::Miss { vertex, key });
    }

    /// Resolves and misses all that can be, until only runs are under way.
    pub(crate) fn settle_lookups(&mut self) {
        let next = |d: &Self| {
            let mut jobs = d.jobs.iter().filter(|(v, _)| !d.cancelling.contains(v));
            jobs.find(|(_, (k, _))| *k != JobKind::Run).map(|(v, (k, _))| (*v, *k))
        };
        while let Some((vertex, kind)) = next(self) {
            match kind {
                JobKind::Resolve => {
                    let output = self.output(&self.jobs[&vertex].1);
                    self.send(Event::Finished { vertex, output });
                }
                _ => self.miss_with_key(vertex),
            }
        }
    }

    pub(crate) fn end_cancelled(&mut self) {
        while let Some(vertex) = self.cancelling.first().copied() {
            self.send(Event::Cancelled { vertex });
        }
    }

    pub(crate) fn reports_of(&self, key: u64) -> Vec<(u32, &Report<Tree, String>)> {
        let own = self.reports.iter().filter(|(b, _, _)| *b == BuildKey(key));
        own.map(|(_, node, report)| (node.0, report)).collect()
    }

    pub(crate) fn how(&self, key: u64, node: NodeId) -> Option<How> {
        self.reports_of(key).into_iter().find_map(|(n, r)| match r {
            Report::Done { how, .. } if n == node.0 => Some(*how),
            _ => None,
        })
    }

    pub(crate) fn outcome(&self, key: u64) -> Option<&Outcome<Tree, String>> {
        self.outcomes.get(&BuildKey(key))
    }

    pub(crate) fn succeeded(&self, key: u64) -> bool {
        matches!(self.outcome(key), Some(Outcome::Succeeded { .. }))
    }
}

pub(crate) fn name(op: &Op) -> String {
    match op {
        Op::Exec(exec) => exec.args.join(" "),
        Op::File { actions } => match actions.first() {
            Some(FileAction::Remove { path, .. }) => path.trim_start_matches('/').into(),
            _ => "file".into(),
        },
        Op::Scratch => "scratch".into(),
        Op::Context { .. } => "context".into(),
        other => format!("{other:?}"),
    }
}
