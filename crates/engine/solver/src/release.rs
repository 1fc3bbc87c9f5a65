//! How builds end, and what becomes of vertices that nobody wants.

use std::collections::BTreeSet;

use crate::build::{Build, BuildState};
use crate::messages::{Action, Outcome};
use crate::ready::SlotClass;
use crate::vertex::Phase;
use crate::{BuildKey, Solver, VertexId};

impl<O: Clone, E: Clone> Solver<O, E> {
    /// Ends a build with success when its target is done.
    pub(crate) fn succeed_if_done(&mut self, key: BuildKey) {
        let Some(build) = self.builds.get(&key) else { return };
        let target = build.vertices.get(&build.target);
        let phase = target.and_then(|t| self.vertices.get(t)).map(|v| &v.phase);
        if let Some(Phase::Done { output, .. }) = phase {
            let output = output.clone();
            self.end(key, Outcome::Succeeded { output });
        }
    }

    /// Gives up all that a build wants; it is done when what only it wanted has stopped.
    pub(crate) fn end(&mut self, key: BuildKey, outcome: Outcome<O, E>) {
        let Some(build) = self.builds.get_mut(&key) else { return };
        let BuildState::Active = build.state else { return };
        build.state = BuildState::Ending { outcome, awaited: BTreeSet::new() };
        let vertices: BTreeSet<_> = build.vertices.values().copied().collect();
        for id in &vertices {
            if let Some(vertex) = self.vertices.get_mut(id) {
                vertex.users.retain(|u| u.build != key);
            }
        }
        let awaited = self.release_all(key, vertices);
        if let Some(Build { state: BuildState::Ending { awaited: slot, .. }, .. }) =
            self.builds.get_mut(&key)
        {
            *slot = awaited;
        }
        self.finish_if_settled(key);
    }

    /// Returns the vertices of `ids` that have to be cancelled. Followers go first, for a leader
    /// runs on only while one is left.
    fn release_all(&mut self, key: BuildKey, ids: BTreeSet<VertexId>) -> BTreeSet<VertexId> {
        let mut rest = BTreeSet::new();
        for id in ids {
            match self.vertices.get(&id).map(|v| (&v.phase, v.users.is_empty())) {
                Some((Phase::Following { leader }, true)) => {
                    rest.insert(*leader);
                    self.remove(id);
                }
                Some(_) => drop(rest.insert(id)),
                None => {}
            }
        }
        rest.into_iter().filter(|id| self.release(key, *id)).collect()
    }

    /// Gives up a vertex that may have lost its last user. Returns whether its job must end first.
    fn release(&mut self, key: BuildKey, id: VertexId) -> bool {
        let Some(vertex) = self.vertices.get(&id) else { return false };
        if !vertex.users.is_empty() {
            self.refresh_rank(id);
            return false;
        }
        match vertex.phase {
            Phase::Running if !vertex.followers.is_empty() => return false,
            Phase::Running | Phase::Resolving | Phase::LookingUp => {
                self.stop(key, id);
                return true;
            }
            Phase::Ready { .. } => self.hand_over(id),
            Phase::Waiting { .. }
            | Phase::Following { .. }
            | Phase::Done { .. }
            | Phase::Cancelling { .. } => {}
        }
        if !matches!(self.vertices.get(&id).map(|v| &v.phase), Some(Phase::Cancelling { .. })) {
            self.remove(id);
        }
        false
    }

    /// Removes a finished leader that was only kept for its followers.
    pub(crate) fn release_if_unwanted(&mut self, id: VertexId) {
        if self.vertices.get(&id).is_some_and(|v| v.users.is_empty()) {
            self.remove(id);
        }
    }

    fn stop(&mut self, build: BuildKey, id: VertexId) {
        self.forget_names(id);
        let Some(vertex) = self.vertices.get_mut(&id) else { return };
        let slot = match vertex.phase {
            Phase::Running => vertex.kind.slot(),
            _ => None,
        };
        vertex.phase = Phase::Cancelling { build, slot };
        self.actions.push(Action::Cancel { vertex: id });
    }

    /// Lets the first follower of a vertex that has not run yet take its place in line.
    fn hand_over(&mut self, id: VertexId) {
        let Some(vertex) = self.vertices.get_mut(&id) else { return };
        let mut followers = std::mem::take(&mut vertex.followers);
        if followers.is_empty() {
            return;
        }
        let heir = followers.remove(0);
        let group = vertex.group;
        let (Some(class), Some(key)) = (vertex.kind.slot(), vertex.key.take()) else { return };
        for follower in &followers {
            if let Some(v) = self.vertices.get_mut(follower) {
                v.phase = Phase::Following { leader: heir };
            }
        }
        self.leaders.insert((group, key), heir);
        if let Some(v) = self.vertices.get_mut(&heir) {
            v.followers = followers;
            v.key = Some(key);
        }
        self.make_ready(heir, class);
    }

    /// Ends a job that was cancelled, whatever came out of it.
    pub(crate) fn cancelled(&mut self, id: VertexId, build: BuildKey, slot: Option<SlotClass>) {
        if let Some(class) = slot {
            self.slots.free(class);
        }
        self.remove(id);
        if let Some(Build { state: BuildState::Ending { awaited, .. }, .. }) =
            self.builds.get_mut(&build)
        {
            awaited.remove(&id);
        }
        self.finish_if_settled(build);
    }

    fn finish_if_settled(&mut self, key: BuildKey) {
        let settled = |state: &BuildState<O, E>| match state {
            BuildState::Ending { awaited, .. } => awaited.is_empty(),
            BuildState::Active => false,
        };
        if !self.builds.get(&key).is_some_and(|b| settled(&b.state)) {
            return;
        }
        if let Some(Build { state: BuildState::Ending { outcome, .. }, .. }) =
            self.builds.remove(&key)
        {
            self.actions.push(Action::BuildDone { build: key, outcome });
        }
    }

    /// Removes a vertex and every trace of it.
    pub(crate) fn remove(&mut self, id: VertexId) {
        self.forget_names(id);
        let Some(vertex) = self.vertices.remove(&id) else { return };
        match vertex.phase {
            Phase::Ready { ticket } => {
                if let Some(class) = vertex.kind.slot() {
                    self.slots.leave(class, ticket);
                }
            }
            Phase::Following { leader } => {
                if let Some(leader) = self.vertices.get_mut(&leader) {
                    leader.followers.retain(|f| *f != id);
                }
            }
            _ => {}
        }
        for input in vertex.inputs {
            if let Some(input) = self.vertices.get_mut(&input) {
                input.dependants.retain(|d| *d != id);
            }
        }
    }

    /// Makes a vertex unfindable, so that nobody joins it any more.
    fn forget_names(&mut self, id: VertexId) {
        let Some(vertex) = self.vertices.get(&id) else { return };
        if self.shared.get(&vertex.share) == Some(&id) {
            self.shared.remove(&vertex.share);
        }
        if let Some(key) = vertex.key.map(|k| (vertex.group, k))
            && self.leaders.get(&key) == Some(&id)
        {
            self.leaders.remove(&key);
        }
    }
}
