//! What a build does: a DAG of content-addressed operations.
//!
//! Every node yields one file tree. A node's digest covers its operation and the digests of its
//! inputs, and nothing else: names, step numbers and cache wishes are [`NodeMeta`] and stay
//! outside, so the same operation on the same inputs has the same digest whichever frontend made
//! it. The digest says which *work* is the same; what a cache hit needs is decided by the
//! executor from the *content* of the inputs ([`crate::cache`]).

mod exec;
mod file;

pub use exec::{
    Background, CacheSharing, Exec, ExtraHost, Mount, MountKind, Network, Probe, ProbeKind,
    ReturnFile, Security, Ulimit,
};
pub use file::{Copy, FileAction, Mode, Owner, OwnerPart};

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Hasher, Platform};

/// The most nodes a graph may have: a bound on what a hostile definition can cost.
pub const NODES_MAX: usize = 20_000;

/// The place of a node in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u32);

impl NodeId {
    /// Returns the place as an index into [`Graph::nodes`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of a step as people see it, from 1, unique in a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub u32);

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// The empty tree.
    Scratch,
    /// The tree of an image. No inputs.
    Image {
        /// The reference as the user meant it, normalised; for messages and for finding a registry.
        reference: String,
        /// The digest of the platform's manifest that the reference stood for.
        manifest: Digest,
        /// The platform that was chosen.
        platform: Platform,
    },
    /// A directory that the client supplies. No inputs.
    Context {
        /// `context` for the main one, or the name of a named context.
        name: String,
        /// Patterns of files that are not there, in `.dockerignore` order and syntax.
        exclude: Vec<String>,
    },
    /// A checkout of a git repository. No inputs.
    Git {
        /// The repository's address.
        remote: String,
        /// Branch, tag, full ref or commit; the default branch when empty.
        reference: String,
        /// The commit that must come out, when the user named one.
        checksum: Option<String>,
        /// A directory of the checkout that becomes the tree's root.
        subdir: String,
        /// Whether `.git` stays in the tree.
        keep_git_dir: bool,
        /// Whether submodules are checked out.
        submodules: bool,
    },
    /// One fetched file at the root of an otherwise empty tree. No inputs.
    Http {
        /// Address with scheme `http` or `https`.
        url: String,
        /// The digest that the content must have.
        checksum: Option<Digest>,
        /// The file's name in the tree.
        filename: String,
    },
    /// A process tree that runs in the tree of input 0.
    Exec(Box<Exec>),
    /// File actions on the tree of input 0, one layer.
    File {
        /// In order; they see each other's results.
        actions: Vec<FileAction>,
    },
    /// Input 0 with the own layers of every further input stacked on it.
    Merge,
}

/// How a node is shown and cached; not a part of its digest.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeMeta {
    /// What people see, for example `[build 2/5] RUN make`.
    pub name: String,
    /// The step that the node belongs to; none for sources that no step shows.
    pub step: Option<StepId>,
    /// Whether exactly one layer cache entry is counted for the node.
    pub counted: bool,
    /// Whether and why earlier results must not be used.
    pub bypass: Option<crate::cache::Bypass>,
    /// Where in the definition the node comes from.
    pub location: Option<crate::frontend::Location>,
    /// Variables that a process gets on top of its own and that no key may see: proxies, which
    /// say how the network is reached and not what is fetched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unkeyed_env: Vec<(String, String)>,
}

/// An operation with its inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// Trees that it works on; each lies before the node in the graph.
    pub inputs: Vec<NodeId>,
    /// How it is shown.
    pub meta: NodeMeta,
    /// Digest of the operation and its inputs.
    pub digest: Digest,
}

/// Nodes in an order in which every input comes before its user.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Graph {
    nodes: Vec<Node>,
    /// Nodes without a step, by digest: sources that several steps name are one node.
    #[serde(skip)]
    shared: HashMap<Digest, Vec<NodeId>>,
}

impl PartialEq for Graph {
    fn eq(&self, other: &Self) -> bool {
        self.nodes == other.nodes
    }
}

