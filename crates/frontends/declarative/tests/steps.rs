//! What each kind of step lowers to.

#[cfg(test)]
mod support;

use ashlar_core::cache::Bypass;
use ashlar_core::frontend::{Answer, Answers, Frontend, Lowered, Question};
use ashlar_core::graph::{FileAction, Mode, Network, Op, Owner, OwnerPart};
use ashlar_core::image::ImageConfig;
use ashlar_core::{Digest, Platform};
use ashlar_frontend_declarative::{Base, CacheUse, Declarative, Definition, Runtime, Step};
use serde_json::{Value, json};
use support::*;

#[test]
fn each_kind_that_runs_something_makes_its_command() {
    let table: Vec<(Value, &str)> = vec![
        (
            json!({"action": "apt_install", "packages": ["curl", "git"]}),
            "apt-get update && apt-get install -y curl git && rm -rf /var/lib/apt/lists/*",
        ),
        (json!({"action": "pip_install", "packages": ["a"]}), "pip install --no-cache-dir a"),
        (
            json!({"action": "pip_install", "packages": ["a>=2", "b[x]"], "g": false}),
            "pip install --user --no-cache-dir 'a>=2' 'b[x]'",
        ),
        (json!({"action": "npm_install", "packages": ["@a/b@1"]}), "npm install @a/b@1"),
        (json!({"action": "npm_install", "packages": ["a"], "g": true}), "npm install -g a"),
        (json!({"action": "bun_install", "packages": ["a"]}), "bun add a"),
        (json!({"action": "bun_install", "packages": ["a"], "g": true}), "bun add --global a"),
        (json!({"action": "run", "command": "echo \"$HOME\" > x"}), "echo \"$HOME\" > x"),
        (json!({"action": "remove", "path": "/a"}), "rm /a"),
        (json!({"action": "remove", "path": "/a", "recursive": true}), "rm -r /a"),
        (json!({"action": "remove", "path": "/a", "force": true}), "rm -f /a"),
        (
            json!({"action": "remove", "path": "/a b", "recursive": true, "force": true}),
            "rm -rf '/a b'",
        ),
        (json!({"action": "remove", "path": "-rf"}), "rm -- -rf"),
        (json!({"action": "rename", "src": "a", "dst": "b"}), "mv a b"),
        (
            json!({"action": "rename", "src": "it's", "dst": "$b", "force": true}),
            r"mv -f 'it'\''s' '$b'",
        ),
        (json!({"action": "make_dir", "path": "/d"}), "mkdir -p /d"),
        (
            json!({"action": "make_dir", "path": "/d", "mode": "0750"}),
            "mkdir -p /d && chmod 0750 /d",
        ),
        (json!({"action": "make_dir", "path": "/d", "mode": 493}), "mkdir -p /d && chmod 0755 /d"),
        (json!({"action": "make_symlink", "target": "../x", "path": "/l"}), "ln -s ../x /l"),
        (
            json!({"action": "git_clone", "url": "https://h/r.git"}),
            "git clone https://h/r.git /workspace",
        ),
        (
            json!({"action": "git_clone", "url": "https://h/r", "path": "/s", "branch": "v 1",
                   "depth": 1}),
            "git clone --branch 'v 1' --depth 1 https://h/r /s",
        ),
    ];
    for (step, want) in table {
        let plan = lower_json(&json!([step]));
        assert_eq!(commands(&plan), [want], "{step}");
        let node = plan.graph.node(plan.target);
        assert!(node.meta.counted && node.meta.bypass.is_none(), "{step}");
        assert_eq!(plan.layer_nodes, [plan.target], "{step}");
        assert_eq!(plan.steps.len(), 1);
        let exec = execs(&plan)[0];
        assert_eq!((exec.cwd.as_str(), exec.user.as_str()), ("/", ""));
    }
}

