//! Vertices that wait for a slot, most urgent first.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use ashlar_core::graph::{Graph, Node, NodeId, Op};

use crate::{SolverLimits, VertexId};

/// What a vertex takes while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotClass {
    Exec,
    Io,
}

/// How urgent a vertex is; greater is more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) priority: i32,
    /// Length of the longest path from the start of the vertex to the end of its build.
    pub(crate) remaining: Duration,
}

/// A place in a queue: by rank, then first come first served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    rank: Reverse<Rank>,
    sequence: u64,
    vertex: VertexId,
}

/// One queue and one slot budget by class.
#[derive(Debug)]
pub(crate) struct Slots {
    sequence: u64,
    exec: Pool,
    io: Pool,
}

#[derive(Debug)]
struct Pool {
    queue: BTreeSet<Ticket>,
    used: usize,
    limit: usize,
}

impl Slots {
    pub(crate) fn new(limits: SolverLimits) -> Self {
        let pool = |limit: usize| Pool { queue: BTreeSet::new(), used: 0, limit: limit.max(1) };
        Self { sequence: 0, exec: pool(limits.exec_slots), io: pool(limits.io_slots) }
    }

    fn pool(&mut self, class: SlotClass) -> &mut Pool {
        match class {
            SlotClass::Exec => &mut self.exec,
            SlotClass::Io => &mut self.io,
        }
    }

    /// Puts a vertex in line.
    pub(crate) fn queue(&mut self, class: SlotClass, rank: Rank, vertex: VertexId) -> Ticket {
        self.sequence += 1;
        let ticket = Ticket { rank: Reverse(rank), sequence: self.sequence, vertex };
        self.pool(class).queue.insert(ticket);
        ticket
    }

    /// Moves a vertex to where its new rank puts it; among equals it keeps its turn.
    pub(crate) fn rerank(&mut self, class: SlotClass, old: Ticket, rank: Rank) -> Ticket {
        let ticket = Ticket { rank: Reverse(rank), ..old };
        let queue = &mut self.pool(class).queue;
        queue.remove(&old);
        queue.insert(ticket);
        ticket
    }

    /// Takes a vertex out of the line.
    pub(crate) fn leave(&mut self, class: SlotClass, ticket: Ticket) {
        self.pool(class).queue.remove(&ticket);
    }

    /// Gives the most urgent vertex a free slot of the class.
    pub(crate) fn grant(&mut self, class: SlotClass) -> Option<VertexId> {
        let pool = self.pool(class);
        if pool.used >= pool.limit {
            return None;
        }
        let ticket = pool.queue.pop_first()?;
        pool.used += 1;
        Some(ticket.vertex)
    }

    /// Gives a slot back.
    pub(crate) fn free(&mut self, class: SlotClass) {
        let pool = self.pool(class);
        debug_assert!(pool.used > 0, "a slot is freed once");
        pool.used = pool.used.saturating_sub(1);
    }
}

/// What is assumed for work whose duration nobody remembers.
fn usual_duration(op: &Op) -> Duration {
    Duration::from_millis(match op {
        Op::Exec(_) => 1000,
        Op::Image { .. } | Op::Git { .. } | Op::Http { .. } => 500,
        Op::Context { .. } | Op::File { .. } => 100,
        Op::Scratch | Op::Merge => 1,
    })
}

/// Returns the length of the longest path from the start of each node to the end of `target`, by
/// the node's place; zero for nodes that the target does not need.
pub(crate) fn remaining(
    graph: &Graph,
    target: NodeId,
    expected: &dyn Fn(&Node) -> Option<Duration>,
) -> Vec<Duration> {
    let needed = graph.needed(target);
    let mut longest = vec![Duration::ZERO; graph.nodes().len()];
    for id in needed.iter().rev() {
        let node = graph.node(*id);
        let own = expected(node).unwrap_or_else(|| usual_duration(&node.op));
        let total = longest[id.index()].saturating_add(own);
        longest[id.index()] = total;
        for input in &node.inputs {
            longest[input.index()] = longest[input.index()].max(total);
        }
    }
    longest
}
