//! What steps get: mounts, secrets, users, limits, background processes; and how they end.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ashlar_core::failure::FailureKind;
use ashlar_core::frontend::{Plan, Step};
use ashlar_core::graph::{
    Background, Exec, ExtraHost, Graph, Network, Node, NodeMeta, Op, Probe, ProbeKind, ReturnFile,
    StepId,
};
use ashlar_core::image::ImageConfig;
use ashlar_core::journal::Event;
use ashlar_frontend_dockerfile::Request;
use ashlar_native::{RegistryLogin, Shown};
use ashlar_sandbox::Cancel;
use support::{Done, NotDone, Ready, World};

fn logged(events: &[Event]) -> Vec<&str> {
    let lines = events.iter().filter_map(|e| match e {
        Event::Log(line) => Some(line.text.as_str()),
        _ => None,
    });
    lines.collect()
}

fn build_secret(world: &World, dockerfile: &str, value: &str) -> Result<Done, NotDone> {
    let mut request = world.request(Request::text(dockerfile));
    request.secrets = BTreeMap::from([("token".to_owned(), value.as_bytes().to_vec())]);
    world.run(request, &Cancel::new().unwrap())
}

#[test]
fn a_secret_reaches_its_step_and_nothing_else() {
    let world = World::new();
    let dockerfile = "FROM base\n\
        RUN --mount=type=secret,id=token cat /run/secrets/token\n\
        RUN --mount=type=secret,id=token,env=TOKEN printf 'hun' >&2; printf 'x%s\\n' \"$TOKEN\"; echo ${#TOKEN} >/length\n\
        RUN test ! -e /run/secrets/token\n";
    let done = build_secret(&world, dockerfile, "hunter2-secret").unwrap();
    assert_eq!(world.read(&done.built, "/length"), "14\n");
    assert!(logged(&done.events).contains(&"***"), "{:?}", logged(&done.events));
    assert!(logged(&done.events).contains(&"x***"));
    assert!(!format!("{:?}", done.events).contains("hunter2-secret"));
    let found = support::needle(world.data(), b"hunter2-secret");
    assert!(found.is_empty(), "{found:?}");
    // Another value is the same step: values are in no key.
    assert!(build_secret(&world, dockerfile, "other-secret-22").unwrap().built.from_cache);
}

#[test]
fn what_was_made_without_a_secret_does_not_stand_for_what_needs_it() {
    let world = World::new();
    let may = "FROM base\nRUN --mount=type=secret,id=token cat /run/secrets/token >/got || true\n";
    let without = world.build(may).unwrap();
    assert_eq!(world.read(&without.built, "/got"), "");
    let with = build_secret(&world, may, "hunter2-secret").unwrap();
    assert_eq!(world.read(&with.built, "/got"), "hunter2-secret");
    assert_eq!(with.reasons().len(), 1, "{:?}", with.events);
    let why = "what is mounted at /run/secrets/token";
    assert!(with.reasons()[0].contains(why), "{:?}", with.reasons());
    assert!(world.build(may).unwrap().built.from_cache);

    let must = "FROM base\nRUN --mount=type=secret,id=token,required=true true\n";
    build_secret(&world, must, "hunter2-secret").unwrap();
    let failed = world.build(must).unwrap_err().failure;
    assert!(failed.message.contains("requires the secret 'token'"), "{failed}");
    // One that no step mounts is nothing to anybody.
    world.build("FROM base\nRUN true\n").unwrap();
    let other = build_secret(&world, "FROM base\nRUN true\n", "hunter2-secret").unwrap();
    assert!(other.built.from_cache);
}

#[test]
fn what_was_made_without_an_agent_does_not_stand_for_what_has_one() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let agent = dir.path().join("agent");
    fake_agent(&agent);
    let dockerfile =
        "FROM base\nRUN --mount=type=ssh test -S \"$SSH_AUTH_SOCK\" && touch /has || true\n";
    let without = world.build(dockerfile).unwrap();
    assert!(world.try_read(&without.built, "/has").is_none());
    let with = with_agent(&world, dockerfile, &agent).unwrap();
    assert!(world.try_read(&with.built, "/has").is_some());
}