#[test]
fn empty_lists_of_packages_do_nothing() {
    for action in ["apt_install", "pip_install", "npm_install", "bun_install"] {
        let plan = lower_json(&json!([{"action": action, "packages": []}]));
        assert_eq!(plan.steps[0].node, None);
        assert!(plan.layer_nodes.is_empty());
        assert_eq!(plan.config.history.len(), 1);
    }
}

#[test]
fn user_and_workdir_hold_for_what_follows() {
    let plan = lower_json(&json!([
        {"action": "user", "user": "app:staff"},
        {"action": "workdir", "path": "/srv"},
        {"action": "workdir", "path": "code"},
        {"action": "run", "command": "one"},
        {"action": "run", "command": "two", "user": "root"},
        {"action": "run", "command": "three"},
    ]));
    let said: Vec<_> =
        execs(&plan).iter().map(|e| (e.args[2].clone(), e.user.clone(), e.cwd.clone())).collect();
    let want = |c: &str, u: &str| (c.to_owned(), u.to_owned(), "/srv/code".to_owned());
    assert_eq!(said, [want("one", "app:staff"), want("two", "root"), want("three", "app:staff")]);
    assert_eq!(plan.config.config.user, "app:staff");
    assert_eq!(plan.config.config.working_dir, "/srv/code");
    let Op::File { actions } = &step_nodes(&plan)[1].op else { panic!("no mkdir") };
    let owner =
        Owner { user: OwnerPart::Name("app".into()), group: Some(OwnerPart::Name("staff".into())) };
    let path = "/srv/code".into();
    assert_eq!(actions[..], [FileAction::Mkdir { path, mode: 0o755, parents: true, owner }]);
}

#[test]
fn steps_start_as_root_in_the_root_whatever_the_base_says() {
    let mut base = base_config();
    base.config.user = "www".into();
    base.config.working_dir = "/var/www".into();
    let plan = lower_on(definition(&json!([{"action": "run", "command": "id"}])), base);
    let exec = execs(&plan)[0];
    assert_eq!((exec.cwd.as_str(), exec.user.as_str()), ("/", ""));
    assert_eq!(plan.config.config.user, "www", "the result still runs as the base says");
}

#[test]
fn only_filesystem_changing_steps_are_counted_and_skip_cache_has_no_number() {
    let plan = lower_json(&json!([
        {"action": "workdir", "path": "/w"},
        {"action": "skip_cache"},
        {"action": "user", "user": "app"},
        {"action": "run", "command": "x"},
        {"action": "copy_items", "items": [
            {"sources": ["a"], "dst": "a"}, {"sources": ["b"], "dst": "b"}]},
    ]));
    let numbers: Vec<_> = plan.steps.iter().map(|s| (s.id.0, s.name.as_str())).collect();
    let want = [
        (1, "[1/4] WORKDIR /w"),
        (2, "[2/4] USER app"),
        (3, "[3/4] RUN x"),
        (4, "[4/4] COPY a a; COPY b b"),
    ];
    assert_eq!(numbers, want);
    let counted = plan.graph.nodes().iter().filter(|n| n.meta.counted).count();
    assert_eq!(counted, 2);
    let layers = plan.config.history.iter().filter(|h| !h.empty_layer).count();
    assert_eq!((layers, plan.layer_nodes.len()), (1 + 3, 3));
}

#[test]
fn a_boundary_bypasses_what_follows_and_a_whole_build_all() {
    let json = json!([
        {"action": "run", "command": "a"},
        {"action": "skip_cache"},
        {"action": "run", "command": "b"},
        {"action": "copy", "sources": ["x"], "dst": "/"},
    ]);
    let bypasses =
        |d: Definition| -> Vec<_> { step_nodes(&lower(d)).iter().map(|n| n.meta.bypass).collect() };
    let boundary = Some(Bypass::Boundary);
    assert_eq!(bypasses(definition(&json)), [None, boundary, boundary]);
    let skipped = Definition { cache: CacheUse::Skip, ..definition(&json) };
    assert_eq!(bypasses(skipped), [Some(Bypass::WholeBuild); 3]);
}

