//! What builds that run at once share, and what they never do.

#[expect(dead_code, reason = "each test file uses a part of it")]
#[cfg(test)]
mod support;

use ashlar_core::cache::Bypass;
use ashlar_core::graph::{Graph, NodeId, Op};
use ashlar_solver::*;
use support::*;

/// Two builds whose contexts are their own: equal digests, other vertices.
fn with_context(names: &[&str]) -> (Graph, NodeId) {
    let mut graph = Graph::new();
    let mut last = add(&mut graph, context_op(), &[]);
    for name in names {
        last = add(&mut graph, exec_op(name), &[last]);
    }
    (graph, last)
}

/// Both builds resolve their contexts to `trees` and miss; the keys follow from the trees.
fn two_contexts(d: &mut Driver, names: &[&str], trees: [&str; 2]) {
    let (graph, target) = with_context(names);
    for (key, tree) in [1, 2].into_iter().zip(trees) {
        d.add(key, &graph, target);
        let vertex = d.vertex("context");
        d.send(Event::Finished { vertex, output: tree.into() });
        let looking = d.vertex_of(key, JobKind::Lookup);
        d.miss_with_key(looking);
    }
}

impl Driver {
    fn vertex_of(&self, key: u64, kind: JobKind) -> VertexId {
        let mut jobs = self.jobs.iter();
        *jobs.find(|(_, (k, j))| *k == kind && j.build == BuildKey(key)).expect("a job").0
    }
}

#[test]
fn equal_builds_run_once_and_the_second_is_told_that_it_joined() {
    let (graph, target) = chain(&["a", "b"]);
    let mut d = Driver::new(4, 4);
    d.add(1, &graph, target);
    d.settle_lookups();
    d.add(2, &graph, target);
    assert_eq!(d.reports_of(2).last(), Some(&(1, &Report::Joined)));
    let users = d.solver.users(d.vertex("a"));
    assert_eq!(users, [(BuildKey(1), NodeId(1)), (BuildKey(2), NodeId(1))]);
    d.finish("a");
    d.settle_lookups();
    d.finish("b");
    assert_eq!(d.runs_started, ["a", "b"]);
    assert!(d.succeeded(1) && d.succeeded(2));
    assert_eq!((d.how(1, target), d.how(2, target)), (Some(How::Ran), Some(How::Joined)));
}

#[test]
fn a_hit_is_a_hit_for_all_that_share_it() {
    let (graph, target) = chain(&["a"]);
    let mut d = Driver::new(4, 4);
    d.add(1, &graph, target);
    d.add(2, &graph, target);
    d.finish("scratch");
    d.hit("a", "tree");
    assert_eq!((d.how(1, target), d.how(2, target)), (Some(How::Hit), Some(How::Hit)));
}

#[test]
fn a_build_that_comes_when_all_is_done_ends_at_once() {
    let (long, long_target) = chain(&["a", "b"]);
    let (short, short_target) = chain(&["a"]);
    let mut d = Driver::new(4, 4);
    d.add(1, &long, long_target);
    d.settle_lookups();
    d.finish("a");
    d.add(2, &short, short_target);
    assert!(d.succeeded(2));
    assert_eq!(d.how(2, short_target), Some(How::Joined));
}

#[test]
fn cancelling_one_sharer_leaves_the_other_undisturbed() {
    let (graph, target) = chain(&["a"]);
    let mut d = Driver::new(4, 4);
    d.add(1, &graph, target);
    d.settle_lookups();
    d.add(2, &graph, target);
    d.cancel(1);
    assert_eq!(d.outcome(1), Some(&Outcome::Cancelled), "nothing has to be waited for");
    assert!(d.cancelling.is_empty());
    d.finish("a");
    assert!(d.succeeded(2));
    assert_eq!(d.how(2, target), Some(How::Joined), "it ran for the build that has left");
}

#[test]
fn the_last_sharer_to_leave_waits_for_the_end() {
    let (graph, target) = chain(&["a"]);
    let mut d = Driver::new(4, 4);
    d.add(1, &graph, target);
    d.settle_lookups();
    d.add(2, &graph, target);
    d.cancel(1);
    d.cancel(2);
    assert_eq!((d.outcome(2), d.cancelling.len()), (None, 1));
    d.add(3, &graph, target);
    assert!(d.reports_of(3).iter().all(|(_, r)| **r != Report::Joined), "not what is dying");
    d.end_cancelled();
    assert_eq!(d.outcome(2), Some(&Outcome::Cancelled));
    d.settle_lookups();
    d.finish("a");
    assert!(d.succeeded(3) && d.solver.is_idle());
}

#[test]
fn a_failure_ends_all_sharers_but_spares_what_others_want() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let bad = add(&mut graph, exec_op("bad"), &[root]);
    let good = add(&mut graph, exec_op("good"), &[root]);
    let end = add(&mut graph, Op::Merge, &[bad, good]);
    let mut d = Driver::new(4, 4);
    d.add(1, &graph, end);
    d.add(2, &graph, bad);
    d.add(3, &graph, good);
    d.settle_lookups();
    d.fail("bad");
    assert!(matches!(d.outcome(1), Some(Outcome::Failed { .. })));
    assert!(matches!(d.outcome(2), Some(Outcome::Failed { .. })));
    assert_eq!(d.under_way(JobKind::Run), ["good"]);
    d.finish("good");
    assert!(d.succeeded(3));
}