#[test]
fn logs_show_neither_hidden_variables_nor_passwords() {
    let world = World::new();
    let value = "value of nobody else";
    let stand_in = world.engine.hidden("local", "API_KEY", value);
    let mut dockerfile =
        Request::text("FROM base\nRUN env && printf 'login-%s\\n' \"$((40 + 2))\" >&2\n");
    dockerfile.build_envs = vec![("API_KEY".into(), stand_in.clone())];
    let mut request = world.request(dockerfile);
    request.hidden = BTreeMap::from([(stand_in, value.to_owned())]);
    let login = RegistryLogin { username: "ci".into(), password: "login-42".into() };
    request.credentials = BTreeMap::from([("registry.example".to_owned(), login)]);
    let done = world.run(request, &Cancel::new().unwrap()).unwrap();
    let lines = logged(&done.events);
    assert!(lines.contains(&"API_KEY=***") && lines.contains(&"***"), "{lines:?}");
    let all = format!("{:?}", done.events);
    assert!(!all.contains(value) && !all.contains("login-42"), "{all}");
}

#[test]
fn ordinary_values_of_variables_stay_in_logs() {
    let world = World::new();
    let values = [("CI", "true"), ("MODE", "test"), ("OUT", "/srv/application")];
    let hidden =
        values.map(|(name, value)| (name, world.engine.hidden("local", name, value), value));
    let mut dockerfile =
        Request::text("FROM base\nRUN echo \"tests: $CI; $MODE\"s; echo /srv/application: $OUT\n");
    dockerfile.build_envs =
        hidden.iter().map(|(n, stand_in, _)| ((*n).to_owned(), stand_in.clone())).collect();
    let mut request = world.request(dockerfile);
    request.hidden =
        hidden.into_iter().map(|(_, stand_in, value)| (stand_in, value.to_owned())).collect();
    let done = world.run(request, &Cancel::new().unwrap()).unwrap();
    let lines = logged(&done.events);
    assert!(lines.contains(&"tests: true; tests"), "{lines:?}");
    assert!(lines.contains(&"/srv/application: /srv/application"), "{lines:?}");
}

#[test]
fn a_required_secret_that_is_missing_says_how_to_pass_it() {
    let world = World::new();
    let dockerfile = "FROM base\nRUN --mount=type=secret,id=nope,required=true true\n";
    let failed = world.build(dockerfile).unwrap_err().failure;
    assert_eq!(failed.kind, FailureKind::Step);
    assert!(failed.hint.unwrap().contains("--secret id=nope"));
}

#[test]
fn cache_mounts_live_on_and_enter_no_key() {
    let world = World::new();
    let step = |n: u32| {
        format!(
            "FROM base\nRUN --mount=type=cache,target=/cache echo {n} >>/cache/log; cp /cache/log /seen\n"
        )
    };
    world.build(&step(1)).unwrap();
    let second = world.build(&step(2)).unwrap();
    assert_eq!(world.read(&second.built, "/seen"), "1\n2\n");
    assert!(world.build(&step(1)).unwrap().built.from_cache);
    let mounts = world.engine.cache_mounts().list().unwrap();
    assert_eq!(mounts[0].0.id, "/cache");
    assert!(world.try_read(&second.built, "/cache/log").is_none());
}

