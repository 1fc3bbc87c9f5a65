//! Where the nodes of a run are: the fold of the notes in its journal, and what comes next.

use std::collections::BTreeMap;

use ashlar_core::BuildId;
use ashlar_core::journal::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::definition::{Node, When, Workflow};

/// Whose notes those about nodes are.
pub(super) const NOTES: &str = "workflow";

/// Where a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Its turn has not come.
    #[default]
    Waiting,
    /// An attempt is under way.
    Started,
    /// It has done its work.
    Succeeded,
    /// It had nothing to do, which counts as success.
    Passed,
    /// All its attempts failed.
    Failed,
    /// What it needs came to something else than it asks for.
    Skipped,
    /// The run was stopped.
    Cancelled,
}

impl NodeState {
    /// Says whether the node has ended.
    pub const fn is_terminal(self) -> bool {
        !matches!(self, Self::Waiting | Self::Started)
    }

    const fn is_good(self) -> bool {
        matches!(self, Self::Succeeded | Self::Passed)
    }
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Where it is.
    pub state: NodeState,
    /// The last attempt that was begun, from 1.
    pub attempt: u32,
    /// That attempt's build, accepted or about to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildId>,
    /// Whether that build was accepted for sure: if it is not there, it is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
    /// What a node that is no build came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where all nodes of a run are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Progress {
    nodes: BTreeMap<String, NodeStatus>,
}

/// A note about a node.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    node: String,
    #[serde(flatten)]
    status: NodeStatus,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// These nodes begin, by their places, and these are skipped.
    Go {
        /// Nodes to begin.
        begin: Vec<usize>,
        /// Nodes whose condition does not hold.
        skip: Vec<usize>,
    },
    /// Some nodes are at work; wait for them.
    Wait,
    /// All have ended; whether the run has succeeded.
    Ended(bool),
}

impl Progress {
    /// Returns what is known of a node.
    pub fn of(&self, node: &str) -> NodeStatus {
        self.nodes.get(node).cloned().unwrap_or_default()
    }

