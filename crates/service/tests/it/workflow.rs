//! Runs of builds: order, conditions, attempts, stops, restarts, several servers.

use std::sync::Arc;

use ashlar_core::journal::{BuildKind, Event, OnLost};
use ashlar_core::state::State;
use ashlar_core::{BuildId, WorkerId};
use ashlar_records::{Claim, Stamped, Store, Submit, Writer};
use ashlar_service::{
    Begun, BoxFuture, Error, ErrorKind, Node, NodeBuild, NodeDriver, NodeState, NodeStatus,
    NodeWork, Policy, Recipe, Run, Service, SubmitRequest, When, Workflow, new_build_id, now,
};
use serde_json::{Value, json};

use crate::world::{World, children, eventually, role};

crate::on_both! {
    nodes_run_in_their_order_and_conditions_decide;
    nodes_are_tried_again;
    a_node_builds_on_what_another_one_made;
    a_stopped_run_stops_its_builds;
    a_restart_goes_on_at_the_node_where_it_was;
    a_crash_between_note_and_build_doubles_nothing;
    a_build_that_is_gone_is_not_built_again;
    a_stopped_run_without_a_driver_stops_its_builds;
    a_run_that_ends_with_its_driver_stops_its_builds;
    a_run_that_waits_to_go_on_and_is_replaced_stops_its_builds;
    runs_of_a_scope_wait_for_each_other;
    servers_share_runs_and_drive_each_once;
    dialects_have_nodes_of_their_own;
    wrong_runs_are_refused_with_the_place;
}

fn build(what: &str) -> NodeWork {
    NodeWork::Build(Box::new(NodeBuild {
        definition: role(what),
        on: None,
        scope: None,
        name: None,
        backend: None,
        labels: Default::default(),
        secrets: Vec::new(),
    }))
}

fn node(id: &str, needs: &[&str], work: NodeWork) -> Node {
    let needs = needs.iter().map(|n| (*n).to_owned()).collect();
    let (id, when) = (id.to_owned(), When::Success);
    Node { id, needs, when, attempts: 1, optional: false, wait: true, work }
}

fn run_of(nodes: Vec<Node>) -> SubmitRequest {
    request(Workflow { nodes, ..Workflow::default() })
}

fn request(workflow: Workflow) -> SubmitRequest {
    let definition = ashlar_service::Definition::new(Recipe::Workflow(workflow));
    let mut request = SubmitRequest::new("native", "pipeline", "nightly", definition);
    request.kind = BuildKind::Workflow;
    request
}

async fn submit(service: &Arc<Service>, request: SubmitRequest) -> BuildId {
    service.submit(service.admin(), request).await.unwrap().record.submission.build
}

async fn states(service: &Service, run: BuildId) -> Vec<(String, NodeState)> {
    let (_, progress) = service.run_progress(service.admin(), run).await.unwrap();
    progress.nodes().map(|(id, status)| (id.to_owned(), status.state)).collect()
}

fn named(states: &[(&str, NodeState)]) -> Vec<(String, NodeState)> {
    states.iter().map(|(id, state)| ((*id).to_owned(), *state)).collect()
}

async fn nodes_run_in_their_order_and_conditions_decide(world: World) {
    let service = world.open().await;
    service.start();
    let mut rescue = node("rescue", &["b"], build("ok"));
    rescue.when = When::Failure;
    let mut last = node("last", &["rescue", "c"], build("ok"));
    last.when = When::Always;
    let nodes = vec![
        node("a", &[], build("ok")),
        node("b", &["a"], build("fail")),
        node("c", &["b"], build("ok")),
        rescue,
        last,
    ];
    let run = submit(&service, run_of(nodes)).await;
    let row = world.ended(&service, run).await;
    assert_eq!(row.state, State::Failed);
    let message = row.failure.unwrap().message;
    assert!(message.contains("node b") && message.contains("b shall fail"), "{message}");
    assert_eq!(world.stage.ran(), ["a", "b", "rescue", "last"]);
    use NodeState::{Failed, Skipped, Succeeded};
    let want = [
        ("a", Succeeded),
        ("b", Failed),
        ("c", Skipped),
        ("last", Succeeded),
        ("rescue", Succeeded),
    ];
    assert_eq!(states(&service, run).await, named(&want));
    let made = children(&service, service.admin(), run).await;
    assert!(made.iter().all(|c| c.submission.parent == Some(run)));
    assert_eq!(made[0].submission.scope, "pipeline/a");
    assert_eq!((row.steps.total, row.steps.ended), (5, 5));
    let stored = Store::open(&world.database()).await.unwrap().rebuild(run).await.unwrap();
    assert_eq!(stored.0, stored.1);
    service.drain().await;
}