#[test]
fn binds_show_contexts_and_stages_without_excluded_files() {
    let world = World::new();
    world.file("src/a", "A");
    world.file("src/b", "B");
    world.file(".dockerignore", "src/b\n");
    let dockerfile = "FROM base AS made\nRUN echo made >/made\nFROM base\n\
        RUN --mount=type=bind,target=/src ls /src/src >/list; ! touch /src/x\n\
        RUN --mount=type=bind,from=made,source=/made,target=/m cp /m /copy\n\
        RUN --mount=type=bind,target=/src,rw touch /src/x && ls /src >/list2\n";
    let done = world.build(dockerfile).unwrap();
    assert_eq!(world.read(&done.built, "/list"), "a\n");
    assert_eq!(world.read(&done.built, "/copy"), "made\n");
    assert!(world.read(&done.built, "/list2").contains('x'));
    assert!(!world.context.path().join("x").exists());
    assert!(world.try_read(&done.built, "/src/src/a").is_none());
    // A file that no bind shows changes nothing.
    world.file("src/b", "other");
    assert!(world.build(dockerfile).unwrap().built.from_cache);
    world.file("src/a", "other");
    assert!(!world.build(dockerfile).unwrap().built.from_cache);
}

#[test]
fn steps_run_as_their_user_with_its_home() {
    let world = World::new();
    let dockerfile =
        "FROM base\nUSER user\nWORKDIR /tmp\nRUN id -u >id; echo $HOME >home; pwd >dir\n";
    let done = world.build(dockerfile).unwrap();
    assert_eq!(world.read(&done.built, "/tmp/id"), "1000\n");
    assert_eq!(world.read(&done.built, "/tmp/home"), "/\n");
    assert_eq!(world.read(&done.built, "/tmp/dir"), "/tmp\n");
    let done = world.build("FROM base\nUSER 12:34\nRUN id -G >/tmp/groups\n").unwrap();
    assert_eq!(world.read(&done.built, "/tmp/groups"), "34\n");
    let unknown = world.build("FROM base\nUSER nobody-here\nRUN true\n").unwrap_err().failure;
    assert!(unknown.message.contains("nobody-here"), "{unknown}");
}

#[test]
fn an_owner_that_the_tree_lacks_is_root_and_said() {
    let world = World::new();
    world.file("f", "x");
    let done = world.build("FROM base\nCOPY --chown=ghost f /f\nRUN stat -c %u /f >/u\n").unwrap();
    assert_eq!(world.read(&done.built, "/u"), "0\n");
    let said = logged(&done.events);
    assert!(said.iter().any(|line| line.contains("no 'ghost'")), "{said:?}");
}

#[test]
fn cancel_ends_the_whole_tree_at_once() {
    let world = World::new();
    let marker = format!("{}", 600_000 + std::process::id());
    let dockerfile = format!("FROM base\nRUN (sleep {marker} & sleep {marker}) ; sleep {marker}\n");
    let cancel = Cancel::new().unwrap();
    let request = world.request(Request::text(dockerfile));
    std::thread::scope(|scope| {
        let build = scope.spawn(|| world.run(request, &cancel));
        while support::processes_with(&marker) < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        cancel.cancel();
        assert!(build.join().unwrap().is_err());
        assert_eq!(support::processes_with(&marker), 0);
    });
}

#[test]
fn a_limit_that_is_hit_is_named_and_costs_only_its_build() {
    let world = World::new();
    let mut request = world.request(Request::text("FROM base\nRUN sleep 600\n"));
    request.limits.timeout = Some(Duration::from_millis(300));
    let failed = world.run(request, &Cancel::new().unwrap()).unwrap_err().failure;
    assert_eq!((failed.kind, failed.limit.as_deref()), (FailureKind::Limit, Some("timeout")));

    let mut request = world.request(Request::text("FROM base\nRUN yes\n"));
    request.limits.output_bytes = Some(100_000);
    let failed = world.run(request, &Cancel::new().unwrap()).unwrap_err().failure;
    assert_eq!((failed.kind, failed.limit.as_deref()), (FailureKind::Limit, Some("output")));

    let mut request = world.request(Request::text("FROM base\nRUN tail -c 300000000 /dev/zero\n"));
    request.limits.memory_bytes = Some(64 << 20);
    let failed = world.run(request, &Cancel::new().unwrap()).unwrap_err().failure;
    assert_eq!((failed.kind, failed.limit.as_deref()), (FailureKind::Limit, Some("memory")));
    world.build("FROM base\nRUN echo fine\n").unwrap();
}

