//! What is asked for, and when.

use ashlar_core::frontend::{Answers, Frontend, Lowered, Question};
use ashlar_core::graph::Op;
use ashlar_frontend_dockerfile::{DockerfileFrontend, NamedContext, Request, Source, outline};
use serde_json::json;

use crate::common::{World, history, lower, plan};

fn first_questions(request: Request) -> Vec<String> {
    match DockerfileFrontend::new(request).lower(&Answers::new()).unwrap() {
        Lowered::Plan(_) => Vec::new(),
        Lowered::Questions(all) => all
            .iter()
            .map(|q| match q {
                Question::Image { reference, platform } => format!("{reference} {platform}"),
                Question::File { context, path } => format!("{context}:{path}"),
                other => format!("{other:?}"),
            })
            .collect(),
    }
}

fn host_free(text: &str) -> Request {
    let mut request = Request::text(text);
    request.build_platform = "linux/amd64".parse().unwrap();
    request
}

#[test]
fn all_that_is_needed_is_asked_for_at_once() {
    let text = "FROM busybox AS a\nFROM alpine AS unused\nCOPY --from=ghost x y\n\
                FROM --platform=linux/arm64 debian\nCOPY --from=a x y\nCOPY z z\n\
                RUN --mount=from=tools,target=/t x\n";
    let want = [
        "busybox linux/amd64",
        "debian linux/arm64",
        "tools linux/amd64",
        "context:Dockerfile.dockerignore",
        "context:.dockerignore",
    ];
    assert_eq!(first_questions(host_free(text)), want);
}

#[test]
fn nothing_is_asked_for_without_need() {
    assert!(first_questions(host_free("FROM scratch\nADD http://h/x /y\n")).is_empty());
    assert!(first_questions(host_free("FROM scratch\nCOPY <<E /x\nE\n")).is_empty());
    assert_eq!(first_questions(host_free("FROM scratch\nCOPY a b\n")).len(), 2);
    assert_eq!(first_questions(host_free("FROM busybox\nRUN x\n")), ["busybox linux/amd64"]);
}

#[test]
fn the_target_decides() {
    let text = "FROM busybox AS a\nFROM a AS b\nRUN x\nFROM alpine AS c\n";
    let mut request = host_free(text);
    request.target = Some("B".into());
    assert_eq!(first_questions(request.clone()), ["busybox linux/amd64"]);
    assert_eq!(history(&lower(request.clone(), &World::default()).unwrap().0).len(), 1);
    request.target = Some("d".into());
    let error = lower(request, &World::default()).unwrap_err();
    assert_eq!(error.hint.as_deref(), Some("the stages are a, b, c"));
}

#[test]
fn the_dockerfile_itself_is_asked_for() {
    let source = Source::Context { context: "src".into(), path: "d/My.dockerfile".into() };
    let request = Request::new(source);
    assert_eq!(first_questions(request.clone()), ["src:d/My.dockerfile"]);
    let error = lower(request.clone(), &World::default()).unwrap_err();
    assert!(error.message.contains("d/My.dockerfile was not found"));
    let mut world = World::default().with_file(".dockerignore", "main\n");
    let place = |p: &str| ("src".to_owned(), p.to_owned());
    world.files.insert(place("d/My.dockerfile"), b"FROM scratch\nCOPY . /\n".to_vec());
    let exclude = |world: &World| {
        let (plan, _) = lower(request.clone(), world).unwrap();
        plan.graph.nodes().iter().find_map(|n| match &n.op {
            Op::Context { name, exclude } => Some((name.clone(), exclude.clone())),
            _ => None,
        })
    };
    assert_eq!(exclude(&world), Some(("context".into(), vec!["main".into()])));
    world.files.insert(place("d/My.dockerfile.dockerignore"), b"own\n!kept\n".to_vec());
    let want = vec!["own".to_owned(), "!kept".to_owned()];
    assert_eq!(exclude(&world), Some(("context".into(), want)));
}

#[test]
fn a_context_that_is_taken_as_it_is_has_no_ignore_file() {
    let world = World::default().with_file(".dockerignore", "*\n");
    let mut request = host_free("FROM scratch\nCOPY . /\n");
    request.no_ignore_files = true;
    assert!(!first_questions(request.clone()).iter().any(|q| q.contains("ignore")));
    let (plan, _) = lower(request, &world).unwrap();
    let exclude = plan.graph.nodes().iter().find_map(|n| match &n.op {
        Op::Context { exclude, .. } => Some(exclude.clone()),
        _ => None,
    });
    assert_eq!(exclude, Some(Vec::new()));
}