/// A graph could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// There are too many operations.
    #[error("the definition makes more than {NODES_MAX} operations; split it into several builds")]
    TooLarge,
    /// An input does not exist yet.
    #[error("operation {node} names input {input}, which does not come before it")]
    UnknownInput {
        /// The node that would have been added.
        node: u32,
        /// The input that it named.
        input: u32,
    },
}

impl Graph {
    /// Returns an empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node, or returns the one that does the same work already and is shown alike.
    ///
    /// # Errors
    /// When an input is unknown or the graph is full.
    pub fn add(
        &mut self,
        op: Op,
        inputs: Vec<NodeId>,
        meta: NodeMeta,
    ) -> Result<NodeId, GraphError> {
        let place = u32::try_from(self.nodes.len()).map_err(|_| GraphError::TooLarge)?;
        if self.nodes.len() >= NODES_MAX {
            return Err(GraphError::TooLarge);
        }
        if let Some(bad) = inputs.iter().find(|i| i.0 >= place) {
            return Err(GraphError::UnknownInput { node: place, input: bad.0 });
        }
        let digest = node_digest(&op, inputs.iter().map(|i| &self.nodes[i.index()].digest));
        if meta.step.is_none() {
            let alike = self.shared.entry(digest).or_default();
            if let Some(same) = alike.iter().find(|id| self.nodes[id.index()].meta == meta) {
                return Ok(*same);
            }
            alike.push(NodeId(place));
        }
        self.nodes.push(Node { op, inputs, meta, digest });
        Ok(NodeId(place))
    }

    /// Returns all nodes, inputs before users.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns one node.
    ///
    /// # Panics
    /// When `id` comes from another graph.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Returns the nodes that `target` needs, itself included, inputs before users.
    pub fn needed(&self, target: NodeId) -> Vec<NodeId> {
        let mut wanted = vec![false; self.nodes.len()];
        wanted[target.index()] = true;
        for i in (0..=target.index()).rev() {
            if wanted[i] {
                self.nodes[i].inputs.iter().for_each(|n| wanted[n.index()] = true);
            }
        }
        (0..self.nodes.len()).filter(|&i| wanted[i]).map(|i| NodeId(i as u32)).collect()
    }
}

/// JSON with the fields in declaration order is the canonical encoding of an operation: it is
/// stable, and a new optional field changes no digest as long as it is skipped when empty.
fn node_digest<'a>(op: &Op, inputs: impl Iterator<Item = &'a Digest>) -> Digest {
    let mut hasher = Hasher::new();
    let encoded = serde_json::to_vec(op).unwrap_or_default();
    debug_assert!(!encoded.is_empty(), "an operation holds only strings, numbers and lists");
    hasher.field(b"ashlar.node.v1").field(encoded);
    for digest in inputs {
        hasher.field(digest.as_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mkdir(path: &str) -> Op {
        Op::File {
            actions: vec![FileAction::Mkdir {
                path: path.into(),
                mode: 0o755,
                parents: true,
                owner: Owner::default(),
            }],
        }
    }

    #[test]
    fn digest_ignores_names_and_sees_inputs() {
        let mut g = Graph::new();
        let a = g.add(Op::Scratch, vec![], NodeMeta::default()).unwrap();
        let named = NodeMeta { name: "x".into(), step: Some(StepId(1)), ..NodeMeta::default() };
        let b = g.add(mkdir("/a"), vec![a], named).unwrap();
        let c = g.add(mkdir("/a"), vec![a], NodeMeta::default()).unwrap();
        let d = g.add(mkdir("/a"), vec![b], NodeMeta::default()).unwrap();
        assert_eq!(g.node(b).digest, g.node(c).digest);
        assert_ne!(g.node(b).digest, g.node(d).digest);
        assert_eq!(g.add(Op::Scratch, vec![], NodeMeta::default()).unwrap(), a);
        assert_eq!(g.needed(c), [a, c]);
    }

    #[test]
    fn inputs_must_come_first() {
        let mut g = Graph::new();
        let bad = g.add(Op::Merge, vec![NodeId(0)], NodeMeta::default());
        assert_eq!(bad, Err(GraphError::UnknownInput { node: 0, input: 0 }));
    }
}