#[test]
fn a_process_that_the_memory_limit_killed_is_told_when_its_step_ends_well() {
    let world = World::new();
    let dockerfile = "FROM base\nRUN tail -c 300000000 /dev/zero | wc -c; true\n";
    let mut request = world.request(Request::text(dockerfile));
    request.limits.memory_bytes = Some(64 << 20);
    let ran = world.run(request, &Cancel::new().unwrap());
    // Where the kernel can kill the whole group, such a step fails.
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert_eq!(ran.unwrap_err().failure.limit.as_deref(), Some("memory"));
        return;
    }
    let done = ran.unwrap();
    let told = |line: &&str| line.contains("was killed: memory limit of 67108864 bytes");
    assert_eq!(logged(&done.events).iter().filter(|l| told(l)).count(), 1, "{:?}", done.events);
}

#[test]
fn what_two_builds_want_at_once_runs_once() {
    let world = World::new();
    let dockerfile = "FROM base\nRUN --mount=type=cache,target=/c echo run >>/c/log; sleep 0.5; cp /c/log /log\n";
    let done: Vec<Done> = std::thread::scope(|scope| {
        let builds: Vec<_> =
            (0..3).map(|_| scope.spawn(|| world.build(dockerfile).unwrap())).collect();
        builds.into_iter().map(|b| b.join().unwrap()).collect()
    });
    for one in &done {
        assert_eq!(world.read(&one.built, "/log"), "run\n");
    }
}

#[test]
fn a_killed_builder_leaves_a_store_that_works_on() {
    let world = World::new();
    let draft = world.engine.snapshots().begin(&ashlar_snapshots::Tree::scratch()).unwrap();
    let left = draft.upper().to_owned();
    // A killed process drops nothing: its lock goes, its files stay.
    std::mem::forget(draft);
    std::fs::remove_file(world.data().join("verified")).unwrap();
    world.build("FROM base\nRUN echo a >/a\n").unwrap();
    assert!(left.exists());
    let again = world.reopen();
    let built = again.build("FROM base\nRUN echo a >/a\n").unwrap();
    assert!(built.built.from_cache);
}

#[test]
fn twenty_stages_run_side_by_side() {
    let world = World::new();
    let mut dockerfile = String::new();
    for i in 0..20 {
        dockerfile += &format!("FROM base AS s{i}\nRUN sleep 0.3; echo {i} >/{i}\n");
    }
    dockerfile += "FROM base\n";
    for i in 0..20 {
        dockerfile += &format!("COPY --from=s{i} /{i} /\n");
    }
    let began = Instant::now();
    let done = world.build(&dockerfile).unwrap();
    assert_eq!(world.read(&done.built, "/19"), "19\n");
    // One after another they would sleep for 6 s; this asks only that they overlapped at all.
    assert!(began.elapsed() < Duration::from_secs(6));
}

fn run_exec(world: &World, exec: Exec) -> Result<Done, NotDone> {
    run_exec_granted(world, exec, BTreeSet::new())
}

fn run_exec_granted(
    world: &World,
    exec: Exec,
    entitlements: BTreeSet<String>,
) -> Result<Done, NotDone> {
    let base = world.base_op();
    let mut graph = Graph::new();
    let input = graph.add(base, vec![], NodeMeta::default()).unwrap();
    let meta = NodeMeta {
        name: "[1/1] RUN".into(),
        step: Some(StepId(1)),
        counted: true,
        ..NodeMeta::default()
    };
    let target = graph.add(Op::Exec(Box::new(exec)), vec![input], meta).unwrap();
    let node: &Node = graph.node(target);
    let step =
        Step { id: StepId(1), name: node.meta.name.clone(), location: None, node: Some(target) };
    let plan = Plan {
        graph,
        target,
        config: ImageConfig::default(),
        layer_nodes: vec![],
        steps: vec![step],
        warnings: vec![],
    };
    let mut request = world.request(Request::text(""));
    request.frontend = Arc::new(Ready(plan));
    request.entitlements = entitlements;
    world.run(request, &Cancel::new().unwrap())
}

