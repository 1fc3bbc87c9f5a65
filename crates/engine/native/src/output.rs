//! What a node of a graph came to.

use std::sync::Arc;

use ashlar_core::Digest;
use ashlar_snapshots::{Lease, Tree};

/// The output of one node; cheap to clone.
pub(crate) type Output = Arc<NodeOutput>;

/// A tree, or a context that stays where it is.
#[derive(Debug)]
pub(crate) enum NodeOutput {
    /// A tree of layers.
    Tree {
        /// All layers.
        tree: Tree,
        /// The topmost layers: those that the node itself added.
        own: Vec<Digest>,
        /// Keeps the node's own layers from being collected.
        _lease: Option<Lease>,
    },
    /// The context of that name.
    Context(String),
}

impl NodeOutput {
    /// Makes a tree output.
    pub(crate) fn tree(tree: Tree, own: Vec<Digest>, lease: Option<Lease>) -> Output {
        Arc::new(Self::Tree { tree, own, _lease: lease })
    }

    /// Returns the tree; a context has none.
    pub(crate) fn as_tree(&self) -> Option<&Tree> {
        match self {
            Self::Tree { tree, .. } => Some(tree),
            Self::Context(_) => None,
        }
    }

    /// Returns the layers that the node itself added.
    pub(crate) fn own(&self) -> &[Digest] {
        match self {
            Self::Tree { own, .. } => own,
            Self::Context(_) => &[],
        }
    }
}
