//! Builds that are stopped, and daemons that go away.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use ashlar_buildkit::Address;
use ashlar_core::failure::FailureKind;
use ashlar_core::journal::{Event, Sink, StepOutcome};
use ashlar_sandbox::Cancel;
use rustix::process::{Pid, Signal, kill_process};

use crate::doors::Door;
use crate::own::OwnDaemon;
use crate::world::{Heard, STORES, World, daemon, fresh, registry};

/// How long something may take that must come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "{what} did not come about");
        thread::yield_now();
        thread::sleep(Duration::from_millis(5));
    }
}

/// Stops a build when the test that waits for it fails: it would go on for as long as its step does.
struct StopOnPanic(Cancel);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.cancel();
        }
    }
}

/// Says whether a process has this text in its command line.
fn runs(text: &str) -> bool {
    !pids(text).is_empty()
}

/// Returns the processes with this text in their command lines.
fn pids(text: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let has = |e: &std::fs::DirEntry| {
        let line = std::fs::read(e.path().join("cmdline")).unwrap_or_default();
        line.windows(text.len()).any(|w| w == text.as_bytes())
    };
    let pid = |e: std::fs::DirEntry| Pid::from_raw(e.file_name().to_str()?.parse().ok()?);
    entries.filter(has).filter_map(pid).collect()
}

/// Tells when a line is said.
struct Waits {
    heard: std::sync::Arc<Heard>,
    line: String,
    said: std::sync::Mutex<std::sync::mpsc::Sender<()>>,
}

impl Sink for Waits {
    fn event(&self, event: Event) {
        let is_it = matches!(&event, Event::Log(l) if l.text == self.line);
        self.heard.event(event);
        if is_it {
            // Only the first time has a listener.
            let _ = self.said.lock().unwrap().send(());
        }
    }
}

fn wait_for(world: &mut World, line: &str) -> Receiver<()> {
    let (said, waits) = channel();
    let (heard, said) = (world.heard.clone(), std::sync::Mutex::new(said));
    world.build.sink = std::sync::Arc::new(Waits { heard, line: line.into(), said });
    waits
}

#[test]
fn a_stop_reaches_the_process_of_the_step() {
    for store in STORES {
        let mut world = World::on(store);
        let seconds = format!("1{}", std::process::id());
        let text = format!(
            "FROM {}/library/busybox\nRUN echo {} is up; echo up; exec sleep {seconds}\n",
            registry(),
            fresh()
        );
        let up = wait_for(&mut world, "up");
        let needle = format!("sleep\0{seconds}\0");
        let cancel = world.cancel.clone();
        let result = thread::scope(|scope| {
            let _stops = StopOnPanic(cancel.clone());
            let building = scope.spawn(|| world.try_build(&text));
            up.recv_timeout(PATIENCE).unwrap();
            wait_until("the sleep", || runs(&needle));
            cancel.cancel();
            building.join().unwrap()
        });
        assert!(result.is_err());
        wait_until("the end of the sleep", || !runs(&needle));
        assert!(world.heard.outcomes().values().any(|o| *o == StepOutcome::Cancelled));
    }
}

#[test]
fn a_daemon_that_is_lost_in_the_middle_is_replaced_by_another() {
    let door = Door::to(&daemon("store"));
    let mut world = World::with(vec![door.address(), daemon("classic")]);
    world.come_to(&door.address());
    let seconds = format!("2{}", std::process::id());
    // Only on the first daemon is there somebody who waits.
    let text = format!(
        "FROM {}/library/busybox\nRUN echo {} >/m; echo up; sleep {seconds} || true\nRUN echo on\n",
        registry(),
        fresh()
    );
    let up = wait_for(&mut world, "up");
    let needle = format!("sleep\0{seconds}\0");
    let cancel = world.cancel.clone();
    let made = thread::scope(|scope| {
        let _stops = StopOnPanic(cancel);
        let building = scope.spawn(|| world.try_build(&text));
        up.recv_timeout(PATIENCE).unwrap();
        wait_until("the sleep", || runs(&needle));
        door.close();
        wait_until("the end of the sleep", || !runs(&needle));
        // The second daemon runs the step too; its sleep ends by a signal.
        wait_until("the second sleep", || runs(&needle));
        end_processes(&needle);
        building.join().unwrap()
    });
    let made = made.unwrap_or_else(|f| panic!("{f:?}\n{:#?}", world.heard.all()));
    assert_eq!(made.daemon, daemon("classic"));
    let lines = world.heard.lines();
    assert!(lines.iter().any(|l| l.starts_with("BuildKit daemon 1 was lost")), "{lines:?}");
    let begun = |e: &&Event| matches!(e, Event::StepStarted { .. });
    assert_eq!(world.heard.all().iter().filter(begun).count(), 3, "each step begins once");
    // The next build of the same thing goes to the daemon that has its cache.
    world.build.sink = world.heard.clone();
    assert_eq!(world.try_build(&text).unwrap().daemon, daemon("classic"));
}

