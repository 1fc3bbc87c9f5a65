//! A declarative build and the Dockerfile rendered from it are the same operations, down to the
//! digests, and make the same image. Only owners by name are looked up more strictly.

#[cfg(test)]
#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use ashlar_core::Digest;
use ashlar_core::frontend::{Answer, Answers, Frontend, Lowered, Plan, Question};
use ashlar_core::graph::{FileAction, Graph, Network, Op, OwnerPart};
use ashlar_core::image::History;
use ashlar_frontend_declarative::{Definition, Step, render_dockerfile};
use ashlar_frontend_dockerfile::{DockerfileFrontend, Request};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::*;

/// Lowers a Dockerfile on the same base, with a context that has no ignore file.
fn lower_dockerfile(request: Request) -> Plan {
    let text = request.clone();
    let frontend = DockerfileFrontend::new(request);
    let mut answers: Answers = answers(base_config());
    for _ in 0..5 {
        match frontend.lower(&answers) {
            Ok(Lowered::Plan(plan)) => return *plan,
            Ok(Lowered::Questions(questions)) => {
                for question in questions {
                    assert!(matches!(question, Question::File { .. }), "{question:?}");
                    answers.put(question, Answer::File { content: None });
                }
            }
            Err(diagnostic) => panic!("{diagnostic}\n{:?}", text.source),
        }
    }
    panic!("questions without end")
}

/// Digests of all operations, without those of sources: whether a frontend makes a node for a
/// source before or after others is of no account.
fn operations(plan: &Plan) -> Vec<Digest> {
    let source = |op: &Op| matches!(op, Op::Image { .. } | Op::Context { .. } | Op::Scratch);
    let nodes = plan.graph.nodes().iter().filter(|n| !source(&n.op));
    nodes.map(|n| n.digest).collect()
}

fn counted(plan: &Plan) -> usize {
    plan.graph.nodes().iter().filter(|n| n.meta.counted).count()
}

/// A command with a user of its own is a pair of `USER` in a Dockerfile, which its history shows.
fn without_users(mut plan: Plan) -> Plan {
    let is_user = |h: &History| h.created_by.as_ref().is_some_and(|c| c.starts_with("USER "));
    plan.config.history.retain(|h| !is_user(h));
    plan
}

/// An owner that the image lacks is an error here, and root in a Dockerfile.
fn lenient(mut plan: Plan) -> Plan {
    let mut graph = Graph::new();
    for node in plan.graph.nodes() {
        let mut op = node.op.clone();
        if let Op::File { actions } = &mut op {
            for action in actions {
                if let FileAction::Copy(copy) = action {
                    let named = copy.owner.as_ref().is_some_and(|owner| {
                        let parts = [Some(&owner.user), owner.group.as_ref()];
                        parts.into_iter().flatten().any(|p| matches!(p, OwnerPart::Name(_)))
                    });
                    assert_eq!(copy.strict_owner, named, "{copy:?}");
                    copy.strict_owner = false;
                }
            }
        }
        graph.add(op, node.inputs.clone(), node.meta.clone()).expect("its inputs are there");
    }
    plan.graph = graph;
    plan
}

fn same(definition: Definition) {
    let has_user = |step: &Step| matches!(step, Step::Run { user: Some(_), .. });
    let users_differ = definition.steps.iter().any(has_user);
    let text = render_dockerfile("debian", &definition.steps);
    let mut request = Request::text(&text);
    request.network = definition.network;
    request.build_envs = definition.build_envs.clone().into_iter().collect();
    let (mut one, mut other) = (lenient(lower(definition)), lower_dockerfile(request));
    if users_differ {
        (one, other) = (without_users(one), without_users(other));
    }
    for (a, b) in step_nodes(&one).iter().zip(other.layer_nodes.iter()) {
        let b = other.graph.node(*b);
        assert_eq!(a.op, b.op, "{text}");
    }
    assert_eq!(operations(&one), operations(&other), "{text}");
    assert_eq!(one.graph.node(one.target).digest, other.graph.node(other.target).digest, "{text}");
    assert_eq!(one.layer_nodes.len(), other.layer_nodes.len(), "{text}");
    assert_eq!(counted(&one), counted(&other), "{text}");
    assert_eq!(one.config, other.config, "{text}");
}

