//! Processes beside a command: when they count as ready, and what becomes of what they write.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::{Plan, Step};
use ashlar_core::graph::{Background, Exec, Graph, NodeMeta, Op, Probe, ProbeKind, StepId};
use ashlar_core::image::ImageConfig;
use ashlar_core::journal::{Event, Sink};
use ashlar_frontend_dockerfile::Request;
use ashlar_native::BuildRequest;
use ashlar_sandbox::Cancel;
use support::{Done, NotDone, Ready, World};

/// Far longer than anything here takes that goes well.
const LONG_MS: u64 = 120_000;

/// A process and, if need be, its probe; the command itself does nothing.
fn start(command: &str, probe: Option<Probe>) -> Exec {
    let args = |command: &str| ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
    let background = Background {
        name: "it".into(),
        args: args(command),
        env: vec![],
        cwd: "/".into(),
        user: String::new(),
        probe,
    };
    Exec {
        args: args(":"),
        env: vec![("PATH".into(), "/bin".into())],
        cwd: "/".into(),
        background: vec![background],
        ..Exec::default()
    }
}

fn probe(kind: ProbeKind, grace_ms: u64, timeout_ms: u64) -> Option<Probe> {
    Some(Probe { kind, interval_ms: 20, grace_ms, timeout_ms })
}

fn command(text: &str) -> ProbeKind {
    ProbeKind::Command { command: text.into() }
}

fn request(world: &World, exec: Exec) -> BuildRequest {
    let mut graph = Graph::new();
    let input = graph.add(world.base_op(), vec![], NodeMeta::default()).unwrap();
    let (id, name) = (StepId(1), "START".to_owned());
    let meta = NodeMeta { name: name.clone(), step: Some(id), ..NodeMeta::default() };
    let target = graph.add(Op::Exec(Box::new(exec)), vec![input], meta).unwrap();
    let steps = vec![Step { id, name, location: None, node: Some(target) }];
    let config = ImageConfig::default();
    let plan = Plan { graph, target, config, layer_nodes: vec![], steps, warnings: vec![] };
    let mut request = world.request(Request::text(""));
    request.frontend = Arc::new(Ready(plan));
    request
}

fn run(world: &World, exec: Exec) -> Result<Done, NotDone> {
    world.run(request(world, exec), &Cancel::new().unwrap())
}

fn fails(world: &World, exec: Exec) -> Failure {
    let failure = run(world, exec).unwrap_err().failure;
    assert_eq!(failure.kind, FailureKind::Readiness, "{failure}");
    failure
}

fn said(events: &[Event], text: &str) -> bool {
    events.iter().any(|e| matches!(e, Event::Log(line) if line.text == text))
}

#[test]
fn a_process_without_a_probe_has_begun_before_it_is_stopped() {
    let world = World::new();
    for round in 0..4 {
        let exec = start(&format!("echo hello {round}; touch /marker; sleep 600"), None);
        let done = run(&world, exec).unwrap();
        assert!(said(&done.events, &format!("hello {round}")), "{:?}", done.events);
        assert!(world.try_read(&done.built, "/marker").is_some());
    }
    // One that is done is not waited for any longer.
    let done = run(&world, start("touch /marker", None)).unwrap();
    assert!(world.try_read(&done.built, "/marker").is_some());
}

#[test]
fn a_process_that_cannot_start_is_not_ready() {
    let world = World::new();
    let failure = fails(&world, start("/no/such/server", None));
    assert!(failure.message.contains("exited with code 127"), "{failure}");
    assert_eq!(failure.exit_code, Some(127));
    let mut exec = start("", None);
    exec.background[0].args = vec!["/no/such/server".into()];
    assert_eq!(fails(&world, exec).exit_code, Some(127));
    let failure = fails(&world, start("exit 3", probe(ProbeKind::Elapsed, 0, LONG_MS)));
    assert!(failure.message.contains("exited with code 3"), "{failure}");
    let failure = fails(&world, start("kill -9 $$", probe(command("false"), 0, LONG_MS)));
    assert!(failure.message.contains("killed by signal 9"), "{failure}");
}

#[test]
fn a_server_that_left_its_parent_is_ready_when_it_answers() {
    let world = World::new();
    let web = "mkdir /www && echo up >/www/ok && httpd -p 8080 -h /www";
    run(&world, start(web, probe(ProbeKind::Tcp { port: 8080 }, 0, LONG_MS))).unwrap();
    // What it writes is passed on, and its end is nobody's.
    let forks = "(sleep 0.3; echo from below; touch /ready; sleep 600) & exit 0";
    let done = run(&world, start(forks, probe(command("test -e /ready"), 0, LONG_MS))).unwrap();
    assert!(said(&done.events, "from below"), "{:?}", done.events);
    run(&world, start("true", probe(ProbeKind::Elapsed, 0, 100))).unwrap();
}

#[test]
fn a_probe_ends_with_its_time() {
    let world = World::new();
    // Its success would come far too late.
    let failure = fails(&world, start("sleep 600", probe(command("sleep 300"), 0, 300)));
    assert!(failure.message.contains("not ready in 300 ms"), "{failure}");
    let mute = "nc -ll -p 8080 -e sleep 600";
    let http = ProbeKind::Http { port: 8080, path: "/".into() };
    fails(&world, start(mute, probe(http, 0, 300)));
}

#[test]
fn a_server_that_keeps_its_connections_open_is_ready() {
    let world = World::new();
    let answer = r"printf 'HTTP/1.1 204 No Content\r\n\r\n'; sleep 600";
    let keeps = format!("cat >/answer <<'EOF'\n{answer}\nEOF\nnc -ll -p 8080 -e sh /answer");
    let http = ProbeKind::Http { port: 8080, path: "/".into() };
    run(&world, start(&keeps, probe(http, 0, LONG_MS))).unwrap();
}

#[test]
fn the_time_of_a_probe_begins_when_the_grace_is_over() {
    let world = World::new();
    run(&world, start("sleep 600", probe(command("true"), 600, 500))).unwrap();
}

/// Hands on what is logged as it comes.
struct Live(Mutex<Sender<String>>);

impl Sink for Live {
    fn event(&self, event: Event) {
        if let Event::Log(line) = event {
            // Nobody may listen any more.
            let _ = self.0.lock().unwrap().send(line.text);
        }
    }
}

fn heard(lines: &Receiver<String>, text: &str) {
    let wait = Duration::from_millis(LONG_MS);
    while lines.recv_timeout(wait).expect("it was not heard while it ran") != text {}
}

#[test]
fn output_is_passed_on_while_a_probe_or_the_command_runs() {
    let world = World::new();
    // Neither ends before the test has heard what comes meanwhile.
    let mut exec = start(
        "echo begins; while ! test -e /said; do sleep 0.05; done; echo goes on; sleep 600",
        probe(command("touch /said; sleep 600"), 0, LONG_MS * 10),
    );
    for stage in ["probe", "command"] {
        let (send, lines) = channel();
        let mut request = request(&world, exec.clone());
        request.sink = Arc::new(Live(Mutex::new(send)));
        let cancel = Cancel::new().unwrap();
        std::thread::scope(|scope| {
            let build = scope.spawn(|| world.engine.build(request, &cancel));
            heard(&lines, "begins");
            heard(&lines, "goes on");
            cancel.cancel();
            assert!(build.join().unwrap().is_err(), "{stage}");
        });
        exec.background[0].probe = None;
        exec.args[2] = "touch /said; sleep 600".into();
    }
}