#[test]
fn groups_share_nothing() {
    let (graph, target) = chain(&["a"]);
    let mut d = Driver::new(4, 4);
    d.add_in(1, &graph, target, 1, 0);
    d.settle_lookups();
    d.add_in(2, &graph, target, 2, 0);
    d.settle_lookups();
    assert_eq!(d.runs_started, ["a", "a"]);
}

#[test]
fn bypassed_nodes_are_not_shared_between_builds() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let a = add_with(&mut graph, exec_op("a"), &[root], Some(Bypass::WholeBuild));
    let mut d = Driver::new(4, 4);
    d.add(1, &graph, a);
    d.add(2, &graph, a);
    d.settle_lookups();
    assert_eq!(d.runs_started, ["a", "a"]);
}

#[test]
fn effects_run_once_for_every_node() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let one = add(&mut graph, effect_op("deploy"), &[root]);
    let two = add(&mut graph, effect_op("deploy"), &[root]);
    let end = add(&mut graph, Op::Merge, &[one, two]);
    let mut d = Driver::new(9, 9);
    d.add(1, &graph, end);
    d.add(2, &graph, end);
    d.settle_lookups();
    assert_eq!(d.runs_started, ["deploy"; 4]);
}

#[test]
fn equal_digests_over_different_contexts_are_not_joined() {
    let mut d = Driver::new(4, 4);
    two_contexts(&mut d, &["a"], ["tree 1", "tree 2"]);
    assert_eq!(d.runs_started, ["a", "a"]);
}

#[test]
fn equal_keys_run_once_though_the_vertices_differ() {
    let mut d = Driver::new(4, 4);
    two_contexts(&mut d, &["a"], ["tree", "tree"]);
    assert_eq!(d.runs_started, ["a"]);
    assert_eq!(d.reports_of(2).last(), Some(&(1, &Report::Joined)));
    assert_eq!(d.solver.users(d.vertex("a")).len(), 2);
    d.finish("a");
    assert!(d.succeeded(1) && d.succeeded(2) && d.solver.is_idle());
    assert_eq!(d.how(2, NodeId(1)), Some(How::Joined));
}

#[test]
fn a_key_whose_leader_is_done_is_not_run_again() {
    let mut d = Driver::new(4, 4);
    let (graph, target) = with_context(&["a", "b"]);
    d.add(1, &graph, target);
    d.send(Event::Finished { vertex: d.vertex("context"), output: "tree".into() });
    d.miss_with_key(d.vertex("a"));
    d.add(2, &graph, target);
    d.send(Event::Finished { vertex: d.vertex("context"), output: "tree".into() });
    let slow_lookup = d.vertex_of(2, JobKind::Lookup);
    let running = d.vertex_of(1, JobKind::Run);
    d.send(Event::Finished { vertex: running, output: "after a".into() });
    d.miss_with_key(slow_lookup);
    assert_eq!(d.how(2, NodeId(1)), Some(How::Joined));
    assert_eq!(d.runs_started, ["a"]);
}

#[test]
fn a_leader_outlives_its_build_while_it_is_followed() {
    let mut d = Driver::new(4, 4);
    two_contexts(&mut d, &["a"], ["tree", "tree"]);
    d.cancel(1);
    assert_eq!(d.outcome(1), Some(&Outcome::Cancelled));
    assert!(d.cancelling.is_empty());
    d.finish("a");
    assert!(d.succeeded(2) && d.solver.is_idle());
}

#[test]
fn a_leader_dies_with_its_last_follower() {
    let mut d = Driver::new(4, 4);
    two_contexts(&mut d, &["a"], ["tree", "tree"]);
    d.cancel(1);
    d.cancel(2);
    assert_eq!((d.outcome(2), d.cancelling.len()), (None, 1));
    d.end_cancelled();
    assert_eq!(d.outcome(2), Some(&Outcome::Cancelled));
    assert!(d.solver.is_idle());
}

#[test]
fn a_follower_takes_the_place_of_a_leader_that_never_ran() {
    let (busy, busy_target) = chain(&["busy"]);
    let mut d = Driver::new(1, 1);
    d.add(9, &busy, busy_target);
    d.settle_lookups();
    two_contexts(&mut d, &["a"], ["tree", "tree"]);
    d.cancel(1);
    d.finish("busy");
    assert_eq!(d.jobs[&d.vertex("a")].1.build, BuildKey(2));
    d.finish("a");
    assert!(d.succeeded(2) && d.solver.is_idle());
    assert_eq!(d.how(2, NodeId(1)), Some(How::Ran));
}

#[test]
fn followers_fail_with_their_leader() {
    let mut d = Driver::new(4, 4);
    two_contexts(&mut d, &["a"], ["tree", "tree"]);
    d.fail("a");
    let outcome = Outcome::Failed { node: NodeId(1), error: "a failed".into() };
    assert_eq!((d.outcome(1), d.outcome(2)), (Some(&outcome), Some(&outcome)));
    assert!(d.solver.is_idle());
}

#[test]
fn moving_sources_belong_to_one_build_and_fixed_ones_to_all() {
    let git = |checksum: Option<&str>| Op::Git {
        remote: "https://host/r.git".into(),
        reference: "main".into(),
        checksum: checksum.map(str::to_owned),
        subdir: String::new(),
        keep_git_dir: false,
        submodules: true,
    };
    for (op, jobs) in [(git(None), 2), (git(Some("0123")), 1)] {
        let mut graph = Graph::new();
        let target = add(&mut graph, op, &[]);
        let mut d = Driver::new(4, 4);
        d.add(1, &graph, target);
        d.add(2, &graph, target);
        assert_eq!(d.jobs.len(), jobs);
    }
}