#[test]
fn every_kind_of_step_is_its_instruction() {
    let table: Vec<Value> = vec![
        json!([]),
        json!([{"action": "apt_install", "packages": ["curl", "git"]}]),
        json!([{"action": "pip_install", "packages": ["a>=2", "b"], "g": false}]),
        json!([{"action": "npm_install", "packages": ["@a/b@^1"], "g": true}]),
        json!([{"action": "bun_install", "packages": ["a"]}]),
        json!([{"action": "run", "command": "echo $HOME \"a b\" | tee x && true # done"}]),
        json!([{"action": "run", "command": "  set -e\n\n# no comment\necho a \\\n  b\n"}]),
        json!([{"action": "run", "command": "cat <<EOF > /x\nhi\nEOF"}]),
        json!([{"action": "run", "command": "--mount=type=secret,id=x cat"}]),
        json!([{"action": "run", "command": "[\"not\", \"a list\"]"}]),
        json!([{"action": "run", "command": "echo \\"}]),
        json!([{"action": "run", "command": "# only a comment"}]),
        json!([{"action": "workdir", "path": "/a"}, {"action": "workdir", "path": "b/../c"},
               {"action": "run", "command": "pwd"}]),
        json!([{"action": "workdir", "path": "/"}, {"action": "run", "command": "pwd"}]),
        json!([{"action": "workdir", "path": "/my 'own' \"$HOME\" \\ # app "}]),
        json!([{"action": "user", "user": "app:1000"}, {"action": "workdir", "path": "w"},
               {"action": "run", "command": "id"}]),
        json!([{"action": "user", "user": "root"}, {"action": "workdir", "path": "/w"}]),
        json!([{"action": "user", "user": "app"}, {"action": "run", "command": "id", "user": "www"},
               {"action": "run", "command": "id"}]),
        json!([{"action": "copy", "sources": ["a"], "dst": "/b"}]),
        json!([{"action": "workdir", "path": "/w"},
               {"action": "copy", "sources": ["./a//b", "c"], "dst": "d", "user": "7:app"}]),
        json!([{"action": "copy", "sources": ["."], "dst": ".", "mode": "0640", "user": "root"}]),
        json!([{"action": "copy", "sources": ["a b", "it's", "x\"y", "$HOME", "#c"], "dst": "/d e/"}]),
        json!([{"action": "copy_items", "items": [{"sources": ["a"], "dst": "/a"}]}]),
        json!([{"action": "copy", "sources": ["<<a", "b"], "dst": "<<c"}]),
        json!([{"action": "remove", "path": "/a b", "recursive": true, "force": true}]),
        json!([{"action": "rename", "src": "/it's", "dst": "$x\n", "force": true}]),
        json!([{"action": "make_dir", "path": "/d", "mode": 493}]),
        json!([{"action": "make_symlink", "target": "-x", "path": "/l"}]),
        json!([{"action": "git_clone", "url": "https://h/r.git", "branch": "main", "depth": 1}]),
    ];
    for steps in table {
        same(definition(&steps));
    }
}

#[test]
fn variables_and_network_are_the_same_too() {
    let steps = json!([{"action": "run", "command": "env"}]);
    let mut definition = definition(&steps);
    definition.network = Network::None;
    definition.build_envs =
        [("A".into(), "1".into()), ("PATH".into(), "/x".into()), ("Z".into(), String::new())]
            .into();
    same(definition);
}

proptest! {
    #[test]
    fn any_names_are_the_same(
        command in "[^\0]{1,20}",
        source in "[^\0/*?\\[\\\\.:@]{1,12}",
        path in "/[^\0\\p{Cc}/]{1,12}",
        user in "[a-z][a-z0-9_-]{0,8}",
    ) {
        same(definition(&json!([
            {"action": "user", "user": user},
            {"action": "run", "command": command},
            {"action": "workdir", "path": path},
            {"action": "copy", "sources": [source], "dst": source, "user": user},
            {"action": "rename", "src": source, "dst": path},
        ])));
    }
}