#[test]
fn triggers_run_before_the_instructions_and_may_ask_for_more() {
    let on = |triggers: serde_json::Value| {
        World::default().with_image("base", json!({"OnBuild": triggers}))
    };
    let world = on(json!(["ARG V=1", "COPY --from=alpine /a /b", "RUN x"]));
    let (plan, rounds) = lower(Request::text("FROM base\nRUN y\n"), &world).unwrap();
    assert_eq!(rounds, 2);
    let want = [
        "- ARG V=1",
        "+ COPY /a /b # buildkit",
        "+ RUN |1 V=1 /bin/sh -c x # buildkit",
        "+ RUN |1 V=1 /bin/sh -c y # buildkit",
    ];
    assert_eq!(history(&plan), want);
    assert!(plan.config.config.on_build.is_empty());
    assert_eq!(plan.steps[1].name, "[2/5] ONBUILD COPY --from=alpine /a /b");
    let line = |i: usize| plan.steps[i].location.as_ref().unwrap().line;
    assert_eq!([line(1), line(3)], [1, 2]);
    // Triggers run once, in the stage right on top.
    let text = "FROM busybox AS p\nONBUILD RUN t\nFROM p AS q\nFROM q\nRUN z\n";
    let own = history(&crate::common::plan(text));
    assert_eq!(own, ["+ RUN /bin/sh -c t # buildkit", "+ RUN /bin/sh -c z # buildkit"]);
}

#[test]
fn contexts_stand_in_for_stages_and_images() {
    let text = "FROM golang:1.22 AS build\nRUN never\nFROM busybox\nCOPY --from=build a b\n\
                COPY --from=extra c d\n";
    let mut request = host_free(text);
    let named = [
        ("build", NamedContext::Directory("prebuilt".into())),
        ("busybox", NamedContext::Image("alpine:3".into())),
        ("extra", NamedContext::Git("https://h/r.git#main".into())),
    ];
    request.named_contexts = named.map(|(k, v)| (k.to_owned(), v)).into();
    let (plan, _) = lower(request, &World::default()).unwrap();
    let ops: Vec<String> = plan
        .graph
        .nodes()
        .iter()
        .map(|n| match &n.op {
            Op::Image { reference, .. } => reference.clone(),
            Op::Context { name, .. } => name.clone(),
            Op::Git { remote, .. } => remote.clone(),
            Op::Exec(_) => panic!("a stage that is stood in for does not run"),
            _ => "file".into(),
        })
        .collect();
    let want = ["https://h/r.git", "prebuilt", "docker.io/library/alpine:3", "file", "file"];
    assert_eq!(ops, want);
}

#[test]
fn the_main_context_can_be_a_git_repository() {
    let mut request = host_free("FROM scratch\nCOPY a b\n");
    let git = NamedContext::Git("https://h/r.git#v1:sub".into());
    request.named_contexts.insert("context".into(), git);
    assert!(first_questions(request.clone()).is_empty());
    let (plan, _) = lower(request, &World::default()).unwrap();
    assert!(
        plan.graph
            .nodes()
            .iter()
            .any(|n| matches!(&n.op, Op::Git { subdir, .. } if subdir == "sub"))
    );
}

#[test]
fn images_without_layers_are_the_empty_tree() {
    let plan = plan("FROM scratch\nCOPY <<E /x\nE\n");
    assert_eq!(plan.graph.nodes()[0].op, Op::Scratch);
    assert_eq!(plan.config.config.working_dir, "/");
    assert!(plan.config.config.env_value("PATH").is_some());
}

#[test]
fn outlines_list_what_a_file_offers() {
    let text = "# BASE the image to start from\nARG BASE=busybox\n\
                # app is what runs\nFROM $BASE AS app\nARG VERSION\n\
                RUN --mount=type=secret,id=tok,required --mount=type=ssh x\nFROM app\n";
    let outline = outline("Dockerfile", text).unwrap();
    let value = serde_json::to_value(&outline).unwrap();
    let want = json!({
        "stages": [
            {"name": "app", "base": "$BASE", "platform": null, "description": "is what runs",
             "line": 4},
            {"name": null, "base": "app", "platform": null, "description": null, "line": 7},
        ],
        "args": [
            {"name": "BASE", "default": "busybox", "description": "the image to start from",
             "line": 2},
            {"name": "VERSION", "default": null, "description": null, "line": 5},
        ],
        "secrets": [{"id": "tok", "required": true, "line": 6}],
        "ssh": [{"id": "default", "required": false, "line": 6}],
        "warnings": [],
    });
    assert_eq!(value, want);
}
