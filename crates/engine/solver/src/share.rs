//! Which nodes may be one vertex.

use ashlar_core::Digest;
use ashlar_core::graph::{Node, NodeId, Op};

use crate::{BuildKey, VertexId};

/// Builds of one group may share running work: usually one tenant's or one scope's. Builds whose
/// limits differ so much that one's failure would wrong the other belong in different groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShareGroup(pub u64);

/// Who may use a vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// All builds of a group.
    Group(ShareGroup),
    /// Equal nodes of one build.
    Build(BuildKey),
    /// One node of one build.
    Node(BuildKey, NodeId),
}

/// Vertices with equal keys are one. The input vertices are a part of it: behind equal digests
/// may lie sources that are not shared (two builds' contexts), and so different trees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShareKey {
    pub(crate) reach: Reach,
    pub(crate) digest: Digest,
    pub(crate) inputs: Vec<VertexId>,
}

/// Whether the node runs without a look-up.
pub(crate) fn skips_lookup(node: &Node) -> bool {
    node.meta.bypass.is_some() || is_effect(node)
}

fn is_effect(node: &Node) -> bool {
    matches!(&node.op, Op::Exec(exec) if exec.effect)
}

pub(crate) fn reach(node: &Node, id: NodeId, build: BuildKey, group: ShareGroup) -> Reach {
    if is_effect(node) {
        Reach::Node(build, id)
    } else if node.meta.bypass.is_some() || !content_is_fixed(&node.op) {
        Reach::Build(build)
    } else {
        Reach::Group(group)
    }
}

/// Whether the operation and its inputs alone fix the result. A branch may move and a download may
/// change between the starts of two builds; the later build must not get the earlier one's.
/// Secrets that enter the key differ by build too: such steps meet by their keys instead.
fn content_is_fixed(op: &Op) -> bool {
    match op {
        Op::Context { .. } => false,
        Op::Git { checksum, .. } => checksum.is_some(),
        Op::Http { checksum, .. } => checksum.is_some(),
        Op::Exec(exec) => exec.keyed_secrets.is_empty(),
        Op::Scratch | Op::Image { .. } | Op::File { .. } | Op::Merge => true,
    }
}