    /// Returns the nodes that something is known of.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeStatus)> {
        self.nodes.iter().map(|(id, status)| (id.as_str(), status))
    }

    /// Takes an event of the run's journal into account.
    pub(super) fn fold(&mut self, event: &Event) {
        let Event::Note { dialect, value } = event else { return };
        if dialect != NOTES {
            return;
        }
        // What another version wrote and this one cannot read is no progress.
        if let Ok(note) = serde_json::from_value::<Note>(value.clone()) {
            self.nodes.insert(note.node, note.status);
        }
    }

    /// Changes a node, and returns the note that says so.
    pub(super) fn set(&mut self, node: &str, status: NodeStatus) -> Event {
        self.nodes.insert(node.to_owned(), status.clone());
        let note = Note { node: node.to_owned(), status };
        // Of plain texts and numbers: always JSON.
        let value = serde_json::to_value(note).unwrap_or_default();
        Event::Note { dialect: NOTES.into(), value }
    }

    fn state(&self, node: &str) -> NodeState {
        self.nodes.get(node).map_or(NodeState::Waiting, |n| n.state)
    }

    /// Returns the nodes that are at work.
    pub(super) fn started<'a>(
        &'a self,
        workflow: &'a Workflow,
    ) -> impl Iterator<Item = (&'a Node, &'a NodeStatus)> {
        let found = workflow.nodes.iter().filter_map(|n| Some((n, self.nodes.get(&n.id)?)));
        found.filter(|(_, status)| status.state == NodeState::Started)
    }

    /// Says what comes next.
    pub(super) fn next(&self, workflow: &Workflow) -> Next {
        let at_work = self.started(workflow).count();
        let most = workflow.parallelism.map_or(usize::MAX, |n| n as usize);
        let mut free = most.saturating_sub(at_work);
        let (mut begin, mut skip, mut waiting) = (Vec::new(), Vec::new(), false);
        for (place, node) in workflow.nodes.iter().enumerate() {
            if self.state(&node.id) != NodeState::Waiting {
                continue;
            }
            match self.is_due(node) {
                None => waiting = true,
                Some(false) => skip.push(place),
                Some(true) if free > 0 => {
                    free -= 1;
                    begin.push(place);
                }
                Some(true) => waiting = true,
            }
        }
        if !begin.is_empty() || !skip.is_empty() {
            return Next::Go { begin, skip };
        }
        if at_work > 0 || waiting {
            return Next::Wait;
        }
        let bad = |n: &Node| self.state(&n.id) == NodeState::Failed && !n.optional;
        Next::Ended(!workflow.nodes.iter().any(bad))
    }

    /// Says whether a node's condition holds; nothing as long as that is open.
    fn is_due(&self, node: &Node) -> Option<bool> {
        let states: Vec<NodeState> = node.needs.iter().map(|n| self.state(n)).collect();
        if !states.iter().all(|s| s.is_terminal()) {
            return None;
        }
        Some(match node.when {
            When::Success => states.iter().all(|s| s.is_good()),
            When::Failure => states.contains(&NodeState::Failed),
            When::Always => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::definition::Work;
    use super::*;

    fn node(id: &str, needs: &[&str], when: When) -> Node {
        let needs = needs.iter().map(|n| (*n).to_owned()).collect();
        let (id, work) = (id.to_owned(), Work::Join);
        Node { id, needs, when, attempts: 1, optional: false, wait: true, work }
    }

    /// Lets every node that begins end at once, `bad` ones badly; returns who did what, in order.
    fn play(workflow: &Workflow, bad: &[&str]) -> (Vec<String>, bool) {
        let (mut progress, mut told) = (Progress::default(), Vec::new());
        loop {
            match progress.next(workflow) {
                Next::Go { begin, skip } => {
                    for (places, skipped) in [(begin, false), (skip, true)] {
                        for place in places {
                            let id = &workflow.nodes[place].id;
                            let state = match (skipped, bad.contains(&id.as_str())) {
                                (true, _) => NodeState::Skipped,
                                (false, true) => NodeState::Failed,
                                (false, false) => NodeState::Succeeded,
                            };
                            told.push(format!("{id}:{state:?}"));
                            progress.set(id, NodeStatus { state, ..NodeStatus::default() });
                        }
                    }
                }
                Next::Ended(good) => return (told, good),
                Next::Wait => panic!("nothing is at work"),
            }
        }
    }

    #[test]
    fn conditions_decide_who_goes() {
        let nodes = vec![
            node("a", &[], When::Success),
            node("b", &["a"], When::Success),
            node("rescue", &["a"], When::Failure),
            node("clean", &["a", "b", "rescue"], When::Always),
            node("after", &["b"], When::Success),
        ];
        let workflow = Workflow { nodes, ..Workflow::default() };
        let (told, good) = play(&workflow, &[]);
        assert!(good);
        let want = ["a:Succeeded", "b:Succeeded", "rescue:Skipped", "clean:Succeeded"];
        assert_eq!(told[..3], want[..3]);
        assert!(told.contains(&"after:Succeeded".to_owned()));
        let (told, good) = play(&workflow, &["a"]);
        assert!(!good);
        let want =
            ["a:Failed", "rescue:Succeeded", "b:Skipped", "clean:Succeeded", "after:Skipped"];
        assert_eq!(told, want);
    }

    #[test]
    fn optional_failures_do_not_fail_the_run_and_parallelism_is_bounded() {
        let nodes = ["a", "b", "c"].map(|id| node(id, &[], When::Success)).to_vec();
        let mut workflow = Workflow { nodes, parallelism: Some(2), ..Workflow::default() };
        workflow.nodes[1].optional = true;
        assert!(play(&workflow, &["b"]).1);
        let mut progress = Progress::default();
        let go = Next::Go { begin: vec![0, 1], skip: Vec::new() };
        assert_eq!(progress.next(&workflow), go);
        for id in ["a", "b"] {
            let status = NodeStatus { state: NodeState::Started, ..NodeStatus::default() };
            progress.set(id, status);
        }
        assert_eq!(progress.next(&workflow), Next::Wait);
    }

    #[test]
    fn the_state_is_the_fold_of_the_notes() {
        let mut progress = Progress::default();
        let mut notes = Vec::new();
        for (id, state) in [("a", NodeState::Started), ("b", NodeState::Passed)] {
            notes.push(progress.set(id, NodeStatus { state, attempt: 2, ..NodeStatus::default() }));
        }
        let error = Some("no".to_owned());
        notes.push(progress.set("a", NodeStatus { error, ..NodeStatus::default() }));
        let mut again = Progress::default();
        notes.iter().for_each(|n| again.fold(n));
        again.fold(&Event::Note { dialect: "other".into(), value: Value::Null });
        assert_eq!(again, progress);
    }
}
