//! What follows when a job ends.

use ashlar_core::Digest;

use crate::messages::{How, Outcome, Report};
use crate::vertex::{Kind, Phase, User};
use crate::{BuildKey, Solver, VertexId};

impl<O: Clone, E: Clone> Solver<O, E> {
    /// Goes on after a look-up without a result: joins whoever has the same key, or gets in line.
    pub(crate) fn missed(&mut self, id: VertexId, key: Option<Digest>) {
        let Some(vertex) = self.vertices.get_mut(&id) else { return };
        let Kind::Cached(class) = vertex.kind else { return };
        if let Some(key) = key {
            if let Some(leader) = self.leaders.get(&(vertex.group, key)).copied() {
                return self.follow(id, leader);
            }
            vertex.key = Some(key);
            self.leaders.insert((vertex.group, key), id);
        }
        self.make_ready(id, class);
    }

    fn follow(&mut self, id: VertexId, leader: VertexId) {
        let Some(lead) = self.vertices.get_mut(&leader) else { return };
        if let Phase::Done { output, .. } = &lead.phase {
            let output = output.clone();
            return self.complete(id, output, How::Joined);
        }
        lead.followers.push(id);
        let Some(vertex) = self.vertices.get_mut(&id) else { return };
        vertex.phase = Phase::Following { leader };
        for user in vertex.users.clone() {
            self.report(user, id, Report::Joined);
        }
        self.refresh_rank(leader);
    }

    /// Gives a vertex its output, and those that follow it; then starts what waited for them.
    pub(crate) fn complete(&mut self, id: VertexId, output: O, how: How) {
        let mut done = vec![id];
        if let Some(vertex) = self.vertices.get_mut(&id) {
            done.append(&mut vertex.followers);
        }
        let mut builds: Vec<BuildKey> = Vec::new();
        let mut freed: Vec<VertexId> = Vec::new();
        for (i, id) in done.iter().enumerate() {
            let how = if i == 0 { how } else { How::Joined };
            builds.extend(self.settle(*id, &output, how).iter().map(|u| u.build));
            if let Some(vertex) = self.vertices.get_mut(id) {
                freed.append(&mut vertex.dependants);
            }
        }
        freed.into_iter().for_each(|dependant| self.input_done(dependant));
        builds.sort_unstable();
        builds.dedup();
        builds.into_iter().for_each(|build| self.succeed_if_done(build));
        // A leader whose own builds had left was kept for its followers only.
        self.release_if_unwanted(id);
    }

    fn settle(&mut self, id: VertexId, output: &O, how: How) -> Vec<User> {
        let Some(vertex) = self.vertices.get_mut(&id) else { return Vec::new() };
        vertex.phase = Phase::Done { output: output.clone(), how };
        let (users, ran_for) = (vertex.users.clone(), vertex.ran_for);
        for user in &users {
            let own = ran_for == Some((user.build, user.node));
            let how = if how == How::Ran && !own { How::Joined } else { how };
            self.report(*user, id, Report::Done { output: output.clone(), how });
        }
        users
    }

    fn input_done(&mut self, id: VertexId) {
        let Some(vertex) = self.vertices.get_mut(&id) else { return };
        if let Phase::Waiting { missing } = &mut vertex.phase {
            *missing -= 1;
            if *missing == 0 {
                self.start(id);
            }
        }
    }

    /// Ends every build that wants a vertex which failed.
    pub(crate) fn failed(&mut self, id: VertexId, error: &E) {
        let followers = self.vertices.get(&id).map(|v| v.followers.clone()).unwrap_or_default();
        let mut users = Vec::new();
        for id in std::iter::once(id).chain(followers) {
            let own = self.vertices.get(&id).into_iter().flat_map(|v| &v.users);
            users.extend(own.map(|u| (id, *u)));
        }
        for (id, user) in &users {
            self.report(*user, *id, Report::Failed { error: error.clone() });
        }
        // Out of the way first: its job has ended, so no build has to wait for it.
        self.remove(id);
        for (_, user) in users {
            let outcome = Outcome::Failed { node: user.node, error: error.clone() };
            self.end(user.build, outcome);
        }
    }
}
