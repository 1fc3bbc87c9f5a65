//! Builds that are stopped, and daemons that go away.

use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use ashlar_buildkit::Address;
use ashlar_core::failure::FailureKind;
use ashlar_core::journal::{Event, Sink, StepOutcome};

use crate::doors::Door;
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

/// Says whether a process has this text in its command line.
fn runs(text: &str) -> bool {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let line = |e: std::fs::DirEntry| std::fs::read(e.path().join("cmdline")).unwrap_or_default();
    entries.map(line).any(|l| l.windows(text.len()).any(|w| w == text.as_bytes()))
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
    let made = thread::scope(|scope| {
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

/// Ends all processes with this text in their command lines: those of a step of this test.
fn end_processes(text: &str) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let pid = entry.file_name().to_str().and_then(|n| n.parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw)
            && line.windows(text.len()).any(|w| w == text.as_bytes())
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
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