#[test]
fn copies_follow_the_rules_of_dockerfiles() {
    let plan = lower_json(&json!([
        {"action": "workdir", "path": "/w"},
        {"action": "copy", "sources": ["./a//b"], "dst": "c", "user": "7:app", "mode": "0644"},
        {"action": "copy", "sources": ["a", "b"], "dst": "d", "force_upload": true},
        {"action": "copy", "sources": ["."], "dst": "."},
        {"action": "copy", "sources": ["x[1].txt", "y"], "dst": "/z"},
    ]));
    let copies = copies(&plan);
    let said: Vec<_> =
        copies.iter().map(|c| (c.sources.join(" "), c.destination.as_str(), c.literal)).collect();
    let want = [
        ("/a/b".to_owned(), "/w/c", false),
        ("/a /b".to_owned(), "/w/d/", false),
        ("/".to_owned(), "/w/", false),
        ("/x[1].txt".to_owned(), "/z/", true),
        ("/y".to_owned(), "/z/", false),
    ];
    assert_eq!(said, want);
    let group = Some(OwnerPart::Name("app".into()));
    assert_eq!(copies[0].owner, Some(Owner { user: OwnerPart::Id(7), group }));
    assert_eq!(copies[0].mode, Some(Mode::Bits(0o644)));
    let contexts = plan.graph.nodes().iter().filter(|n| matches!(n.op, Op::Context { .. }));
    assert_eq!(contexts.count(), 1);
}

#[test]
fn variables_of_the_base_and_of_the_build_reach_steps_but_runtime_ones_only_children() {
    let json = json!([{"action": "run", "command": "env"}]);
    let mut parent = definition(&json);
    parent.build_envs = [("TOKEN".into(), "t".into()), ("LANG".into(), "de".into())].into();
    parent.runtime = Runtime {
        user: Some("app".into()),
        workdir: Some("/app".into()),
        envs: [("MODE".into(), "prod".into())].into(),
    };
    let plan = lower(parent);
    let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
    let want = [pair("PATH", PATH), pair("LANG", "de"), pair("TOKEN", "t")];
    assert_eq!(execs(&plan)[0].env, want);
    let env = [format!("PATH={PATH}"), "LANG=C.UTF-8".into(), "MODE=prod".into()];
    assert_eq!(plan.config.config.env, env);
    assert_eq!(plan.config.config.user, "app");
    assert_eq!(plan.config.config.working_dir, "/app");

    let base = Base::Known {
        reference: "local/parent".into(),
        manifest: Digest::of("parent"),
        config: Box::new(plan.config),
    };
    let child = Definition { base, ..definition(&json) };
    let Ok(Lowered::Plan(plan)) = Declarative(child).lower(&Answers::new()) else {
        panic!("a known base needs no answers");
    };
    let want = [pair("PATH", PATH), pair("LANG", "C.UTF-8"), pair("MODE", "prod")];
    assert_eq!(execs(&plan)[0].env, want);
    assert_eq!(execs(&plan)[0].user, "", "as root whatever the parent's default");
}

#[test]
fn the_base_is_asked_for_once() {
    let frontend = Declarative(definition(&json!([])));
    let question = Question::Image { reference: "debian".into(), platform: Platform::host() };
    assert_eq!(frontend.lower(&Answers::new()), Ok(Lowered::Questions(vec![question.clone()])));
    let mut failed = Answers::new();
    failed.put(question, Answer::Failed { message: "no such image".into() });
    let error = frontend.lower(&failed).unwrap_err();
    assert_eq!(error.message, "base_image: no such image");
    let plan = lower_json(&json!([]));
    assert_eq!(plan.target, ashlar_core::graph::NodeId(0), "the base alone is a build too");
    assert_eq!(frontend.name(), "declarative");
}

