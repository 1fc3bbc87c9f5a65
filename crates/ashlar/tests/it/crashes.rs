//! Builds that are stopped, politely or not.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::World;

const SLEEPS: &str = "FROM base\nRUN echo first >/first\nRUN echo now sleeping; sleep 600\n";

/// Starts a build and returns once its second step has spoken.
fn start(world: &World) -> Child {
    world.file("Dockerfile", SLEEPS);
    let mut command = world.command(&["build", "context", "--progress", "plain"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let said = lines.map_while(Result::ok).any(|l| l.ends_with("now sleeping"));
    assert!(said, "the build ended before its second step");
    child
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(sent.expect("install Debian's package procps").success());
}

fn wait(child: &mut Child, most: Duration) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if began.elapsed() > most {
            child.kill().unwrap();
            panic!("no end after {most:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The next build goes on from the last good layer.
fn goes_on(world: &World) {
    let next = world.build(&SLEEPS.replace("sleep 600", "true"), &["-t", "done"]).ok();
    assert!(next.err.contains("#2 CACHED"), "{}", next.err);
    world.run(&["images", "run", "done", "cat", "/first"]).ok();
}

#[test]
fn ctrl_c_ends_a_build_within_a_second() {
    let world = World::new();
    let mut child = start(&world);
    signal(&child, "INT");
    assert_eq!(wait(&mut child, Duration::from_secs(1)), Some(130));
    let last = world.run(&["builds", "show", "--json"]).ok().json().remove(0);
    assert_eq!(last["state"], "cancelled");
    goes_on(&world);
}

#[test]
fn a_build_is_cancelled_from_elsewhere() {
    let world = World::new();
    let mut child = start(&world);
    // The history of a new data directory may open more slowly than a step begins.
    while world.run(&["builds", "list", "--json"]).ok().json().is_empty() {
        assert_eq!(child.try_wait().unwrap(), None, "the build ended by itself");
    }
    let said = world.run(&["builds", "cancel", "latest"]).ok();
    assert!(said.err.contains("asked "), "{said:?}");
    assert_eq!(wait(&mut child, Duration::from_secs(1)), Some(130));
    let twice = world.run(&["builds", "cancel", "latest"]);
    assert!(twice.code == Some(1) && twice.err.contains("ended already"), "{twice:?}");
}

#[test]
fn ctrl_c_ends_an_export_and_leaves_nothing_half_written() {
    let world = World::new();
    // Large enough that it is still being written when it is stopped.
    let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8;
    let big: Vec<u8> = (0..160u32 << 20).map(noise).collect();
    std::fs::write(world.context().join("big"), big).unwrap();
    world.file("Dockerfile", "FROM base\nCOPY big /big\n");
    let output = "type=oci,dest=out/app.tar,compression=gzip,compression-level=9";
    std::fs::create_dir(world.path("out")).unwrap();
    let args = ["build", "context", "-q", "-o", output];
    let mut child = world.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    loop {
        let builds = world.run(&["builds", "list", "--json"]).ok().json();
        if builds.first().is_some_and(|b| b["state"] == "exporting") {
            break;
        }
        assert!(child.try_wait().unwrap().is_none(), "the build ended: {builds:?}");
    }
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let left: Vec<_> = std::fs::read_dir(world.path("out")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn after_a_kill_the_next_build_works() {
    let world = World::new();
    let mut child = start(&world);
    child.kill().unwrap();
    child.wait().unwrap();
    goes_on(&world);
    world.run(&["gc", "--keep", "0s"]).ok();
    world.run(&["images", "run", "done", "cat", "/first"]).ok();
}

#[test]
fn garbage_collection_spares_what_a_running_build_needs() {
    let world = World::new();
    let mut child = start(&world);
    let said = world.run(&["gc", "--keep", "0s", "--json"]).ok().json().remove(0);
    assert_eq!(said["removed"], serde_json::json!([]), "everything is young and in use");
    signal(&child, "INT");
    wait(&mut child, Duration::from_secs(1));
    goes_on(&world);
}
