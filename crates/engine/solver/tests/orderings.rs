//! Orderings of one or two builds, played by a scripted executor.

#[expect(dead_code, reason = "each test file uses a part of it")]
#[cfg(test)]
mod support;

use ashlar_core::cache::Bypass;
use ashlar_core::graph::{Graph, NodeId, Op};
use ashlar_solver::*;
use support::*;

#[test]
fn a_chain_is_looked_up_before_anything_runs() {
    let (graph, target) = chain(&["a", "b", "c"]);
    let mut d = Driver::new(4, 4);
    d.add(1, &graph, target);
    d.finish("scratch");
    d.hit("a", "tree-a");
    d.hit("b", "tree-b");
    d.miss("c");
    assert_eq!(d.runs_started, ["c"]);
    assert_eq!(d.jobs[&d.vertex("c")].1.inputs, ["tree-b"]);
    d.finish("c");
    assert!(d.succeeded(1) && d.solver.is_idle());
    assert_eq!(d.how(1, NodeId(2)), Some(How::Hit));
    assert_eq!(d.how(1, target), Some(How::Ran));
}

#[test]
fn the_arms_of_a_diamond_run_at_once_and_the_end_waits_for_both() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let left = add(&mut graph, exec_op("left"), &[root]);
    let right = add(&mut graph, exec_op("right"), &[root]);
    let end = add(&mut graph, exec_op("end"), &[left, right]);
    let mut d = Driver::new(4, 4);
    d.add(1, &graph, end);
    d.settle_lookups();
    assert_eq!(d.under_way(JobKind::Run), ["left", "right"]);
    assert_eq!(d.solver.progress(BuildKey(1)), Some(Progress { total: 4, done: 1, in_flight: 2 }));
    d.finish("right");
    assert!(d.under_way(JobKind::Lookup).is_empty());
    d.finish("left");
    d.settle_lookups();
    d.finish("end");
    assert!(d.succeeded(1));
}

#[test]
fn nodes_that_the_target_does_not_need_are_left_alone() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let wanted = add(&mut graph, exec_op("wanted"), &[root]);
    add(&mut graph, exec_op("other"), &[wanted]);
    let mut d = Driver::new(4, 4);
    d.add(1, &graph, wanted);
    d.settle_lookups();
    d.finish("wanted");
    assert_eq!(d.runs_started, ["wanted"]);
    assert!(d.succeeded(1));
}

#[test]
fn twenty_sleeping_stages_run_at_once_on_two_cores() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let stages: Vec<_> =
        (0..20).map(|i| add(&mut graph, exec_op(&format!("sleep {i}")), &[root])).collect();
    let end = add(&mut graph, Op::Merge, &stages);
    let limits = SolverLimits::for_cores(2);
    let mut d = Driver::new(limits.exec_slots, limits.io_slots);
    d.add(1, &graph, end);
    d.settle_lookups();
    assert_eq!(d.under_way(JobKind::Run).len(), 20);
}

#[test]
fn classes_have_slots_of_their_own() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let work: Vec<_> = (0..3)
        .flat_map(|i| [exec_op(&format!("e{i}")), file_op(&format!("f{i}"))])
        .map(|op| add(&mut graph, op, &[root]))
        .collect();
    let end = add(&mut graph, Op::Merge, &work);
    let mut d = Driver::new(2, 1);
    d.add(1, &graph, end);
    d.settle_lookups();
    assert_eq!(d.under_way(JobKind::Run), ["e0", "f0", "e1"]);
    d.finish("f0");
    assert_eq!(d.under_way(JobKind::Run), ["e0", "e1", "f1"]);
}

#[test]
fn the_critical_path_gets_the_only_slot() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let short = add(&mut graph, exec_op("short"), &[root]);
    let long = add(&mut graph, exec_op("long 1"), &[root]);
    let longer = add(&mut graph, exec_op("long 2"), &[long]);
    let end = add(&mut graph, Op::Merge, &[short, longer]);
    let mut d = Driver::new(1, 1);
    d.add(1, &graph, end);
    d.finish("scratch");
    // Both get in line before a slot is given.
    let (a, b) = (d.vertex("short"), d.vertex("long 1"));
    for vertex in [a, b] {
        d.jobs.remove(&vertex);
        d.solver.event(Event::Miss { vertex, key: None }).unwrap();
    }
    d.poll();
    assert_eq!(d.runs_started, ["long 1"]);
}