async fn nodes_are_tried_again(world: World) {
    let service = world.open().await;
    service.start();
    let mut flaky = node("flaky", &[], build("fail-once"));
    flaky.attempts = 3;
    let mut hopeless = node("hopeless", &[], build("fail"));
    (hopeless.attempts, hopeless.optional) = (2, true);
    let workflow =
        Workflow { nodes: vec![flaky, hopeless], parallelism: Some(1), ..Workflow::default() };
    let run = submit(&service, request(workflow)).await;
    assert_eq!(world.ended(&service, run).await.state, State::Succeeded);
    let made = children(&service, service.admin(), run).await;
    let of = |name: &str| made.iter().filter(|c| c.name == name).collect::<Vec<_>>();
    assert_eq!((of("flaky").len(), of("hopeless").len()), (2, 2));
    assert_eq!(of("flaky")[1].submission.retry_of, Some(of("flaky")[0].submission.build));
    let (_, progress) = service.run_progress(service.admin(), run).await.unwrap();
    assert_eq!((progress.of("flaky").attempt, progress.of("hopeless").attempt), (2, 2));
    service.drain().await;
}

async fn a_node_builds_on_what_another_one_made(world: World) {
    let service = world.open().await;
    service.start();
    let steps = ashlar_service::frontends::declarative::Definition::new(
        ashlar_service::frontends::declarative::Base::Image("scratch".into()),
        Vec::new(),
    );
    let base = BuildId::from_parts(0, [0; 10]);
    let NodeWork::Build(mut on) = build("ok") else { unreachable!() };
    on.definition.recipe = Recipe::OnBuild { base, owner: None, steps };
    on.definition.tags = vec!["app:${args.version}".into()];
    on.on = Some("base".into());
    let nodes = vec![node("base", &[], build("ok")), node("top", &["base"], NodeWork::Build(on))];
    let arguments = [("version".to_owned(), "7".to_owned())].into();
    let run = submit(&service, request(Workflow { nodes, arguments, ..Workflow::default() })).await;
    assert_eq!(world.ended(&service, run).await.state, State::Succeeded);
    let made = children(&service, service.admin(), run).await;
    let top = service.show(service.admin(), made[1].submission.build).await.unwrap();
    let definition = ashlar_service::Definition::of(&top).unwrap();
    let Recipe::OnBuild { base, .. } = definition.recipe else { panic!("{definition:?}") };
    assert_eq!(base, made[0].submission.build);
    let tagged = service.resolve_tag(service.admin(), "app:7").await.unwrap();
    assert_eq!(tagged, made[1].submission.build);
    service.drain().await;
}

async fn a_stopped_run_stops_its_builds(world: World) {
    let service = world.open().await;
    service.start();
    let nodes = vec![
        node("one", &[], build("hold")),
        node("two", &[], build("hold")),
        node("after", &["one"], build("ok")),
    ];
    let run = submit(&service, run_of(nodes)).await;
    eventually("both run", || world.stage.ran().len() == 2).await;
    service.cancel(service.admin(), run, Some("enough")).await.unwrap();
    assert_eq!(world.ended(&service, run).await.state, State::Cancelled);
    let made = children(&service, service.admin(), run).await;
    assert!(made.len() == 2 && made.iter().all(|c| c.state == State::Cancelled), "{made:#?}");
    let cancelled = NodeState::Cancelled;
    let want = [("after", cancelled), ("one", cancelled), ("two", cancelled)];
    assert_eq!(states(&service, run).await, named(&want));
    service.drain().await;
}

async fn a_restart_goes_on_at_the_node_where_it_was(world: World) {
    let first = world.open().await;
    first.start();
    let nodes = vec![
        node("a", &[], build("ok")),
        node("b", &["a"], build("hold")),
        node("c", &["b"], build("ok")),
    ];
    let run = submit(&first, run_of(nodes)).await;
    eventually("b runs", || world.stage.ran().contains(&"b".to_owned())).await;
    first.drain().await;
    let row = first.row(first.admin(), run).await.unwrap();
    assert_eq!(row.state, State::Queued, "{row:#?}");
    first.close().await;
    drop(first);
    world.stage.release("b");
    let second = reopened(&world).await;
    second.start();
    let row = world.ended(&second, run).await;
    assert_eq!((row.state, row.attempt), (State::Succeeded, 2));
    // The build of `b` was given back by its worker and ran again; nothing else did.
    assert_eq!(world.stage.ran(), ["a", "b", "b", "c"]);
    assert_eq!(children(&second, second.admin(), run).await.len(), 3);
    assert_eq!((row.steps.total, row.steps.ended), (3, 3));
    second.drain().await;
}

