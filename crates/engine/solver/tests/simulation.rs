//! Random builds, random orders of events, random cancels and failures. The driver checks with
//! every action that inputs are done before their users begin, that a vertex has one job at a
//! time, that slots suffice, and that an ended build gets no further action.

#[expect(dead_code, reason = "each test file uses a part of it")]
#[cfg(test)]
mod support;

use std::collections::{BTreeMap, BTreeSet};

use ashlar_core::Digest;
use ashlar_core::cache::Bypass;
use ashlar_core::graph::{Graph, NODES_MAX, NodeId, Op};
use ashlar_solver::*;
use proptest::prelude::*;
use support::*;

/// What a node is, and picks among the nodes before it.
type NodeSpec = (u8, u8, Vec<u8>);

/// One thing that happens: which, and a pick among the possible.
type Step = (u8, u16);

#[derive(Debug, Clone)]
struct Scenario {
    graphs: Vec<Vec<NodeSpec>>,
    slots: (usize, usize),
    steps: Vec<Step>,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let node = (any::<u8>(), 0..4_u8, proptest::collection::vec(any::<u8>(), 1..4));
    let graph = proptest::collection::vec(node, 1..14);
    let graphs = proptest::collection::vec(graph, 1..3);
    let steps = proptest::collection::vec(any::<Step>(), 0..160);
    (graphs, (1..4_usize, 1..3_usize), steps).prop_map(|(graphs, slots, steps)| Scenario {
        graphs,
        slots,
        steps,
    })
}

/// Few names, so that equal nodes are common within a graph and between graphs.
fn build_graph(specs: &[NodeSpec]) -> Graph {
    let mut graph = Graph::new();
    add(&mut graph, Op::Scratch, &[]);
    let context = add(&mut graph, context_op(), &[]);
    add(&mut graph, exec_op("exec 0"), &[context]);
    for (kind, name, picks) in specs {
        let nodes = graph.nodes().len();
        let inputs: Vec<_> =
            picks.iter().map(|p| NodeId((usize::from(*p) % nodes) as u32)).collect();
        let (op, bypass) = match kind % 8 {
            0..=3 => (exec_op(&format!("exec {name}")), None),
            4 | 5 => (file_op(&format!("file {name}")), None),
            6 => (exec_op(&format!("exec {name}")), Some(Bypass::Boundary)),
            _ => (effect_op(&format!("effect {name}")), None),
        };
        add_with(&mut graph, op, &inputs, bypass);
    }
    graph
}

struct Simulation {
    driver: Driver,
    graphs: Vec<Graph>,
    /// Keys with a kept result, by group.
    cache: BTreeMap<(u64, Digest), Tree>,
    groups: BTreeMap<BuildKey, u64>,
    next_build: u64,
}

impl Simulation {
    fn new(scenario: &Scenario) -> Self {
        Self {
            driver: Driver::new(scenario.slots.0, scenario.slots.1),
            graphs: scenario.graphs.iter().map(|g| build_graph(g)).collect(),
            cache: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_build: 0,
        }
    }

    fn step(&mut self, (what, pick): Step) {
        let pick = usize::from(pick);
        match what % 16 {
            0 | 1 => self.add_build(pick),
            2 | 3 if self.next_build > 0 => self.driver.cancel(pick as u64 % self.next_build),
            4 => self.end_job(pick, true),
            _ => self.end_job(pick, false),
        }
        self.check_jobs();
    }

    fn add_build(&mut self, pick: usize) {
        let graph = self.graphs[pick % self.graphs.len()].clone();
        let target = NodeId((graph.nodes().len() - 1 - pick % 3 % graph.nodes().len()) as u32);
        let (key, group) = (self.next_build, (pick / 7 % 2) as u64);
        self.next_build += 1;
        self.groups.insert(BuildKey(key), group);
        self.driver.add_in(key, &graph, target, group, (pick / 3 % 3) as i32);
    }

    fn end_job(&mut self, pick: usize, badly: bool) {
        let Some(vertex) = self.driver.jobs.keys().nth(pick % self.driver.jobs.len().max(1)) else {
            return;
        };
        let (vertex, (kind, job)) = (*vertex, self.driver.jobs[vertex].clone());
        let cancelling = self.driver.cancelling.contains(&vertex);
        let event = match kind {
            _ if cancelling && pick.is_multiple_of(2) => Event::Cancelled { vertex },
            _ if badly && pick.is_multiple_of(3) => Event::Failed { vertex, error: "bad".into() },
            JobKind::Resolve => Event::Finished { vertex, output: self.resolve(&job) },
            JobKind::Lookup => self.look_up(&job),
            JobKind::Run => self.finish(&job),
        };
        self.driver.send(event);
    }

    /// Two builds may have the same context, or another one.
    fn resolve(&self, job: &Job<Tree>) -> Tree {
        match self.driver.op(job) {
            Op::Context { .. } => format!("context {}", job.build.0 % 5 / 4),
            _ => self.driver.output(job),
        }
    }