#[test]
fn remembered_durations_outweigh_the_number_of_steps() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let slow = add(&mut graph, exec_op("slow"), &[root]);
    let quick = add(&mut graph, exec_op("quick 1"), &[root]);
    let quick2 = add(&mut graph, exec_op("quick 2"), &[quick]);
    let end = add(&mut graph, Op::Merge, &[slow, quick2]);
    let mut solver: Solver<u8, ()> = Solver::new(SolverLimits { exec_slots: 1, io_slots: 1 });
    let expected = |node: &ashlar_core::graph::Node| {
        let seconds = if name(&node.op) == "slow" { 60 } else { 1 };
        Some(std::time::Duration::from_secs(seconds))
    };
    let request =
        BuildRequest { expected: &expected, ..BuildRequest::new(BuildKey(1), &graph, end) };
    solver.add_build(request).unwrap();
    let mut ran = Vec::new();
    loop {
        let jobs: Vec<_> = solver.poll_actions();
        if jobs.is_empty() {
            break;
        }
        for action in jobs {
            match action {
                Action::Resolve(j) => {
                    solver.event(Event::Finished { vertex: j.vertex, output: 0 }).unwrap();
                }
                Action::Lookup(j) => {
                    solver.event(Event::Miss { vertex: j.vertex, key: None }).unwrap();
                }
                Action::Run(j) => ran.push(name(&graph.node(j.node).op)),
                _ => {}
            }
        }
    }
    assert_eq!(ran, ["slow"]);
}

#[test]
fn a_build_of_greater_priority_goes_first() {
    let (low, low_target) = chain(&["low"]);
    let (high, high_target) = chain(&["high"]);
    let (busy, busy_target) = chain(&["busy"]);
    let mut d = Driver::new(1, 1);
    d.add(1, &busy, busy_target);
    d.settle_lookups();
    d.add_in(2, &low, low_target, 0, 0);
    d.add_in(3, &high, high_target, 0, 1);
    d.settle_lookups();
    d.finish("busy");
    assert_eq!(d.runs_started, ["busy", "high"]);
}

#[test]
fn an_urgent_build_lifts_the_vertex_that_it_joins() {
    let (busy, busy_target) = chain(&["busy"]);
    let (first, first_target) = chain(&["first"]);
    let (shared, shared_target) = chain(&["shared"]);
    let mut d = Driver::new(1, 1);
    for (key, graph, target) in
        [(1, &busy, busy_target), (2, &first, first_target), (3, &shared, shared_target)]
    {
        d.add(key, graph, target);
        d.settle_lookups();
    }
    d.add_in(4, &shared, shared_target, 0, 9);
    d.finish("busy");
    assert_eq!(d.runs_started, ["busy", "shared"]);
}

#[test]
fn the_same_node_on_one_input_twice_is_waited_for_once() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let a = add(&mut graph, exec_op("a"), &[root]);
    let twin = add(&mut graph, exec_op("a"), &[root]);
    let end = add(&mut graph, Op::Merge, &[a, a, twin]);
    let mut d = Driver::new(4, 4);
    d.add(1, &graph, end);
    d.settle_lookups();
    d.finish("a");
    assert_eq!(d.runs_started, ["a"]);
    assert_eq!((d.how(1, a), d.how(1, twin)), (Some(How::Ran), Some(How::Joined)));
    d.settle_lookups();
    let vertex = *d.jobs.keys().next().unwrap();
    d.send(Event::Finished { vertex, output: "end".into() });
    assert!(d.succeeded(1));
}

#[test]
fn bypass_runs_without_a_look_up() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let a = add_with(&mut graph, exec_op("a"), &[root], Some(Bypass::WholeBuild));
    let mut d = Driver::new(4, 4);
    d.add(1, &graph, a);
    d.finish("scratch");
    assert_eq!(d.under_way(JobKind::Run), ["a"]);
}

#[test]
fn a_failure_stops_the_build_and_names_the_node() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let bad = add(&mut graph, exec_op("bad"), &[root]);
    let sibling = add(&mut graph, exec_op("sibling"), &[root]);
    let queued = add(&mut graph, exec_op("queued"), &[root]);
    let end = add(&mut graph, Op::Merge, &[bad, sibling, queued]);
    let mut d = Driver::new(2, 2);
    d.add(1, &graph, end);
    d.settle_lookups();
    d.fail("bad");
    assert_eq!(d.cancelling.len(), 1, "the running sibling is cancelled");
    assert_eq!(d.outcome(1), None, "and waited for");
    d.end_cancelled();
    let outcome = Outcome::Failed { node: bad, error: "bad failed".into() };
    assert_eq!(d.outcome(1), Some(&outcome));
    assert_eq!(d.runs_started, ["bad", "sibling"]);
    assert!(d.solver.is_idle());
}