/// Opens the service again once the tasks of the earlier one are gone.
pub(crate) async fn reopened(world: &World) -> Arc<Service> {
    for _ in 0..1000 {
        let lock = std::fs::File::open(world.data_dir().join("serve.lock")).unwrap();
        if lock.try_lock().is_ok() {
            drop(lock);
            return world.open().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the earlier service is still there");
}

/// Claims a run as a driver does, notes that the build of its node `a` is about to be submitted, or
/// was accepted, and dies.
async fn noted_by_a_dead_driver(world: &World, run: BuildId, child: BuildId, accepted: bool) {
    let store = Store::open(&world.database()).await.unwrap();
    let worker = WorkerId::from_parts(9, [9; 10]);
    let kind = BuildKind::Workflow;
    let claim = Claim { worker, kind, backends: Vec::new(), slots: 0 };
    let held = store.claim(&claim, now()).await.unwrap().unwrap();
    let (state, build) = (NodeState::Started, Some(child));
    let status = NodeStatus { state, attempt: 1, build, accepted, ..NodeStatus::default() };
    let mut value = serde_json::to_value(status).unwrap();
    value["node"] = "a".into();
    let events = [
        Stamped::new(now(), Event::State { to: State::Running }),
        Stamped::new(now(), Event::Note { dialect: "workflow".into(), value }),
    ];
    let writer = Writer::Worker { fence: held.fence, batch: None };
    store.append(run, writer, events).await.unwrap();
    store.lose_worker(worker).await.unwrap();
}

async fn a_build_that_is_gone_is_not_built_again(world: World) {
    let service = world.open().await;
    let run = submit(&service, run_of(vec![node("a", &[], build("ok"))])).await;
    noted_by_a_dead_driver(&world, run, new_build_id(now()).unwrap(), true).await;
    service.start();
    let row = world.ended(&service, run).await;
    assert_eq!(row.state, State::Failed);
    let message = row.failure.unwrap().message;
    assert!(message.contains("node a") && message.contains("deleted"), "{message}");
    assert!(world.stage.ran().is_empty());
    service.drain().await;
}

async fn a_crash_between_note_and_build_doubles_nothing(world: World) {
    let service = world.open().await;
    let run = submit(&service, run_of(vec![node("a", &[], build("ok"))])).await;
    // A driver claims the run, notes the build that it is about to submit, and dies.
    let child = new_build_id(now()).unwrap();
    noted_by_a_dead_driver(&world, run, child, false).await;
    service.start();
    assert_eq!(world.ended(&service, run).await.state, State::Succeeded);
    let made = children(&service, service.admin(), run).await;
    let ids: Vec<BuildId> = made.iter().map(|c| c.submission.build).collect();
    assert_eq!(ids, [child]);
    assert_eq!(world.stage.ran(), ["a"]);
    service.drain().await;
}

/// Submits the build of the only node of a run as its driver does.
async fn submit_child(service: &Arc<Service>, run: BuildId) -> BuildId {
    let mut request = SubmitRequest::new("native", "pipeline/a", "a", role("hold"));
    request.parent = Some(run);
    submit(service, request).await
}

async fn a_stopped_run_without_a_driver_stops_its_builds(world: World) {
    let service = world.open().await;
    let run = submit(&service, run_of(vec![node("a", &[], build("hold"))])).await;
    let child = submit_child(&service, run).await;
    noted_by_a_dead_driver(&world, run, child, true).await;
    let row = service.cancel(service.admin(), run, None).await.unwrap();
    assert_eq!(row.state, State::Running);
    service.start();
    let row = world.ended(&service, run).await;
    assert_eq!(row.state, State::Cancelled);
    let made = world.ended(&service, child).await;
    assert_eq!(made.state, State::Cancelled);
    assert!(made.finished_at.unwrap() < row.finished_at.unwrap(), "the run was over first");
    assert_eq!(states(&service, run).await, named(&[("a", NodeState::Cancelled)]));
    service.drain().await;
}

async fn a_run_that_ends_with_its_driver_stops_its_builds(world: World) {
    let service = world.open().await;
    let first = submit(&service, run_of(vec![node("a", &[], build("hold"))])).await;
    let mut submission = service.row(service.admin(), first).await.unwrap().submission;
    service.cancel(service.admin(), first, None).await.unwrap();
    let store = Store::open(&world.database()).await.unwrap();
    (submission.build, submission.on_lost) = (new_build_id(now()).unwrap(), OnLost::Fail);
    let run = submission.build;
    store.submit(&Submit::new(submission), now()).await.unwrap();
    let child = submit_child(&service, run).await;
    noted_by_a_dead_driver(&world, run, child, true).await;
    service.start();
    assert_eq!(world.ended(&service, run).await.state, State::Failed);
    assert_eq!(world.ended(&service, child).await.state, State::Cancelled);
    service.drain().await;
}

async fn a_run_that_waits_to_go_on_and_is_replaced_stops_its_builds(world: World) {
    let service = world.open().await;
    let run = submit(&service, run_of(vec![node("a", &[], build("hold"))])).await;
    let child = submit_child(&service, run).await;
    noted_by_a_dead_driver(&world, run, child, true).await;
    let store = Store::open(&world.database()).await.unwrap();
    assert_eq!(store.expire(now()).await.unwrap(), [run]);
    service
        .set_scope_policy(service.admin(), "pipeline", Policy::ReplacePending, None)
        .await
        .unwrap();
    let next = submit(&service, run_of(vec![node("b", &[], build("ok"))])).await;
    let row = service.row(service.admin(), run).await.unwrap();
    assert!(row.state == State::Queued && row.cancellation.is_some(), "{row:#?}");
    service.start();
    let row = world.ended(&service, run).await;
    let made = world.ended(&service, child).await;
    assert_eq!((row.state, made.state), (State::Cancelled, State::Cancelled));
    assert!(made.finished_at.unwrap() < row.finished_at.unwrap(), "the run was over first");
    assert_eq!(world.ended(&service, next).await.state, State::Succeeded);
    service.drain().await;
}

async fn runs_of_a_scope_wait_for_each_other(world: World) {
    let service = world.open().await;
    service.start();
    service.set_scope_policy(service.admin(), "pipeline", Policy::Queue, None).await.unwrap();
    let first = submit(&service, run_of(vec![node("one", &[], build("hold"))])).await;
    let second = submit(&service, run_of(vec![node("two", &[], build("ok"))])).await;
    eventually("the first runs", || world.stage.ran() == ["one"]).await;
    assert_eq!(service.row(service.admin(), second).await.unwrap().state, State::Queued);
    world.stage.release("one");
    let (a, b) = (world.ended(&service, first).await, world.ended(&service, second).await);
    assert!(a.finished_at.unwrap() < b.started_at.unwrap());
    service.set_scope_policy(service.admin(), "pipeline", Policy::Forbid, None).await.unwrap();
    let third = submit(&service, run_of(vec![node("three", &[], build("hold"))])).await;
    let refused = service.submit(service.admin(), run_of(vec![node("x", &[], build("ok"))])).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    world.stage.release("three");
    world.ended(&service, third).await;
    service.drain().await;
}

async fn servers_share_runs_and_drive_each_once(mut world: World) {
    let one = world.open().await;
    if !world.is_postgres() {
        // A SQLite file is one server's.
        return one.close().await;
    }
    let two = world.open_beside().await;
    one.start();
    two.start();
    let mut runs = Vec::new();
    for n in 0..10 {
        let (a, b) = (format!("a{n}"), format!("b{n}"));
        let nodes = vec![node(&a, &[], build("ok")), node(&b, &[&a], build("ok"))];
        runs.push(submit(if n % 2 == 0 { &one } else { &two }, run_of(nodes)).await);
    }
    for run in &runs {
        let row = world.ended(&one, *run).await;
        assert_eq!((row.state, row.attempt), (State::Succeeded, 1));
        assert_eq!(children(&one, one.admin(), *run).await.len(), 2);
    }
    let mut ran = world.stage.ran();
    ran.sort();
    ran.dedup();
    assert_eq!((ran.len(), world.stage.ran().len()), (20, 20));
    one.drain().await;
    two.drain().await;
}

/// Nodes that hand on a value, have nothing to do, or build by what an earlier one came to.
struct Dialect;

impl NodeDriver for Dialect {
    fn begin<'a>(
        &'a self,
        _: &'a Arc<Service>,
        run: &'a Run<'a>,
        node: &'a Node,
        _: u32,
    ) -> BoxFuture<'a, Result<Begun, Error>> {
        Box::pin(async move {
            let NodeWork::Custom { value } = &node.work else { unreachable!() };
            match value["do"].as_str() {
                Some("say") => Ok(Begun::Done(value["what"].clone())),
                Some("pass") => Ok(Begun::Passed),
                Some("build") => {
                    let said = run.progress.of("say").value.unwrap_or(Value::Null);
                    let said = said.as_str().unwrap_or_default();
                    let request = SubmitRequest::new("custom", "made", &node.id, role(said));
                    Ok(Begun::Build(Box::new(request)))
                }
                _ => Err(Error::invalid("do", "is not known")),
            }
        })
    }
}