#[test]
fn the_hosts_own_address_is_refused_where_it_could_not_be_reached() {
    let world = World::new();
    let own = ExtraHost { host: "ci.test".into(), address: "host-gateway".into() };
    let exec = |network| Exec {
        extra_hosts: vec![own.clone()],
        network,
        ..shell("grep ci.test /etc/hosts >/seen || true")
    };
    let failure = run_exec(&world, exec(Network::Isolated)).unwrap_err().failure;
    assert!(failure.message.contains("cannot reach the host as 'ci.test'"), "{failure}");
    assert!(failure.hint.unwrap().contains("--network host --allow network.host"));
    let none = run_exec(&world, exec(Network::None)).unwrap();
    assert_eq!(world.read(&none.built, "/seen"), "");
    let granted = ["network.host".to_owned()].into();
    let host = run_exec_granted(&world, exec(Network::Host), granted).unwrap();
    let seen = world.read(&host.built, "/seen");
    assert!(seen.starts_with("127.0.0.1") && seen.contains("ci.test"), "{seen}");
}

fn shell(command: &str) -> Exec {
    Exec {
        args: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
        env: vec![("PATH".into(), "/bin".into())],
        cwd: "/".into(),
        ..Exec::default()
    }
}

fn server(kind: ProbeKind) -> Exec {
    let args = ["/bin/sh", "-c", "mkdir /www; echo up >/www/ok; exec httpd -f -p 8080 -h /www"];
    let background = Background {
        name: "web".into(),
        args: args.map(str::to_owned).to_vec(),
        env: vec![],
        cwd: "/".into(),
        user: String::new(),
        probe: Some(Probe { kind, interval_ms: 20, grace_ms: 0, timeout_ms: 10_000 }),
    };
    let returns = ReturnFile {
        name: "answer".into(),
        path: "/answer".into(),
        bytes_max: 100,
        required: true,
    };
    Exec {
        background: vec![background],
        returns: vec![returns],
        ..shell("wget -q -O /answer http://127.0.0.1:8080/ok")
    }
}

#[test]
fn background_processes_are_probed_and_files_come_back_as_data() {
    let world = World::new();
    let probes = [
        ProbeKind::Tcp { port: 8080 },
        ProbeKind::Http { port: 8080, path: "/ok".into() },
        ProbeKind::Command { command: "test -e /www/ok && sleep 0.2".into() },
    ];
    for kind in probes {
        let done = run_exec(&world, server(kind.clone())).unwrap();
        assert_eq!(done.built.returned["answer"], b"up\n", "{kind:?}");
        let again = run_exec(&world, server(kind)).unwrap();
        assert_eq!(again.built.returned["answer"], b"up\n");
    }
}

#[test]
fn a_process_that_never_gets_ready_fails_the_step() {
    let world = World::new();
    let mut exec = server(ProbeKind::Tcp { port: 9 });
    exec.background[0].probe.as_mut().unwrap().timeout_ms = 200;
    let failed = run_exec(&world, exec).unwrap_err().failure;
    assert_eq!(failed.kind, FailureKind::Readiness);
    let mut exec = server(ProbeKind::Tcp { port: 9 });
    exec.background[0].args = ["/bin/sh", "-c", "echo dying; exit 3"].map(str::to_owned).to_vec();
    let failed = run_exec(&world, exec).unwrap_err();
    assert!(failed.failure.message.contains("ended before"), "{}", failed.failure);
    assert!(logged(&failed.events).contains(&"dying"));
}

#[test]
fn an_effect_is_never_cached_and_announces_itself() {
    let world = World::new();
    let exec = Exec { effect: true, ..shell("date +%N") };
    for _ in 0..2 {
        let done = run_exec(&world, exec.clone()).unwrap();
        let began = |e: &&Event| matches!(e, Event::EffectBegan { .. });
        assert_eq!(done.events.iter().filter(began).count(), 1);
        assert!(!done.built.from_cache);
        assert!(!done.events.iter().any(|e| matches!(e, Event::Cache(_))));
    }
}