#[test]
fn a_sibling_that_fails_while_it_is_cancelled_changes_nothing() {
    let mut graph = Graph::new();
    let root = add(&mut graph, Op::Scratch, &[]);
    let bad = add(&mut graph, exec_op("bad"), &[root]);
    let sibling = add(&mut graph, exec_op("sibling"), &[root]);
    let end = add(&mut graph, Op::Merge, &[bad, sibling]);
    let mut d = Driver::new(2, 2);
    d.add(1, &graph, end);
    d.settle_lookups();
    let late = d.vertex("sibling");
    d.fail("bad");
    d.send(Event::Failed { vertex: late, error: "killed".into() });
    let outcome = Outcome::Failed { node: bad, error: "bad failed".into() };
    assert_eq!(d.outcome(1), Some(&outcome));
}

#[test]
fn failures_of_sources_and_look_ups_end_the_build() {
    let (graph, target) = chain(&["a"]);
    let mut d = Driver::new(1, 1);
    d.add(1, &graph, target);
    d.fail("scratch");
    assert!(matches!(d.outcome(1), Some(Outcome::Failed { node: NodeId(0), .. })));
    d.add(2, &graph, target);
    d.finish("scratch");
    d.fail("a");
    assert!(matches!(d.outcome(2), Some(Outcome::Failed { node: NodeId(1), .. })));
}

#[test]
fn cancel_stops_every_kind_of_job() {
    for settled in [0, 1, 2] {
        let (graph, target) = chain(&["a"]);
        let mut d = Driver::new(1, 1);
        d.add(1, &graph, target);
        match settled {
            0 => {}
            1 => d.finish("scratch"),
            _ => d.settle_lookups(),
        }
        d.cancel(1);
        d.cancel(1);
        assert_eq!((d.outcome(1), d.cancelling.len()), (None, 1), "settled {settled}");
        d.end_cancelled();
        assert_eq!(d.outcome(1), Some(&Outcome::Cancelled));
        assert!(d.solver.is_idle());
    }
}

#[test]
fn a_slot_is_kept_until_the_cancelled_job_has_ended() {
    let (graph, target) = chain(&["a"]);
    let (other, other_target) = chain(&["b"]);
    let mut d = Driver::new(1, 1);
    d.add(1, &graph, target);
    d.settle_lookups();
    d.add(2, &other, other_target);
    d.settle_lookups();
    d.cancel(1);
    assert_eq!(d.runs_started, ["a"]);
    d.end_cancelled();
    assert_eq!(d.runs_started, ["a", "b"]);
}

#[test]
fn events_that_do_not_fit_are_refused_and_change_nothing() {
    let (graph, target) = chain(&["a"]);
    let mut d = Driver::new(1, 1);
    d.add(1, &graph, target);
    let vertex = d.vertex("scratch");
    let error = d.solver.event(Event::Miss { vertex, key: None }).unwrap_err();
    assert_eq!(error.to_string(), "event 'miss' does not fit VertexId(0), which is resolving");
    let error = d.solver.event(Event::Cancelled { vertex }).unwrap_err();
    assert_eq!(error.to_string(), "event 'cancelled' does not fit VertexId(0), which is resolving");
    let vertex = VertexId(99);
    let error = d.solver.event(Event::Cancelled { vertex }).unwrap_err();
    assert_eq!(error, EventError::Unknown { vertex, event: "cancelled" });
    d.settle_lookups();
    d.finish("a");
    assert!(d.succeeded(1));
}

#[test]
fn bad_requests_are_refused() {
    let (graph, target) = chain(&["a"]);
    let mut d = Driver::new(1, 1);
    d.add(1, &graph, target);
    let again = d.solver.add_build(BuildRequest::new(BuildKey(1), &graph, target));
    assert_eq!(again, Err(AddError::Duplicate(BuildKey(1))));
    let far = d.solver.add_build(BuildRequest::new(BuildKey(2), &graph, NodeId(7)));
    assert_eq!(far, Err(AddError::NoTarget { target: NodeId(7), nodes: 2 }));
}
