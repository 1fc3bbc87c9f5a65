//! One vertex: where it is, who wants it, what it depends on.

use ashlar_core::Digest;
use ashlar_core::graph::{Node, NodeId, Op};

use crate::ready::{Rank, SlotClass, Ticket};
use crate::share::{ShareGroup, ShareKey, skips_lookup};
use crate::{BuildKey, How, VertexId};

/// Where a vertex is. A vertex that failed is removed at once, with all that wanted it.
#[derive(Debug)]
pub(crate) enum Phase<O> {
    /// So many of its inputs are not done.
    Waiting { missing: usize },
    /// A source that is being resolved.
    Resolving,
    /// The cache is being asked.
    LookingUp,
    /// Missed; waits for a slot.
    Ready { ticket: Ticket },
    /// Holds a slot of its class.
    Running,
    /// Another vertex of the same key is ready or running, and will do for this one.
    Following { leader: VertexId },
    /// Nobody wants it, and `build` waits for its job to end. `slot` is given back then.
    Cancelling { build: BuildKey, slot: Option<SlotClass> },
    /// Has its output.
    Done { output: O, how: How },
}

impl<O> Phase<O> {
    /// Returns the phase's word, for errors.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Resolving => "resolving",
            Self::LookingUp => "looking up",
            Self::Ready { .. } => "ready",
            Self::Running => "running",
            Self::Following { .. } => "following",
            Self::Cancelling { .. } => "cancelling",
            Self::Done { .. } => "done",
        }
    }

    /// Whether the caller owes an ending event.
    pub(crate) fn in_flight(&self) -> bool {
        match self {
            Self::Resolving | Self::LookingUp | Self::Running | Self::Cancelling { .. } => true,
            Self::Waiting { .. }
            | Self::Ready { .. }
            | Self::Following { .. }
            | Self::Done { .. } => false,
        }
    }
}

/// How a vertex gets its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By resolving; takes no slot.
    Source,
    /// From the cache, or else by running.
    Cached(SlotClass),
    /// By running only.
    Uncached(SlotClass),
}

impl Kind {
    pub(crate) fn of(node: &Node) -> Self {
        let class = match &node.op {
            Op::Scratch
            | Op::Image { .. }
            | Op::Context { .. }
            | Op::Git { .. }
            | Op::Http { .. } => return Self::Source,
            Op::Exec(_) => SlotClass::Exec,
            Op::File { .. } | Op::Merge => SlotClass::Io,
        };
        if skips_lookup(node) { Self::Uncached(class) } else { Self::Cached(class) }
    }

    pub(crate) fn slot(self) -> Option<SlotClass> {
        match self {
            Self::Source => None,
            Self::Cached(class) | Self::Uncached(class) => Some(class),
        }
    }
}

/// One node of one build that wants a vertex.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) build: BuildKey,
    pub(crate) node: NodeId,
    pub(crate) rank: Rank,
}

#[derive(Debug)]
pub(crate) struct Vertex<O> {
    pub(crate) kind: Kind,
    pub(crate) phase: Phase<O>,
    pub(crate) group: ShareGroup,
    pub(crate) share: ShareKey,
    /// The key that its look-up missed with, when it leads those with the same one.
    pub(crate) key: Option<Digest>,
    /// Never empty but while cancelling, or while others follow what its own builds have left.
    pub(crate) users: Vec<User>,
    /// For whom it ran; to all others its output came by joining.
    pub(crate) ran_for: Option<(BuildKey, NodeId)>,
    /// In the node's order; one that is named twice is here twice.
    pub(crate) inputs: Vec<VertexId>,
    /// Those that wait for it, once for each time that they name it; none when it is done.
    pub(crate) dependants: Vec<VertexId>,
    /// Vertices in phase `Following` of this one.
    pub(crate) followers: Vec<VertexId>,
}