#[test]
fn a_failed_step_can_be_looked_into() {
    let world = World::new();
    let dockerfile =
        "FROM base\nENV WORD=seen\nWORKDIR /dir\nUSER user\nRUN echo left >/tmp/left; exit 3\n";
    world.build(dockerfile).unwrap_err();
    let (failed, place) = world.engine.failed_steps().unwrap().remove(0);
    assert_eq!(failed.build, "b1");
    let args = ["/bin/sh", "-c", "cat /tmp/left; echo $WORD; pwd; id -u"].map(str::to_owned);
    for _ in 0..2 {
        let mut said = Vec::new();
        let mut take = |_: ashlar_sandbox::Stream, bytes: &[u8]| said.extend_from_slice(bytes);
        let io = ashlar_sandbox::Io::output(&mut take);
        let cancel = Cancel::new().unwrap();
        let exit = world.engine.debug(&failed, &place, &args, io, &cancel).unwrap();
        assert!(exit.success());
        assert_eq!(String::from_utf8(said).unwrap(), "left\nseen\n/dir\n1000\n");
    }
}

#[test]
fn a_failed_step_is_looked_into_with_its_mounts() {
    let world = World::new();
    world.file("context.txt", "from the context\n");
    let dockerfile = "FROM base AS tools\nRUN echo tool >/tool\nFROM base\n\
        RUN --mount=type=cache,target=/cache,sharing=locked \
        --mount=type=bind,from=tools,source=/tool,target=/stage \
        --mount=type=bind,target=/ctx,rw --mount=type=tmpfs,target=/mem \
        --mount=type=secret,id=key,target=/key --mount=type=ssh \
        echo kept >/cache/file; echo lost >/mem/file; exit 3\n";
    world.build(dockerfile).unwrap_err();
    let (failed, place) = world.engine.failed_steps().unwrap().remove(0);
    let absent = world.engine.absent_mounts(&failed);
    assert_eq!(absent.len(), 2, "{absent:?}");
    assert!(absent[0].contains("the secret 'key' at /key"), "{absent:?}");
    assert!(absent[1].contains("the ssh agent 'default'"), "{absent:?}");
    let look = |command: &str| {
        let mut said = Vec::new();
        let mut take = |_: ashlar_sandbox::Stream, bytes: &[u8]| said.extend_from_slice(bytes);
        let io = ashlar_sandbox::Io::output(&mut take);
        let args = ["/bin/sh", "-c", command].map(str::to_owned);
        let cancel = Cancel::new().unwrap();
        let exit = world.engine.debug(&failed, &place, &args, io, &cancel).unwrap();
        assert!(exit.success());
        String::from_utf8(said).unwrap()
    };
    let command = "cat /cache/file /stage /ctx/context.txt; ls /mem; echo x >/ctx/new; \
        echo more >>/cache/file; grep -c ' /mem tmpfs ' /proc/mounts";
    assert_eq!(look(command), "kept\ntool\nfrom the context\n1\n");
    assert_eq!(look("cat /cache/file; ls /ctx"), "kept\nmore\ncontext.txt\n");
    // The places of mounts are no more part of what the step left than they are of its layer.
    assert!(!place.join("fs/mem").exists() && !place.join("fs/cache").exists());

    // Without what was collected since.
    let tool = failed.mounts.iter().find_map(|m| match &m.shows {
        Shown::Tree { tree, .. } if m.target == "/stage" => tree.last().copied(),
        _ => None,
    });
    world.engine.snapshots().remove(&tool.unwrap()).unwrap();
    let absent = world.engine.absent_mounts(&failed);
    assert!(absent.iter().any(|a| a.contains("/stage, which were removed")), "{absent:?}");
    assert_eq!(look("test -e /stage || cat /cache/file"), "kept\nmore\n");
}

