//! The graph: operations, inputs, names, steps.

use std::collections::BTreeSet;

use ashlar_core::cache::Bypass;
use ashlar_core::frontend::Plan;
use ashlar_core::graph::{Exec, FileAction, Network, Op, Security};
use ashlar_frontend_dockerfile::{Entitlement, NoCache, Request};
use serde_json::{Value, json};

use crate::common::{World, lower, plan};

fn execs(plan: &Plan) -> Vec<&Exec> {
    let nodes = plan.graph.nodes().iter();
    nodes.filter_map(|n| if let Op::Exec(e) = &n.op { Some(&**e) } else { None }).collect()
}

fn with(text: &str, change: impl FnOnce(&mut Request)) -> Plan {
    let mut request = Request::text(text);
    change(&mut request);
    lower(request, &World::default()).unwrap().0
}

/// The file actions of the target, as JSON.
fn actions(text: &str) -> Value {
    let plan = plan(&format!("FROM busybox\n{text}\n"));
    match &plan.graph.node(plan.target).op {
        Op::File { actions } => serde_json::to_value(actions).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn steps_are_named_and_numbered_as_in_buildkit() {
    let text = "FROM busybox AS build\nWORKDIR /w\nRUN make \\\n  all\nENV X=y\n\
                FROM alpine AS unused\nRUN never\n\
                FROM busybox\nCOPY --from=build /w/$X /o\nCOPY --from=debian /etc/os /o\n";
    let plan = plan(text);
    let names: Vec<String> = plan
        .steps
        .iter()
        .map(|s| {
            let name = s.name.split("@sha256").next().unwrap_or_default();
            format!("{} {name}", s.id.0)
        })
        .collect();
    let want = [
        "1 [build 1/3] FROM docker.io/library/busybox:latest",
        "2 [build 2/3] WORKDIR /w",
        "3 [build 3/3] RUN make   all",
        "4 [stage-2 1/3] FROM docker.io/library/busybox:latest",
        "5 [stage-2 2/3] COPY --from=build /w/ /o",
        "6 [stage-2 3/3] COPY --from=debian /etc/os /o",
    ];
    assert_eq!(names, want);
    let run = plan.steps[2].location.as_ref().unwrap();
    assert_eq!((run.line, run.end_line, run.file.as_str()), (3, 4, "Dockerfile"));
    for step in &plan.steps {
        let node = plan.graph.node(step.node.unwrap());
        assert_eq!((node.meta.step, &node.meta.name), (Some(step.id), &step.name));
        let counts = !step.name.contains("FROM") && !step.name.contains("WORKDIR");
        assert_eq!(node.meta.counted, counts, "{}", step.name);
    }
}

#[test]
fn one_stage_is_not_named_and_long_ones_align() {
    let runs = "RUN x\n".repeat(10);
    let plan = plan(&format!("FROM busybox\n{runs}"));
    assert_eq!(plan.steps[1].name, "[ 2/11] RUN x");
    assert_eq!(plan.steps[10].name, "[11/11] RUN x");
}

#[test]
fn runs_see_variables_directory_and_user() {
    let text = "FROM busybox\nENV A=1 B=2\nARG A=3\nARG C\nARG D=4\nWORKDIR /w\nUSER me:us\nRUN x";
    let plan = with(text, |r| {
        r.build_args = [("D", "5"), ("HTTP_PROXY", "http://p"), ("unused", "u")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        r.build_envs = vec![("CI".into(), "true".into())];
        r.hostname = "h".into();
        r.shm_bytes = Some(1 << 20);
    });
    let exec = execs(&plan)[0];
    let env: Vec<String> = exec.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(env, [path, "B=2", "A=3", "D=5", "CI=true"]);
    assert_eq!((exec.cwd.as_str(), exec.user.as_str()), ("/w", "me:us"));
    assert_eq!((exec.hostname.as_str(), exec.shm_bytes), ("h", Some(1 << 20)));
    let meta = &plan.graph.node(plan.target).meta;
    let proxies: Vec<&str> = meta.unkeyed_env.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(proxies, ["HTTP_PROXY", "http_proxy"]);
    let env: BTreeSet<&str> = plan.config.config.env.iter().map(|e| &e[..1]).collect();
    assert_eq!(env, BTreeSet::from(["P", "A", "B"]));
}

#[test]
fn proxies_change_no_key_and_declared_arguments_do() {
    let digest = |args: &[(&str, &str)], text: &str| {
        let plan = with(text, |r| {
            r.build_args = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        });
        plan.graph.node(plan.target).digest
    };
    let text = "FROM busybox\nRUN x";
    assert_eq!(digest(&[], text), digest(&[("http_proxy", "p")], text));
    assert_eq!(digest(&[], text), digest(&[("OTHER", "p")], text));
    let text = "FROM busybox\nARG A\nRUN x";
    assert_ne!(digest(&[], text), digest(&[("A", "p")], text));
}

#[test]
fn mounts_have_their_defaults() {
    let table = [
        (
            "type=bind,target=/t",
            json!({"destination": "/t", "mount": "bind", "input": 1, "source": "/",
                   "writable": false}),
        ),
        (
            "target=t,source=a/../b,rw",
            json!({"destination": "/w/t", "mount": "bind", "input": 1, "source": "/b",
                   "writable": true}),
        ),
        (
            "type=bind,from=alpine,src=/etc,dst=/t",
            json!({"destination": "/t", "mount": "bind", "input": 1, "source": "/etc",
                   "writable": false}),
        ),
        (
            "type=cache,target=/c/",
            json!({"destination": "/c", "mount": "cache", "id": "/c", "sharing": "shared",
                   "seed": null, "mode": 0o755, "uid": 0, "gid": 0, "readonly": false}),
        ),
        (
            "type=cache,id=$I,target=c,sharing=locked,mode=0700,uid=1,gid=2,ro,from=alpine,source=s",
            json!({"destination": "/w/c", "mount": "cache", "id": "ident", "sharing": "locked",
                   "seed": [1, "/s"], "mode": 0o700, "uid": 1, "gid": 2, "readonly": true}),
        ),
        (
            "type=tmpfs,target=/t,size=2m",
            json!({"destination": "/t", "mount": "tmpfs", "size": 2 << 20}),
        ),
        (
            "type=secret,id=a/tok",
            json!({"destination": "/run/secrets/tok", "mount": "secret", "id": "a/tok",
                   "env": null, "file": true, "mode": 0o400, "uid": 0, "gid": 0,
                   "required": false}),
        ),
        (
            "type=secret,target=/root/.tok,required,mode=0444,uid=7",
            json!({"destination": "/root/.tok", "mount": "secret", "id": ".tok", "env": null,
                   "file": true, "mode": 0o444, "uid": 7, "gid": 0, "required": true}),
        ),
        (
            "type=secret,id=tok,env=TOK",
            json!({"destination": "/run/secrets/tok", "mount": "secret", "id": "tok",
                   "env": "TOK", "file": false, "mode": 0o400, "uid": 0, "gid": 0,
                   "required": false}),
        ),
        (
            "type=secret,id=tok,env=TOK,target=/t",
            json!({"destination": "/t", "mount": "secret", "id": "tok", "env": "TOK",
                   "file": true, "mode": 0o400, "uid": 0, "gid": 0, "required": false}),
        ),
        (
            "type=secret,id=tok,target=rel/./tok",
            json!({"destination": "/w/rel/tok", "mount": "secret", "id": "tok", "env": null,
                   "file": true, "mode": 0o400, "uid": 0, "gid": 0, "required": false}),
        ),
        (
            "type=ssh",
            json!({"destination": "/run/buildkit/ssh_agent.0", "mount": "ssh", "id": "default",
                   "mode": 0o600, "uid": 0, "gid": 0, "required": false}),
        ),
        (
            "type=ssh,id=k,target=/s,required=true",
            json!({"destination": "/s", "mount": "ssh", "id": "k", "mode": 0o600, "uid": 0,
                   "gid": 0, "required": true}),
        ),
    ];
    for (mount, want) in table {
        let plan = plan(&format!("FROM busybox\nENV I=ident\nWORKDIR /w\nRUN --mount={mount} x\n"));
        let exec = execs(&plan)[0];
        assert_eq!(serde_json::to_value(&exec.mounts).unwrap(), json!([want]), "{mount}");
        let socket = exec.env.iter().find(|(n, _)| n == "SSH_AUTH_SOCK").map(|(_, v)| v.as_str());
        assert_eq!(socket, mount.contains("ssh").then(|| want["destination"].as_str().unwrap()));
    }
}

#[test]
fn secrets_are_masked_in_names() {
    let plan = plan("FROM busybox\nENV T=plain\nRUN --mount=type=secret,id=t,env=T echo $T $U\n");
    assert!(plan.steps[1].name.ends_with("echo **** $U"), "{}", plan.steps[1].name);
}

#[test]
fn scripts_are_mounted_and_other_heredocs_go_to_the_shell() {
    let table = [
        ("RUN <<E\nmake\nE", json!(["/bin/sh", "-c", "make\n"]), None),
        ("RUN <<-E\n\tmake\n\tE", json!(["/bin/sh", "-c", "make\n"]), None),
        (
            "RUN <<E\n#!/bin/a\nx\nE",
            json!(["/bin/sh", "-c", "/dev/pipes/E"]),
            Some("#!/bin/a\nx\n"),
        ),
        ("RUN a <<E b\nx\nE", json!(["/bin/sh", "-c", "a <<E b\nx\nE"]), None),
        (
            "RUN a <<E <<'F'\nx\nE\n$y\nF",
            json!(["/bin/sh", "-c", "a <<E <<'F'\nx\nE\n$y\nF"]),
            None,
        ),
        ("RUN [\"a\", \"<<E\"]", json!(["a", "<<E"]), None),
        ("RUN echo '<<E'", json!(["/bin/sh", "-c", "echo '<<E'"]), None),
    ];
    for (text, args, script) in table {
        let plan = plan(&format!("FROM busybox\n{text}\n"));
        let exec = execs(&plan)[0];
        assert_eq!(serde_json::to_value(&exec.args).unwrap(), args, "{text}");
        let data = plan.graph.nodes().iter().find_map(|n| match &n.op {
            Op::File { actions } => match actions.as_slice() {
                [FileAction::Mkfile { data, mode: 0o755, .. }] => Some(data.as_slice()),
                _ => None,
            },
            _ => None,
        });
        assert_eq!(data, script.map(str::as_bytes), "{text}");
        assert_eq!(exec.mounts.len(), usize::from(script.is_some()));
    }
    let summary = plan("FROM busybox\nRUN <<E\nmake\nall\nE\n").steps.pop().unwrap();
    assert_eq!(summary.name, "[2/2] RUN <<E (make...)");
}

#[test]
fn copies_say_what_and_where() {
    let table = [
        (
            "COPY a /b",
            json!([{"action": "copy", "input": 1, "sources": ["/a"], "destination": "/b"}]),
        ),
        (
            "WORKDIR /w\nCOPY a* ../x/ d/",
            json!([{"action": "copy", "input": 1, "sources": ["/a*", "/x"],
                    "destination": "/w/d/"}]),
        ),
        (
            "COPY a b /c",
            json!([{"action": "copy", "input": 1, "sources": ["/a"], "destination": "/c"},
                   {"action": "copy", "input": 1, "sources": ["/b"], "destination": "/c"}]),
        ),
        (
            "COPY --chown=1:www --chmod=u+x --exclude=*.o --exclude=x a .",
            json!([{"action": "copy", "input": 1, "sources": ["/a"], "destination": "/",
                    "owner": {"user": {"id": 1}, "group": {"name": "www"}},
                    "mode": {"symbolic": "u+x"}, "exclude": ["*.o", "x"]}]),
        ),
        (
            "COPY --parents a/./b/*.c x /d/",
            json!([{"action": "copy", "input": 1, "sources": ["/a/./b/*.c", "/x"],
                    "destination": "/d/", "parents": true}]),
        ),
        (
            "COPY [\"a b\", \"c/\"]",
            json!([{"action": "copy", "input": 1, "sources": ["/a b"], "destination": "/c/"}]),
        ),
        (
            "COPY <<E /x\n$HOME-it's\nE",
            json!([{"action": "copy", "input": 1, "sources": ["/E"], "destination": "/x",
                    "literal": true}]),
        ),
        (
            "ADD a.tar /b",
            json!([{"action": "copy", "input": 1, "sources": ["/a.tar"], "destination": "/b",
                    "unpack": true}]),
        ),
        (
            "ADD --unpack=false a.tar /b",
            json!([{"action": "copy", "input": 1, "sources": ["/a.tar"], "destination": "/b"}]),
        ),
        (
            "ADD --chmod=755 http://h/p/f%20g.tgz?q=1 /b/",
            json!([{"action": "copy", "input": 1, "sources": ["/f g.tgz"], "destination": "/b/",
                    "mode": {"bits": 0o755}, "literal": true}]),
        ),
        (
            "ADD --unpack http://h/ x https://g/r.git /b/",
            json!([{"action": "copy", "input": 1, "sources": ["/__unnamed__"],
                    "destination": "/b/", "literal": true, "unpack": true},
                   {"action": "copy", "input": 2, "sources": ["/x"], "destination": "/b/",
                    "unpack": true},
                   {"action": "copy", "input": 3, "sources": ["/"], "destination": "/b/",
                    "literal": true}]),
        ),
        (
            "USER me\nWORKDIR /w",
            json!([{"action": "mkdir", "path": "/w", "mode": 0o755, "parents": true,
                    "owner": {"user": {"name": "me"}}}]),
        ),
    ];
    for (text, want) in table {
        assert_eq!(actions(text), want, "{text}");
    }
}

#[test]
fn remote_sources_are_operations() {
    let sum = format!("sha256:{}", "ab".repeat(32));
    let commit = "c".repeat(40);
    let table = [
        (
            format!("ADD --checksum={sum} https://h/f /x"),
            json!({"op": "http", "url": "https://h/f", "checksum": sum, "filename": "f"}),
        ),
        (
            "ADD https://h/a/b.git#v1:sub/../dir /x".into(),
            json!({"op": "git", "remote": "https://h/a/b.git", "reference": "v1", "checksum": null,
                   "subdir": "dir", "keep_git_dir": false, "submodules": true}),
        ),
        (
            format!("ADD --keep-git-dir --checksum={commit} git@h:a/b.git /x"),
            json!({"op": "git", "remote": "git@h:a/b.git", "reference": "", "checksum": commit,
                   "subdir": "", "keep_git_dir": true, "submodules": true}),
        ),
        (
            "ADD https://h/b.git?branch=main&subdir=d&submodules=false&keep-git-dir /x".into(),
            json!({"op": "git", "remote": "https://h/b.git", "reference": "refs/heads/main",
                   "checksum": null, "subdir": "d", "keep_git_dir": true, "submodules": false}),
        ),
        (
            "ADD git://h/b?tag=v1 /x".into(),
            json!({"op": "git", "remote": "git://h/b", "reference": "refs/tags/v1",
                   "checksum": null, "subdir": "", "keep_git_dir": false, "submodules": true}),
        ),
    ];
    for (text, want) in table {
        let plan = plan(&format!("FROM scratch\n{text}\n"));
        let remote =
            plan.graph.nodes().iter().find(|n| matches!(n.op, Op::Git { .. } | Op::Http { .. }));
        assert_eq!(serde_json::to_value(&remote.unwrap().op).unwrap(), want, "{text}");
    }
}

#[test]
fn links_are_made_on_the_empty_tree() {
    let linked = plan("FROM busybox\nCOPY --link a /b\n");
    let merge = linked.graph.node(linked.target);
    assert_eq!(merge.op, Op::Merge);
    let [base, layer] = merge.inputs.as_slice() else { panic!("{merge:?}") };
    assert!(matches!(linked.graph.node(*base).op, Op::Image { .. }));
    let copy = linked.graph.node(*layer);
    assert_eq!(linked.graph.node(copy.inputs[0]).op, Op::Scratch);
    assert_eq!(linked.layer_nodes, [*layer]);
    assert!(copy.meta.counted && !merge.meta.counted);
    let with_mode = plan("FROM busybox\nCOPY --link --chmod=755 a /b\n");
    assert!(matches!(with_mode.graph.node(with_mode.target).op, Op::File { .. }));
}

#[test]
fn heredoc_files_hold_expanded_bodies() {
    let body = |text: &str| {
        let plan = plan(&format!("FROM busybox\nENV A=1\n{text}\n"));
        plan.graph.nodes().iter().find_map(|n| match &n.op {
            Op::File { actions } => match actions.as_slice() {
                [FileAction::Mkfile { data, .. }] => String::from_utf8(data.clone()).ok(),
                _ => None,
            },
            _ => None,
        })
    };
    let table = [
        ("COPY <<E /x\n$A ${A:-b} \\$A 'it' \"$A\"\nE", "1 1 $A 'it' \"1\"\n"),
        ("COPY <<'E' /x\n$A\nE", "$A\n"),
        ("COPY <<\"E\" /x\n$A\nE", "$A\n"),
        ("COPY <<-E /x\n\t\t$A\n\tE", "1\n"),
        ("COPY <<E /x\nE", ""),
        ("COPY <<E /x\n# no comment \\\nE", "# no comment \n"),
    ];
    for (text, want) in table {
        assert_eq!(body(text).as_deref(), Some(want), "{text}");
    }
}

#[test]
fn the_cache_can_be_bypassed() {
    let text = "FROM busybox AS a\nRUN x\nWORKDIR /w\nCOPY y z\nFROM a AS b\nRUN z\n";
    let bypasses = |no_cache: NoCache| -> Vec<Option<Bypass>> {
        let plan = with(text, |r| r.no_cache = no_cache);
        let counted = plan.graph.nodes().iter().filter(|n| n.meta.counted);
        counted.map(|n| n.meta.bypass).collect()
    };
    let (none, all) = (None, Some(Bypass::WholeBuild));
    assert_eq!(bypasses(NoCache::None), [none, none, none]);
    assert_eq!(bypasses(NoCache::All), [all, all, all]);
    let b = NoCache::Stages(BTreeSet::from(["B".to_owned()]));
    assert_eq!(bypasses(b), [none, none, Some(Bypass::Boundary)]);
}

#[test]
fn entitlements_open_network_and_security() {
    let text =
        "FROM busybox\nRUN --network=host --security=insecure x\nRUN --network=none y\nRUN z";
    let plan = with(text, |r| {
        r.allow = BTreeSet::from([Entitlement::NetworkHost, Entitlement::SecurityInsecure]);
        r.network = Network::Isolated;
    });
    let found: Vec<_> = execs(&plan).iter().map(|e| (e.network, e.security)).collect();
    let want = [
        (Network::Host, Security::Insecure),
        (Network::None, Security::Sandbox),
        (Network::Isolated, Security::Sandbox),
    ];
    assert_eq!(found, want);
}

#[test]
fn the_same_file_makes_the_same_nodes() {
    let one = plan("FROM busybox\nCOPY a /a\nRUN x\n");
    let two = plan(
        "# other\nfrom   busybox\ncopy \\\n  a /a\nENV Y=1\nFROM busybox AS s\nCOPY a /a\nRUN x\n",
    );
    assert_eq!(one.graph.node(one.target).digest, two.graph.node(two.target).digest);
}

#[test]
fn platform_and_labels_end_in_the_config() {
    let plan = with("FROM busybox\n", |r| {
        r.platform = Some("linux/arm64".parse().unwrap());
        r.labels.insert("l".into(), "v".into());
        r.source_date_epoch = Some(1);
    });
    assert_eq!(plan.config.architecture, "arm64");
    assert_eq!(plan.config.config.labels["l"], "v");
    assert_eq!(plan.config.created.as_deref(), Some("1970-01-01T00:00:01.000000000Z"));
    let platforms = "FROM --platform=$BUILDPLATFORM busybox AS b\nARG TARGETARCH BUILDARCH\nRUN x";
    let plan = with(platforms, |r| {
        r.platform = Some("linux/arm/v7".parse().unwrap());
        r.build_platform = "linux/amd64".parse().unwrap();
    });
    let Op::Image { platform, .. } = &plan.graph.nodes()[0].op else { panic!() };
    assert_eq!(platform.to_string(), "linux/amd64");
    let last = plan.config.history.last().unwrap().created_by.clone().unwrap();
    assert_eq!(last, "RUN |2 TARGETARCH=arm BUILDARCH=amd64 /bin/sh -c x # buildkit");
    assert_eq!(plan.config.variant.as_deref(), Some("v7"));
}
