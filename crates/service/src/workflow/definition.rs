//! What a run is made from: nodes, what they need, and what they do.

use std::collections::BTreeMap;

use ashlar_core::Digest;
use ashlar_records::DEFINITION_BYTES_MAX;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::arguments;
use crate::{Definition, Error, Recipe};

/// Nodes that one run may have.
pub const NODES_MAX: usize = 500;
/// How often a node may be tried.
const ATTEMPTS_MAX: u32 = 10;
/// Arguments that one run may have.
const ARGUMENTS_MAX: usize = 200;
/// The longest id of a node, in bytes.
const ID_MAX: usize = 63;

/// A run of builds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Workflow {
    /// The nodes; what a node needs comes before it.
    pub nodes: Vec<Node>,
    /// One after the other, each needing the one before it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sequential: bool,
    /// Nodes that may be at work at once; no bound when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u32>,
    /// Values for `${args.NAME}` in the texts of nodes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub arguments: BTreeMap<String, String>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name within the run.
    pub id: String,
    /// Nodes that have to end before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// What they have to come to.
    #[serde(default)]
    pub when: When,
    /// How often it is tried, 1 to 10.
    #[serde(default = "one")]
    pub attempts: u32,
    /// Whether the run may succeed although the node fails.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Whether the node goes on until its build has ended; else it has succeeded once the build is
    /// accepted.
    #[serde(default = "yes")]
    pub wait: bool,
    /// What it does.
    pub work: Work,
}

const fn one() -> u32 {
    1
}

const fn yes() -> bool {
    true
}

/// What the nodes before a node have to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// All of them have succeeded.
    #[default]
    Success,
    /// One of them has failed.
    Failure,
    /// Whatever became of them.
    Always,
}

/// What a node does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// A build.
    Build(Box<NodeBuild>),
    /// Nothing: it brings others together.
    Join,
    /// Something that the dialect's [`super::NodeDriver`] knows.
    Custom {
        /// What the dialect wants to keep.
        value: Value,
    },
}

/// A node's build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeBuild {
    /// What it is made from.
    pub definition: Definition,
    /// The node whose image it builds on; its recipe is then [`Recipe::OnBuild`], whose base is
    /// filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<String>,
    /// Its scope; one of the node's own, below the run's, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Its name; the node's id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The backend that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Ids of the run's secrets that it gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
}

impl Workflow {
    /// Returns a node's place, from 0.
    pub(super) fn place(&self, id: &str) -> Option<usize> {
        self.nodes.iter().position(|n| n.id == id)
    }

    /// Returns the definitions of nodes that are builds.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.builds().map(|b| &b.definition)
    }

    /// Returns the contexts that nodes need.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = Digest> {
        self.builds().flat_map(|b| b.definition.contexts.values().copied())
    }

    /// Returns the definitions of all nodes that are builds.
    pub(crate) fn definitions_mut(&mut self) -> impl Iterator<Item = &mut Definition> {
        self.nodes.iter_mut().filter_map(|node| match &mut node.work {
            Work::Build(build) => Some(&mut build.definition),
            _ => None,
        })
    }

    fn builds(&self) -> impl Iterator<Item = &NodeBuild> {
        self.nodes.iter().filter_map(|node| match &node.work {
            Work::Build(build) => Some(&**build),
            _ => None,
        })
    }

    /// Checks the run, puts arguments into its texts and chains the nodes of a sequential one.
    pub(super) fn prepare(&mut self, scope: &str) -> Result<(), Error> {
        let count = self.nodes.len();
        if count == 0 || count > NODES_MAX {
            return Err(Error::invalid("nodes", format!("a run has 1 to {NODES_MAX} nodes")));
        }
        if self.arguments.len() > ARGUMENTS_MAX {
            let why = format!("a run has at most {ARGUMENTS_MAX} arguments");
            return Err(Error::invalid("arguments", why));
        }
        if self.arguments.values().any(|v| v.contains(arguments::OPEN)) {
            return Err(Error::invalid("arguments", "a value cannot name another argument"));
        }
        if self.parallelism == Some(0) {
            return Err(Error::invalid("parallelism", "must be at least 1"));
        }
        let mut room = DEFINITION_BYTES_MAX;
        let mut known: BTreeMap<String, bool> = BTreeMap::new();
        let mut last: Option<String> = None;
        for (i, node) in self.nodes.iter_mut().enumerate() {
            if self.sequential
                && let Some(last) = last.take()
                && !node.needs.contains(&last)
            {
                node.needs.push(last);
            }
            node.check(&format!("nodes[{i}]"), &known, scope)?;
            node.fill(&self.arguments, &format!("nodes[{i}]"), &mut room)?;
            last = Some(node.id.clone());
            known.insert(node.id.clone(), node.ends_with_a_build());
        }
        Ok(())
    }
}

