//! What the solver is told, and what it says.

use ashlar_core::Digest;
use ashlar_core::graph::NodeId;

use crate::{BuildKey, VertexId};

/// One piece of work for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job<O> {
    /// The vertex that the ending event must name.
    pub vertex: VertexId,
    /// The build whose node, secrets and limits it is done with.
    pub build: BuildKey,
    /// The node in that build's graph.
    pub node: NodeId,
    /// The outputs of the node's inputs, in their order.
    pub inputs: Vec<O>,
}

/// What the caller shall do. The order matters: a report of a build never follows its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<O, E> {
    /// Find out what a source stands for. Ends with `Finished`, `Failed` or `Cancelled`.
    Resolve(Job<O>),
    /// Look for an earlier result. Ends with `Hit`, `Miss`, `Failed` or `Cancelled`.
    Lookup(Job<O>),
    /// Run the operation. Ends with `Finished`, `Failed` or `Cancelled`.
    Run(Job<O>),
    /// Stop the vertex's job: nobody wants it any more. Its ending event is still owed.
    Cancel {
        /// The vertex.
        vertex: VertexId,
    },
    /// News of one node of one build.
    Report {
        /// The build.
        build: BuildKey,
        /// The node in its graph.
        node: NodeId,
        /// The vertex that does the node's work.
        vertex: VertexId,
        /// What happened.
        report: Report<O, E>,
    },
    /// A build has ended, and nothing that only it wanted is under way.
    BuildDone {
        /// The build; the key is free again.
        build: BuildKey,
        /// How it ended.
        outcome: Outcome<O, E>,
    },
}

/// What happened to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report<O, E> {
    /// Its work begins for this build.
    Started,
    /// Its work is being done for another node already; in the cache's counters this is a hit.
    Joined,
    /// It has its output.
    Done {
        /// The output.
        output: O,
        /// Where that came from.
        how: How,
    },
    /// It failed, and the build with it.
    Failed {
        /// Why.
        error: E,
    },
}

/// Where an output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A source was resolved.
    Resolved,
    /// The cache had it.
    Hit,
    /// It was run for this node.
    Ran,
    /// It was run for another node, of this build or of another.
    Joined,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<O, E> {
    /// The target has its output.
    Succeeded {
        /// The target's output.
        output: O,
    },
    /// A node failed.
    Failed {
        /// The first that did.
        node: NodeId,
        /// Why.
        error: E,
    },
    /// It was cancelled.
    Cancelled,
}

/// What happened outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<O, E> {
    /// A look-up found a result.
    Hit {
        /// The vertex.
        vertex: VertexId,
        /// The result.
        output: O,
    },
    /// A look-up found none.
    Miss {
        /// The vertex.
        vertex: VertexId,
        /// The key that was looked up; vertices with equal keys run once. `None` joins nothing.
        key: Option<Digest>,
    },
    /// A source is resolved, or an operation has run.
    Finished {
        /// The vertex.
        vertex: VertexId,
        /// Its result.
        output: O,
    },
    /// The job came to an error.
    Failed {
        /// The vertex.
        vertex: VertexId,
        /// What went wrong.
        error: E,
    },
    /// The job was stopped, as [`Action::Cancel`] asked.
    Cancelled {
        /// The vertex.
        vertex: VertexId,
    },
}

impl<O, E> Event<O, E> {
    /// Returns the vertex that the event speaks of.
    pub fn vertex(&self) -> VertexId {
        match self {
            Self::Hit { vertex, .. }
            | Self::Miss { vertex, .. }
            | Self::Finished { vertex, .. }
            | Self::Failed { vertex, .. }
            | Self::Cancelled { vertex } => *vertex,
        }
    }

    /// Returns the event's word, for errors.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Hit { .. } => "hit",
            Self::Miss { .. } => "miss",
            Self::Finished { .. } => "finished",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
        }
    }
}
