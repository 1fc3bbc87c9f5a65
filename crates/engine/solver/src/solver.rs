//! The state machine's surface: adding builds, taking events, giving actions.

use std::collections::BTreeMap;

use ashlar_core::Digest;
use ashlar_core::graph::NodeId;

use crate::build::{Build, BuildState};
use crate::messages::{Action, Event, How, Job, Outcome, Report};
use crate::ready::{self, Rank, SlotClass, Slots};
use crate::share::{self, ShareGroup, ShareKey};
use crate::vertex::{Kind, Phase, User, Vertex};
use crate::{BuildKey, BuildRequest, Progress, SolverLimits, VertexId};

/// Schedules the vertices of builds. `O` is an output: a cheap handle on a tree, which is held as
/// long as a build may need it. `E` is the caller's error, given to every build that it ends.
#[derive(Debug)]
pub struct Solver<O, E> {
    pub(crate) slots: Slots,
    pub(crate) vertices: BTreeMap<VertexId, Vertex<O>>,
    pub(crate) builds: BTreeMap<BuildKey, Build<O, E>>,
    /// Vertices that further nodes may become users of.
    pub(crate) shared: BTreeMap<ShareKey, VertexId>,
    /// Who runs, or ran, the work of a cache key.
    pub(crate) leaders: BTreeMap<(ShareGroup, Digest), VertexId>,
    pub(crate) actions: Vec<Action<O, E>>,
    next_vertex: u64,
}

/// A build could not be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// A build of this key has not ended.
    #[error("build {0:?} is being solved already; wait for its end or use another key")]
    Duplicate(BuildKey),
    /// The target is not in the graph.
    #[error("target {} is not in the graph, which has {nodes} nodes", target.0)]
    NoTarget {
        /// The target that was asked for.
        target: NodeId,
        /// Nodes that there are.
        nodes: usize,
    },
}

/// An event does not fit: the caller has a bug, and nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The vertex has ended, or never was.
    #[error("event '{event}' for {vertex:?}, which has no job under way")]
    Unknown {
        /// The vertex that the event named.
        vertex: VertexId,
        /// The event's word.
        event: &'static str,
    },
    /// The vertex is in a phase that the event can't end.
    #[error("event '{event}' does not fit {vertex:?}, which is {phase}")]
    Unexpected {
        /// The vertex that the event named.
        vertex: VertexId,
        /// The event's word.
        event: &'static str,
        /// The phase's word.
        phase: &'static str,
    },
}

impl<O: Clone, E: Clone> Solver<O, E> {
    /// Has no builds.
    pub fn new(limits: SolverLimits) -> Self {
        Self {
            slots: Slots::new(limits),
            vertices: BTreeMap::new(),
            builds: BTreeMap::new(),
            shared: BTreeMap::new(),
            leaders: BTreeMap::new(),
            actions: Vec::new(),
            next_vertex: 0,
        }
    }

    /// Starts a build. Nodes that other builds work on already are joined.
    ///
    /// # Errors
    /// When the key is in use or the target is not in the graph.
    pub fn add_build(&mut self, request: BuildRequest<'_>) -> Result<(), AddError> {
        let BuildRequest { key, graph, target, .. } = request;
        if self.builds.contains_key(&key) {
            return Err(AddError::Duplicate(key));
        }
        if target.index() >= graph.nodes().len() {
            return Err(AddError::NoTarget { target, nodes: graph.nodes().len() });
        }
        let remaining = ready::remaining(graph, target, request.expected);
        let build = Build { target, vertices: BTreeMap::new(), state: BuildState::Active };
        self.builds.insert(key, build);
        for id in graph.needed(target) {
            let rank = Rank { priority: request.priority, remaining: remaining[id.index()] };
            self.add_node(&request, id, User { build: key, node: id, rank });
        }
        self.succeed_if_done(key);
        Ok(())
    }

    fn add_node(&mut self, request: &BuildRequest<'_>, id: NodeId, user: User) {
        let node = request.graph.node(id);
        let Some(build) = self.builds.get_mut(&request.key) else { return };
        let inputs: Vec<_> = node.inputs.iter().map(|i| build.vertices[i]).collect();
        let reach = share::reach(node, id, request.key, request.group);
        let share = ShareKey { reach, digest: node.digest, inputs: inputs.clone() };
        if let Some(vertex) = self.shared.get(&share).copied() {
            build.vertices.insert(id, vertex);
            self.join(vertex, user);
        } else {
            let vertex = VertexId(self.next_vertex);
            self.next_vertex += 1;
            build.vertices.insert(id, vertex);
            self.create(vertex, Kind::of(node), request.group, share, user);
        }
    }