async fn dialects_have_nodes_of_their_own(world: World) {
    let service = world.open().await;
    service.set_node_driver("custom", Arc::new(Dialect));
    service.start();
    let custom = |value| NodeWork::Custom { value };
    let nodes = vec![
        node("say", &[], custom(json!({"do": "say", "what": "fail"}))),
        node("pass", &["say"], custom(json!({"do": "pass"}))),
        node("make", &["pass"], custom(json!({"do": "build"}))),
        node("odd", &[], custom(json!({"do": "dance"}))),
    ];
    let mut request = run_of(nodes);
    request.dialect = "custom".into();
    let run = submit(&service, request).await;
    assert_eq!(world.ended(&service, run).await.state, State::Failed);
    let (_, progress) = service.run_progress(service.admin(), run).await.unwrap();
    assert_eq!(progress.of("say").value, Some(json!("fail")));
    assert_eq!(progress.of("pass").state, NodeState::Passed);
    assert_eq!(progress.of("make").error.as_deref(), Some("make shall fail"));
    assert_eq!(progress.of("odd").error.as_deref(), Some("do: is not known"));
    service.drain().await;
}

async fn wrong_runs_are_refused_with_the_place(world: World) {
    let service = world.open().await;
    let mut many = node("a", &[], NodeWork::Join);
    many.attempts = 11;
    let NodeWork::Build(mut text) = build("ok") else { unreachable!() };
    text.definition.tags = vec!["${args.none}".into()];
    let nested = NodeWork::Build(Box::new(NodeBuild {
        definition: ashlar_service::Definition::new(Recipe::Workflow(Workflow::default())),
        ..*text.clone()
    }));
    let on = |base: &str| {
        let NodeWork::Build(mut on) = build("ok") else { unreachable!() };
        let (base, id) = (Some(base.to_owned()), BuildId::from_parts(0, [0; 10]));
        let steps = ashlar_service::frontends::declarative::Definition::new(
            ashlar_service::frontends::declarative::Base::Image("scratch".into()),
            Vec::new(),
        );
        on.definition.recipe = Recipe::OnBuild { base: id, owner: None, steps };
        on.on = base;
        NodeWork::Build(on)
    };
    let mut unwaited = node("a", &[], build("ok"));
    unwaited.wait = false;
    let cases = [
        (vec![node("a", &[], NodeWork::Join), node("b", &["a"], on("a"))], "nodes[1].on"),
        (vec![unwaited, node("b", &["a"], on("a"))], "nodes[1].on"),
        (vec![], "nodes"),
        (vec![node("a", &["b"], NodeWork::Join), node("b", &[], NodeWork::Join)], "nodes[0].needs"),
        (vec![node("a", &[], NodeWork::Join), node("a", &[], NodeWork::Join)], "nodes[1].id"),
        (vec![node("a b", &[], NodeWork::Join)], "nodes[0].id"),
        (vec![many], "nodes[0].attempts"),
        (vec![node("a", &[], NodeWork::Build(text))], "nodes[0]"),
        (vec![node("a", &[], nested)], "nodes[0]"),
    ];
    for (nodes, place) in cases {
        let error = service.submit(service.admin(), run_of(nodes)).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid { field, .. } if field == place), "{error}");
    }
    // A request of a few kilobytes that would be gigabytes.
    let NodeWork::Build(mut text) = build("ok") else { unreachable!() };
    text.definition.tags = vec!["${args.long}".repeat(3000)];
    let nodes = (0..100).map(|i| node(&format!("n{i}"), &[], NodeWork::Build(text.clone())));
    let arguments = [("long".to_owned(), "x".repeat(10_000))].into();
    let workflow = Workflow { nodes: nodes.collect(), arguments, ..Workflow::default() };
    let error = service.submit(service.admin(), request(workflow)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    let mut plain = run_of(vec![node("a", &[], NodeWork::Join)]);
    plain.kind = BuildKind::Build;
    assert_eq!(
        service.submit(service.admin(), plain).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    service.close().await;
}
