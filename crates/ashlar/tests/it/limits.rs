//! What a server keeps from its tenants: its own machine, and the requests of others.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::Stdio;

use crate::serve;
use crate::server::Server;
use crate::world::{Said, World};

/// Asserts that nobody has connected.
fn assert_untouched(service: &TcpListener) {
    service.set_nonblocking(true).unwrap();
    assert_eq!(service.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn builds_add_no_files_of_the_servers_own_machine() {
    let world = World::empty();
    let server = Server::start_guarded(&world, &[]);
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = service.local_addr().unwrap().port();
    for host in ["127.0.0.1", "localhost"] {
        let dockerfile = format!("FROM scratch\nADD http://{host}:{port}/secret /x\n");
        assert_refused(&server.build(&world, &dockerfile, &[]));
    }
    assert_untouched(&service);
}

#[test]
fn builds_do_not_reach_the_servers_link() {
    let world = World::empty();
    let server = Server::start_guarded(&world, &[]);
    let metadata = "169.254.169.254";
    for dockerfile in [
        format!("FROM scratch\nADD http://{metadata}/latest/meta-data /x\n"),
        format!("FROM scratch\nADD http://{metadata}/a.git#main /git\n"),
        format!("FROM {metadata}/team/app:1\n"),
    ] {
        assert_refused(&server.build(&world, &dockerfile, &[]));
    }
    world.file("file", "x");
    let name = format!("{metadata}/team/app:1");
    let dockerfile = "FROM scratch\nCOPY file /\n";
    assert_refused(&server.build(&world, dockerfile, &["-t", &name, "--push"]));
}

fn assert_refused(said: &Said) {
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("which builds do not reach"), "{said:?}");
    assert!(said.err.contains("--egress-allow"), "{said:?}");
}

#[test]
fn a_short_token_is_bad_usage_that_names_the_variable() {
    let world = World::empty();
    let mut command = world.command(&["serve", "--listen", "127.0.0.1:0"]);
    let said =
        Said::of(command.env("ASHLAR_TOKEN", "short").stdin(Stdio::null()).output().unwrap());
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.contains("ASHLAR_TOKEN: ") && said.err.contains("8 bytes"), "{said:?}");
    assert!(!said.err.contains("something in the service broke"), "{said:?}");
}

#[test]
fn links_without_a_request_lead_to_the_public_address() {
    let world = World::empty();
    let args = ["--public-url", "https://builds.example.com/a/", "--slots", "0"];
    let mut server = serve::Server::start(&world, &args, &[]);
    let line = server.line();
    assert!(line.contains("lead to https://builds.example.com/a/"), "{line}");
    // A port that is not known before it listens is no address.
    let mut server = serve::Server::start(&world, &["--data-dir", "other", "--slots", "0"], &[]);
    let line = server.line();
    assert!(!line.contains("lead to"), "{line}");
}

#[test]
fn requests_are_counted_at_the_doors_of_dialects_too() {
    for (path, token, shape) in [
        ("/nullspace/v1/templates", true, "\"code\":\"rate_limit_exceeded\""),
        ("/nullspace/v1/templates", false, "\"code\":\"rate_limit_exceeded\""),
        ("/polyaxon/api/v1/users/", true, "\"detail\":\"Request was throttled."),
        ("/polyaxon/api/v1/users/", false, "\"detail\":\"Request was throttled."),
    ] {
        let world = World::empty();
        let args = ["--requests-per-second", "1", "--slots", "0"];
        let server = serve::Server::start(&world, &args, &[]);
        let ask = || if token { server.get(path) } else { server.get_as("wrong-token", path) };
        let slowed = (0..200).map(|_| ask()).find(|said| said.starts_with("HTTP/1.1 429"));
        let slowed = slowed.unwrap_or_else(|| panic!("{path} is not bounded"));
        assert!(slowed.contains("\r\nretry-after: "), "{slowed}");
        assert!(slowed.contains(shape), "{slowed}");
    }
}