    fn create(&mut self, id: VertexId, kind: Kind, group: ShareGroup, share: ShareKey, user: User) {
        let inputs = share.inputs.clone();
        let mut missing = 0;
        for input in &inputs {
            if let Some(input) = self.vertices.get_mut(input)
                && !matches!(input.phase, Phase::Done { .. })
            {
                input.dependants.push(id);
                missing += 1;
            }
        }
        self.shared.insert(share.clone(), id);
        let vertex = Vertex {
            kind,
            phase: Phase::Waiting { missing },
            group,
            share,
            key: None,
            users: vec![user],
            ran_for: None,
            inputs,
            dependants: Vec::new(),
            followers: Vec::new(),
        };
        self.vertices.insert(id, vertex);
        if missing == 0 {
            self.start(id);
        }
    }

    fn join(&mut self, id: VertexId, user: User) {
        let Some(vertex) = self.vertices.get_mut(&id) else { return };
        vertex.users.push(user);
        match &vertex.phase {
            Phase::Resolving | Phase::Running | Phase::Following { .. } => {
                self.report(user, id, Report::Joined);
            }
            Phase::Done { output, how } => {
                let how = if *how == How::Ran { How::Joined } else { *how };
                let report = Report::Done { output: output.clone(), how };
                self.report(user, id, report);
            }
            Phase::Waiting { .. }
            | Phase::LookingUp
            | Phase::Ready { .. }
            | Phase::Cancelling { .. } => {}
        }
        self.refresh_rank(id);
    }

    /// Begins the work of a vertex whose inputs are done.
    pub(crate) fn start(&mut self, id: VertexId) {
        let Some(job) = self.job(id) else { return };
        let Some(vertex) = self.vertices.get_mut(&id) else { return };
        match vertex.kind {
            Kind::Source => {
                vertex.phase = Phase::Resolving;
                self.announce(id, &job);
                self.actions.push(Action::Resolve(job));
            }
            Kind::Cached(_) => {
                vertex.phase = Phase::LookingUp;
                self.actions.push(Action::Lookup(job));
            }
            Kind::Uncached(class) => self.make_ready(id, class),
        }
    }

    /// Puts a vertex in line for a slot.
    pub(crate) fn make_ready(&mut self, id: VertexId, class: SlotClass) {
        let rank = self.rank(id);
        let ticket = self.slots.queue(class, rank, id);
        if let Some(vertex) = self.vertices.get_mut(&id) {
            vertex.phase = Phase::Ready { ticket };
        }
    }

    /// Moves a vertex, or the one that it follows, to its place in line after its users changed.
    pub(crate) fn refresh_rank(&mut self, id: VertexId) {
        let id = match self.vertices.get(&id).map(|v| &v.phase) {
            Some(Phase::Following { leader }) => *leader,
            _ => id,
        };
        let rank = self.rank(id);
        let Some(vertex) = self.vertices.get_mut(&id) else { return };
        if let (Phase::Ready { ticket }, Some(class)) = (&mut vertex.phase, vertex.kind.slot()) {
            *ticket = self.slots.rerank(class, *ticket, rank);
        }
    }

    /// Returns the rank of the most urgent node that waits for the vertex.
    fn rank(&self, id: VertexId) -> Rank {
        let vertex = self.vertices.get(&id);
        let followers = vertex.into_iter().flat_map(|v| &v.followers);
        let followers = followers.filter_map(|f| self.vertices.get(f));
        let users = vertex.into_iter().chain(followers).flat_map(|v| &v.users);
        let least = Rank { priority: i32::MIN, remaining: std::time::Duration::ZERO };
        users.map(|u| u.rank).max().unwrap_or(least)
    }

    fn job(&self, id: VertexId) -> Option<Job<O>> {
        let vertex = self.vertices.get(&id)?;
        let user = vertex.users.first()?;
        let output = |input: &VertexId| match &self.vertices.get(input)?.phase {
            Phase::Done { output, .. } => Some(output.clone()),
            _ => None,
        };
        let inputs = vertex.inputs.iter().map(output).collect::<Option<Vec<_>>>()?;
        Some(Job { vertex: id, build: user.build, node: user.node, inputs })
    }

    pub(crate) fn report(&mut self, user: User, vertex: VertexId, report: Report<O, E>) {
        let User { build, node, .. } = user;
        self.actions.push(Action::Report { build, node, vertex, report });
    }

