//! One build, and the request for one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use ashlar_core::graph::{Graph, Node, NodeId};

use crate::{BuildKey, Outcome, ShareGroup, VertexId};

/// What [`crate::Solver::add_build`] needs to know of a build.
pub struct BuildRequest<'a> {
    /// The caller's name for it.
    pub key: BuildKey,
    /// The operations.
    pub graph: &'a Graph,
    /// The node whose output is wanted.
    pub target: NodeId,
    /// Whose running work it may share.
    pub group: ShareGroup,
    /// Vertices of a greater priority get slots first; 0 is usual.
    pub priority: i32,
    /// How long a node took the last time, when that is remembered.
    pub expected: &'a dyn Fn(&Node) -> Option<Duration>,
}

impl<'a> BuildRequest<'a> {
    /// Makes a request with group 0, priority 0 and no remembered durations.
    pub fn new(key: BuildKey, graph: &'a Graph, target: NodeId) -> Self {
        let (group, priority) = (ShareGroup::default(), 0);
        Self { key, graph, target, group, priority, expected: &|_| None }
    }
}

impl fmt::Debug for BuildRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuildRequest")
            .field("key", &self.key)
            .field("target", &self.target)
            .field("group", &self.group)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

/// How far a build is, in nodes that its target needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// All of them.
    pub total: usize,
    /// Those with an output.
    pub done: usize,
    /// Those that are being resolved, looked up or run.
    pub in_flight: usize,
}

#[derive(Debug)]
pub(crate) struct Build<O, E> {
    pub(crate) target: NodeId,
    /// The vertex of each node that the target needs.
    pub(crate) vertices: BTreeMap<NodeId, VertexId>,
    pub(crate) state: BuildState<O, E>,
}

#[derive(Debug)]
pub(crate) enum BuildState<O, E> {
    /// Its vertices are scheduled.
    Active,
    /// Nothing new is scheduled; these cancelled vertices must end first.
    Ending { outcome: Outcome<O, E>, awaited: BTreeSet<VertexId> },
}