#[test]
fn layers_that_the_history_of_the_base_lacks_are_added() {
    let mut base = base_config();
    base.rootfs.diff_ids = vec![Digest::of("1"), Digest::of("2"), Digest::of("3")];
    let plan = lower_on(definition(&json!([])), base);
    assert_eq!(plan.config.history.len(), 3);
    let plan = lower_on(definition(&json!([])), ImageConfig::default());
    assert_eq!(plan.graph.node(plan.target).op, Op::Scratch, "an image without layers");
}

#[test]
fn scratch_needs_no_registry() {
    let steps = steps(&json!([{"action": "copy", "sources": ["app"], "dst": "/"}]));
    let definition = Definition::new(Base::Image("scratch".into()), steps);
    let Ok(Lowered::Plan(plan)) = Declarative(definition).lower(&Answers::new()) else {
        panic!("questions about nothing");
    };
    assert_eq!(plan.graph.node(ashlar_core::graph::NodeId(0)).op, Op::Scratch);
    assert!(plan.config.config.env_value("PATH").is_some());
    assert_eq!(plan.config.config.working_dir, "/");
}

#[test]
fn no_network_means_no_network_for_every_command() {
    let mut definition = definition(&json!([{"action": "run", "command": "x"}]));
    definition.network = Network::None;
    assert_eq!(execs(&lower(definition))[0].network, Network::None);
}

#[test]
fn triggers_of_the_base_are_said_to_be_ignored() {
    let mut base = base_config();
    base.config.on_build = vec!["RUN x".into()];
    let plan = lower_on(definition(&json!([])), base);
    assert!(plan.warnings[0].message.contains("ONBUILD"));
    assert!(plan.config.config.on_build.is_empty(), "they are for direct children only");
}

#[test]
fn definitions_round_trip_through_json() {
    let json = json!([
        {"action": "pip_install", "packages": ["a"], "g": false},
        {"action": "run", "command": "x", "user": "u"},
        {"action": "copy", "sources": ["a"], "dst": "b", "mode": 420, "force_upload": true},
        {"action": "copy_items", "items": [{"sources": ["a"], "dst": "b"}]},
        {"action": "git_clone", "url": "u", "depth": 3},
        {"action": "skip_cache"},
    ]);
    let definition = definition(&json);
    let text = serde_json::to_string(&definition).unwrap();
    assert_eq!(serde_json::from_str::<Definition>(&text).unwrap(), definition);
    let wrong = serde_json::from_str::<Step>(r#"{"action":"run","command":1}"#).unwrap_err();
    assert_eq!(wrong.to_string(), "step.command: must be a string, not a number");
    let sources: Vec<_> = definition.sources().collect();
    assert_eq!(sources, [(2, "a"), (3, "a")]);
}

#[test]
fn equal_operations_have_equal_digests_whatever_made_them() {
    let one = lower_json(&json!([{"action": "make_dir", "path": "/d"}]));
    let two = lower_json(&json!([{"action": "run", "command": "mkdir -p /d"}]));
    let digest = |p: &ashlar_core::frontend::Plan| p.graph.node(p.target).digest;
    assert_eq!(digest(&one), digest(&two));
}

#[test]
fn steps_that_skip_the_parser_are_checked_too() {
    let step = Step::User { user: "a b".into() };
    let definition = Definition::new(Base::Image("debian".into()), vec![step]);
    let answers = answers(ImageConfig::default());
    let error = Declarative(definition).lower(&answers).unwrap_err();
    assert!(error.message.starts_with("steps[0].user: "), "{error}");
    for name in ["", "A=B", "A\0"] {
        let mut definition = Definition::new(Base::Image("debian".into()), vec![]);
        definition.build_envs.insert(name.into(), "v".into());
        assert!(Declarative(definition).lower(&answers).is_err(), "{name:?}");
    }
}