impl Node {
    /// Says whether an image may be there once the node has ended.
    fn ends_with_a_build(&self) -> bool {
        self.wait && !matches!(self.work, Work::Join)
    }

    /// Checks the node; `known` are the ones before it, so that no circle can be, and whether each
    /// ends with a build.
    fn check(&self, field: &str, known: &BTreeMap<String, bool>, scope: &str) -> Result<(), Error> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if self.id.is_empty() || self.id.len() > ID_MAX || !self.id.bytes().all(fits) {
            let why = format!("must be 1 to {ID_MAX} letters, digits, '_' and '-'");
            return Err(Error::invalid(format!("{field}.id"), why));
        }
        if known.contains_key(&self.id) {
            return Err(Error::invalid(format!("{field}.id"), "another node has this id"));
        }
        if let Some(missing) = self.needs.iter().find(|n| !known.contains_key(*n)) {
            let shown: String = missing.chars().take(ID_MAX).collect();
            let why = format!("there is no node '{shown}' before this one");
            return Err(Error::invalid(format!("{field}.needs"), why));
        }
        if !(1..=ATTEMPTS_MAX).contains(&self.attempts) {
            let why = format!("must be 1 to {ATTEMPTS_MAX}");
            return Err(Error::invalid(format!("{field}.attempts"), why));
        }
        let Work::Build(build) = &self.work else { return Ok(()) };
        build.check(field, &self.needs, known)?;
        crate::submit::check_scope(&build.scope_of(scope, &self.id)).map_err(|_| {
            Error::invalid(format!("{field}.scope"), "is too long or has control characters")
        })
    }

    fn fill(
        &mut self,
        arguments: &BTreeMap<String, String>,
        field: &str,
        room: &mut usize,
    ) -> Result<(), Error> {
        let mut work = serde_json::to_value(&self.work).map_err(Error::internal)?;
        arguments::fill(&mut work, arguments, field, room)?;
        self.work = serde_json::from_value(work)
            .map_err(|e| Error::invalid(field, format!("with its arguments: {e}")))?;
        Ok(())
    }
}

impl NodeBuild {
    fn check(
        &self,
        field: &str,
        needs: &[String],
        known: &BTreeMap<String, bool>,
    ) -> Result<(), Error> {
        match (&self.definition.recipe, &self.on) {
            (Recipe::Workflow(_), _) => {
                Err(Error::invalid(field, "a node of a run cannot be a run"))
            }
            (Recipe::OnBuild { .. }, Some(on)) if needs.contains(on) => match known.get(on) {
                Some(true) => Ok(()),
                _ => {
                    let why = format!("'{on}' has no image when it ends: it must wait for a build");
                    Err(Error::invalid(format!("{field}.on"), why))
                }
            },
            (_, None) => Ok(()),
            (Recipe::OnBuild { .. }, Some(_)) => {
                Err(Error::invalid(format!("{field}.on"), "must be one of the nodes it needs"))
            }
            (_, Some(_)) => Err(Error::invalid(format!("{field}.on"), "is for steps only")),
        }
    }

    /// Returns the scope: one of the node's own keeps its cache warm, and never stands in the way
    /// of the run or of its other nodes.
    pub(super) fn scope_of(&self, run: &str, node: &str) -> String {
        self.scope.clone().unwrap_or_else(|| format!("{run}/{node}"))
    }
}