#[test]
fn privileges_must_be_granted() {
    let world = World::new();
    let exec = Exec { network: ashlar_core::graph::Network::Host, ..shell("true") };
    let failed = run_exec(&world, exec).unwrap_err().failure;
    assert!(failed.hint.unwrap().contains("--allow network.host"));
}

/// An agent that answers a line with `agent: ` and the line.
fn fake_agent(at: &std::path::Path) {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::os::unix::net::UnixListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            // The executor connects once to see that an agent is there, and says nothing.
            if BufReader::new(&stream).read_line(&mut line).unwrap() > 0 {
                write!(stream, "agent: {line}").unwrap();
            }
        }
    });
}

/// Puts a program into the context that sends a line to a Unix socket and prints the answer; busybox has none.
fn talker(world: &World) {
    const SOURCE: &str = r#"
        #include <stdio.h>
        #include <string.h>
        #include <sys/socket.h>
        #include <sys/un.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            struct sockaddr_un to = { .sun_family = AF_UNIX };
            char answer[100];
            ssize_t length;
            int s = socket(AF_UNIX, SOCK_STREAM, 0);
            strncpy(to.sun_path, argv[1], sizeof to.sun_path - 1);
            if (connect(s, (struct sockaddr *)&to, sizeof to)) { perror("connect"); return 1; }
            if (write(s, "hello\n", 6) != 6) return 2;
            while ((length = read(s, answer, sizeof answer)) > 0) fwrite(answer, 1, length, stdout);
            return 0;
        }"#;
    world.file("talk.c", SOURCE);
    let here = world.context.path();
    let made = std::process::Command::new("gcc")
        .args(["-static", "-o", "talk", "talk.c"])
        .current_dir(here)
        .status()
        .unwrap_or_else(|e| panic!("this test needs gcc: install gcc and libc6-dev ({e})"));
    assert!(made.success(), "this test needs a static libc: install the package libc6-dev");
}

fn with_agent(world: &World, dockerfile: &str, agent: &std::path::Path) -> Result<Done, NotDone> {
    let mut request = world.request(Request::text(dockerfile));
    request.ssh = BTreeMap::from([("default".to_owned(), agent.to_owned())]);
    world.run(request, &Cancel::new().unwrap())
}

#[test]
fn an_ssh_agent_is_reached_by_whom_its_mount_names() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let agent = dir.path().join("agent");
    fake_agent(&agent);
    talker(&world);
    let talk = "/talk $SSH_AUTH_SOCK";
    let dockerfile = format!(
        "FROM base\nCOPY talk /\n\
         RUN --mount=type=ssh {talk} >/tmp/root; test -S $SSH_AUTH_SOCK\n\
         USER user\n\
         RUN --mount=type=ssh,uid=1000,gid=1000,mode=0600 {talk} >/tmp/own\n\
         RUN --mount=type=ssh,mode=0666 {talk} >/tmp/anyone\n\
         RUN --mount=type=ssh {talk} >/tmp/refused 2>&1; test $? -ne 0\n"
    );
    let done = with_agent(&world, &dockerfile, &agent).unwrap();
    for file in ["/tmp/root", "/tmp/own", "/tmp/anyone"] {
        assert_eq!(world.read(&done.built, file), "agent: hello\n", "{file}");
    }
    let refused = world.read(&done.built, "/tmp/refused");
    assert!(refused.contains("Permission denied"), "{refused}");
    let scratch = std::fs::read_dir(world.engine.dir().scratch()).unwrap();
    assert_eq!(scratch.count(), 0, "the sockets are gone");
}

#[test]
fn an_agent_that_does_not_listen_is_named() {
    let world = World::new();
    let gone = std::path::Path::new("/nonexistent/agent");
    let dockerfile = "FROM base\nRUN --mount=type=ssh true\n";
    let failed = with_agent(&world, dockerfile, gone).unwrap_err().failure;
    assert_eq!(failed.kind, FailureKind::Step);
    assert!(failed.message.contains("ssh agent 'default'"), "{failed}");
    assert!(failed.hint.unwrap().contains("/nonexistent/agent"));
}