    /// Takes news of a job.
    ///
    /// # Errors
    /// When the vertex has no job that the event could end; nothing is changed then.
    pub fn event(&mut self, event: Event<O, E>) -> Result<(), EventError> {
        let (id, word) = (event.vertex(), event.word());
        let Some(vertex) = self.vertices.get(&id) else {
            return Err(EventError::Unknown { vertex: id, event: word });
        };
        match (&vertex.phase, event) {
            (Phase::Cancelling { build, slot }, _) => {
                let (build, slot) = (*build, *slot);
                self.cancelled(id, build, slot);
            }
            (Phase::LookingUp, Event::Hit { output, .. }) => self.complete(id, output, How::Hit),
            (Phase::LookingUp, Event::Miss { key, .. }) => self.missed(id, key),
            (Phase::Resolving, Event::Finished { output, .. }) => {
                self.complete(id, output, How::Resolved);
            }
            (Phase::Running, Event::Finished { output, .. }) => {
                self.free_slot(id);
                self.complete(id, output, How::Ran);
            }
            (Phase::Running, Event::Failed { error, .. }) => {
                self.free_slot(id);
                self.failed(id, &error);
            }
            (Phase::Resolving | Phase::LookingUp, Event::Failed { error, .. }) => {
                self.failed(id, &error);
            }
            (phase, _) => {
                let phase = phase.word();
                return Err(EventError::Unexpected { vertex: id, event: word, phase });
            }
        }
        Ok(())
    }

    fn free_slot(&mut self, id: VertexId) {
        if let Some(class) = self.vertices.get(&id).and_then(|v| v.kind.slot()) {
            self.slots.free(class);
        }
    }

    /// Ends a build early. Its end follows as [`Action::BuildDone`], when all that only it wanted
    /// has stopped. Does nothing when the build is ending or unknown.
    pub fn cancel(&mut self, build: BuildKey) {
        self.end(build, Outcome::Cancelled);
    }

    /// Returns what to do now: all that came up since the last call, and what free slots allow.
    /// Call it after every event or group of events.
    pub fn poll_actions(&mut self) -> Vec<Action<O, E>> {
        for class in [SlotClass::Exec, SlotClass::Io] {
            while let Some(id) = self.slots.grant(class) {
                self.run(id);
            }
        }
        std::mem::take(&mut self.actions)
    }

    fn run(&mut self, id: VertexId) {
        let Some(job) = self.job(id) else {
            debug_assert!(false, "a ready vertex has users, and inputs that are done");
            return;
        };
        self.announce(id, &job);
        if let Some(vertex) = self.vertices.get_mut(&id) {
            vertex.phase = Phase::Running;
            vertex.ran_for = Some((job.build, job.node));
        }
        self.actions.push(Action::Run(job));
    }

    /// Tells the users of a vertex that its job begins.
    fn announce(&mut self, id: VertexId, job: &Job<O>) {
        let users = self.vertices.get(&id).map(|v| v.users.clone()).unwrap_or_default();
        for user in users {
            let own = (user.build, user.node) == (job.build, job.node);
            self.report(user, id, if own { Report::Started } else { Report::Joined });
        }
    }

    /// Returns the builds and nodes that a vertex works for, those included that only follow it:
    /// whoever shall see its log.
    pub fn users(&self, vertex: VertexId) -> Vec<(BuildKey, NodeId)> {
        let vertex = self.vertices.get(&vertex);
        let followers = vertex.into_iter().flat_map(|v| &v.followers);
        let followers = followers.filter_map(|f| self.vertices.get(f));
        let users = vertex.into_iter().chain(followers).flat_map(|v| &v.users);
        users.map(|u| (u.build, u.node)).collect()
    }

    /// Returns how far a build is; `None` when it has ended.
    pub fn progress(&self, build: BuildKey) -> Option<Progress> {
        let build = self.builds.get(&build)?;
        let mut progress = Progress { total: build.vertices.len(), ..Progress::default() };
        for vertex in build.vertices.values().filter_map(|v| self.vertices.get(v)) {
            progress.done += usize::from(matches!(vertex.phase, Phase::Done { .. }));
            progress.in_flight += usize::from(vertex.phase.in_flight());
        }
        Some(progress)
    }

    /// Whether no build and no job is left.
    pub fn is_idle(&self) -> bool {
        self.builds.is_empty() && self.vertices.is_empty() && self.actions.is_empty()
    }
}