    fn look_up(&self, job: &Job<Tree>) -> Event<Tree, String> {
        let (vertex, key) = (job.vertex, self.driver.key(job));
        match self.cache.get(&(self.groups[&job.build], key)) {
            Some(output) => Event::Hit { vertex, output: output.clone() },
            None => Event::Miss { vertex, key: Some(key) },
        }
    }

    fn finish(&mut self, job: &Job<Tree>) -> Event<Tree, String> {
        let output = self.driver.output(job);
        self.cache.insert((self.groups[&job.build], self.driver.key(job)), output.clone());
        Event::Finished { vertex: job.vertex, output }
    }

    /// Work is wanted or being cancelled, and cacheable work of one key runs once at a time in a
    /// group.
    fn check_jobs(&self) {
        let mut running = BTreeSet::new();
        let solver = &self.driver.solver;
        let unwanted =
            |v: &&VertexId| !self.driver.cancelling.contains(v) && solver.users(**v).is_empty();
        assert_eq!(self.driver.jobs.keys().find(unwanted), None, "nobody wants what is under way");
        for (vertex, (kind, job)) in &self.driver.jobs {
            let bypassed = self.driver.node(job).meta.bypass.is_some();
            let effect = matches!(self.driver.op(job), Op::Exec(e) if e.effect);
            let dying = self.driver.cancelling.contains(vertex);
            if *kind == JobKind::Run && !bypassed && !effect && !dying {
                let key = (self.groups[&job.build], self.driver.key(job));
                assert!(running.insert(key), "{:?} runs twice at once", self.driver.op(job));
            }
        }
    }

    /// Ends all jobs in turn: every build must end then.
    fn drain(&mut self) {
        while !self.driver.jobs.is_empty() {
            self.end_job(1, false);
            self.check_jobs();
        }
        assert_eq!(self.driver.outcomes.len() as u64, self.next_build, "a build did not end");
        assert!(self.driver.solver.is_idle(), "something is left: {:?}", self.driver.solver);
    }

    /// The output of the target by plain recursion, for a build that succeeded.
    fn expected(&self, key: BuildKey, graph: &Graph, target: NodeId) -> Tree {
        let mut outputs: Vec<Tree> = Vec::new();
        for node in graph.nodes() {
            let inputs = node.inputs.iter().map(|i| outputs[i.index()].clone()).collect();
            let job =
                Job { vertex: VertexId(0), build: key, node: NodeId(outputs.len() as u32), inputs };
            let source = node.inputs.is_empty();
            outputs.push(if source { self.resolve(&job) } else { self.driver.output(&job) });
        }
        outputs[target.index()].clone()
    }

    fn check_outcomes(&self) {
        for (key, outcome) in &self.driver.outcomes {
            if let Outcome::Succeeded { output } = outcome {
                let (graph, target) = self.driver.build(*key);
                assert_eq!(*output, self.expected(*key, graph, target), "{key:?} got another's");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn every_order_of_events_keeps_the_promises(scenario in scenario()) {
        let mut simulation = Simulation::new(&scenario);
        simulation.add_build(0);
        scenario.steps.iter().for_each(|step| simulation.step(*step));
        simulation.drain();
        simulation.check_outcomes();
    }
}

/// Solves a graph for four builds at once, all cached; returns how often the cache was asked.
fn solve_cached(graph: &Graph, target: NodeId) -> usize {
    let mut solver: Solver<u32, ()> = Solver::new(SolverLimits::for_cores(2));
    for build in 0..4 {
        let added = solver.add_build(BuildRequest::new(BuildKey(build), graph, target));
        added.expect("keys are new");
    }
    let (mut looked_up, mut ended) = (0, 0);
    while ended < 4 {
        let actions = solver.poll_actions();
        assert!(!actions.is_empty(), "the solver is stuck");
        for action in actions {
            match action {
                Action::Resolve(Job { vertex, .. }) => {
                    solver.event(Event::Finished { vertex, output: 0 }).expect("fits");
                }
                Action::Lookup(Job { vertex, .. }) => {
                    looked_up += 1;
                    solver.event(Event::Hit { vertex, output: 1 }).expect("fits");
                }
                Action::BuildDone { .. } => ended += 1,
                Action::Report { .. } => {}
                Action::Run(_) | Action::Cancel { .. } => panic!("all is cached"),
            }
        }
    }
    assert!(solver.is_idle());
    looked_up
}

/// A step that is quadratic in the nodes would show as minutes here.
#[test]
fn the_largest_graphs_are_solved() {
    const STEPS: usize = NODES_MAX - 2;
    let names: Vec<String> = (0..STEPS).map(|i| format!("step {i}")).collect();

    let (graph, target) = chain(&names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(solve_cached(&graph, target), STEPS);

    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let all: Vec<_> = names.iter().map(|n| add(&mut graph, exec_op(n), &[root])).collect();
    let end = add(&mut graph, Op::Merge, &all);
    assert_eq!(solve_cached(&graph, end), STEPS + 1);
}