#[test]
fn a_daemon_that_is_told_to_end_leaves_no_outcome_behind() {
    let own = OwnDaemon::start();
    let mut world = World::with(vec![own.socket(), daemon("classic")]);
    world.come_to(&own.socket());
    let seconds = format!("4{}", std::process::id());
    let text = format!(
        "FROM {}/library/busybox\nRUN echo {} >/m; echo up; sleep {seconds} || true\nRUN echo on\n",
        registry(),
        fresh()
    );
    let up = wait_for(&mut world, "up");
    let needle = format!("sleep\0{seconds}\0");
    let cancel = world.cancel.clone();
    let made = thread::scope(|scope| {
        let _stops = StopOnPanic(cancel);
        let building = scope.spawn(|| world.try_build(&text));
        up.recv_timeout(PATIENCE).unwrap();
        wait_until("the sleep", || runs(&needle));
        let first = pids(&needle);
        own.terminate();
        // What a daemon was doing when it ended may go on.
        wait_until("the second sleep", || pids(&needle).iter().any(|pid| !first.contains(pid)));
        end_processes(&needle);
        building.join().unwrap()
    });
    let made = made.unwrap_or_else(|f| panic!("{f:?}\n{:#?}", world.heard.all()));
    assert_eq!(made.daemon, daemon("classic"));
    let outcomes = world.heard.outcomes();
    let good = |o: &StepOutcome| matches!(o, StepOutcome::Ran | StepOutcome::Cached);
    assert!(outcomes.len() == 3 && outcomes.values().all(good), "{outcomes:?}");
    // 'on' is the second daemon's only; 'up' was told by both, with a line between that says so.
    let lines = world.heard.lines();
    let at = |text: &str| lines.iter().filter(|l| l.contains(text)).count();
    assert_eq!(
        (at("begins again"), lines.iter().filter(|l| *l == "up").count()),
        (1, 2),
        "{lines:?}"
    );
}

#[test]
fn a_daemon_that_is_told_to_end_while_it_pulls_is_lost() {
    let own = OwnDaemon::start();
    let world = World::with(vec![own.socket()]);
    // A registry that takes requests and answers none.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!("FROM {}/library/busybox\n", silent.local_addr().unwrap());
    let cancel = world.cancel.clone();
    let failure = thread::scope(|scope| {
        let _stops = StopOnPanic(cancel);
        let building = scope.spawn(|| world.try_build(&text).unwrap_err());
        let _asked = silent.accept().unwrap();
        own.terminate();
        building.join().unwrap()
    });
    assert_eq!(failure.kind, FailureKind::Interrupted, "{failure:?}");
}

/// Ends all processes with this text in their command lines: those of a step of this test.
fn end_processes(text: &str) {
    for pid in pids(text) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[test]
fn with_no_daemon_left_the_failure_is_not_the_users() {
    let gone: Address = "/nowhere/docker.sock".parse().unwrap();
    let closed: Address = "tcp://127.0.0.1:1".parse().unwrap();
    let world = World::with(vec![gone, closed]);
    let failure = world.try_build("FROM scratch\n").unwrap_err();
    assert_eq!(failure.kind, FailureKind::Interrupted);
    assert!(!failure.kind.is_users());
    for says in ["daemon 1: nothing answers", "daemon 2: nothing answers"] {
        assert!(failure.message.contains(says), "{}", failure.message);
    }
}
