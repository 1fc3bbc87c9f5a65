//! `ashlar serve` as a process: its start, its supervisor, its end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::World;

const TOKEN: &str = "token-of-the-serve-tests";
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a process of its own.
pub(crate) struct Server {
    child: Child,
    address: String,
    log: BufReader<ChildStderr>,
}

impl Server {
    pub(crate) fn start(world: &World, args: &[&str], env: &[(&str, &str)]) -> Self {
        let fixed = ["serve", "--listen", "127.0.0.1:0"];
        let mut command: Command = world.command(&[&fixed[..], args].concat());
        command.env("ASHLAR_TOKEN", TOKEN).envs(env.iter().copied());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let address = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the server ended: {seen}");
            if let Some(address) = line.trim().strip_prefix("listening on http://") {
                break address.to_owned();
            }
            seen += &line;
        };
        Self { child, address, log }
    }

    /// Sends a request as it is written and returns all that comes until the connection ends.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut connection = self.open(path);
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Does so with another token.
    pub(crate) fn get_as(&self, token: &str, path: &str) -> String {
        let mut connection = self.send_as(token, &format!("GET {path}"), "\r\n");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Reads the next line of its log.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.log.read_line(&mut line).unwrap();
        line
    }

    /// Sends JSON with one more header.
    pub(crate) fn post(&self, path: &str, header: &str, body: &str) -> String {
        let rest = format!(
            "{header}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut connection = self.send(&format!("POST {path}"), &rest);
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    fn open(&self, path: &str) -> TcpStream {
        self.send(&format!("GET {path}"), "\r\n")
    }

    fn send(&self, what: &str, rest: &str) -> TcpStream {
        self.send_as(TOKEN, what, rest)
    }

    fn send_as(&self, token: &str, what: &str, rest: &str) -> TcpStream {
        let mut connection = TcpStream::connect(&self.address).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let scheme = if what.contains(" /polyaxon/") { "Token" } else { "Bearer" };
        let request = format!(
            "{what} HTTP/1.1\r\nhost: {}\r\nauthorization: {scheme} {token}\r\n\
             connection: close\r\n{rest}",
            self.address
        );
        connection.write_all(request.as_bytes()).unwrap();
        connection
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; returns the exit code and the rest of the log.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut log = String::new();
        self.log.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_supervisor_is_told_when_the_server_is_ready_alive_and_stopping() {
    let world = World::empty();
    let path = world.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = |wanted: &str| {
        let mut buffer = [0; 512];
        loop {
            let size = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("no {wanted}: {e}"));
            let text = String::from_utf8_lossy(&buffer[..size]).into_owned();
            if text.lines().any(|l| l == wanted) {
                return text;
            }
        }
    };
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    let server = Server::start(&world, &["--drain", "1s"], &env);
    told("READY=1");
    told("WATCHDOG=1");
    told("WATCHDOG=1");
    server.signal(Signal::TERM);
    let text = told("STOPPING=1");
    let micros = text.lines().find_map(|l| l.strip_prefix("EXTEND_TIMEOUT_USEC=")).unwrap();
    // The drain, stopped builds and handed over runs, connections, traces, threads.
    let traces = if cfg!(feature = "otlp") { 5 } else { 0 };
    let most = 1 + 15 + 15 + 10 + traces + 5;
    assert_eq!(micros.parse::<u64>().unwrap(), most * 1_000_000, "{text}");
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_data_directory_that_a_server_makes_is_private_and_so_is_what_it_lies_in() {
    let world = World::empty();
    let server = Server::start(&world, &["--data-dir", "made/here"], &[]);
    for dir in ["made", "made/here"] {
        let mode = std::fs::metadata(world.path(dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{dir}: {mode:o}");
    }
    drop(server);
}

#[test]
fn a_follower_does_not_hold_up_the_end_and_the_log_is_json_with_request_ids() {
    let world = World::empty();
    std::fs::write(world.path("s.toml"), "slots = 0\nlog-format = \"json\"\n").unwrap();
    let server = Server::start(&world, &["--config", "s.toml"], &[]);
    assert!(server.get("/readyz").starts_with("HTTP/1.1 200"));
    let body = r#"{"image": "none"}"#;
    let made = server.post("/api/v1/builds", "x-request-id: my-request", body);
    let place = made.lines().find_map(|l| l.strip_prefix("location: ")).unwrap();
    let mut follower = server.open(&format!("{place}/events?follow=true"));
    let mut first = [0; 64];
    follower.read_exact(&mut first).unwrap();
    server.signal(Signal::TERM);
    let mut rest = String::new();
    follower.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("retry: 2000"), "{rest}");
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<serde_json::Value> =
        log.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let access = lines
        .iter()
        .find(|l| l["target"] == "ashlar::access" && l["fields"]["path"] == "/api/v1/builds");
    let access = access.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(access["fields"]["status"], 201);
    assert_eq!(access["fields"]["client"], "127.0.0.1");
    assert_eq!(access["span"]["id"], "my-request", "{access:#}");
}

#[test]
fn a_dialects_links_follow_a_trusted_proxy() {
    let world = World::empty();
    let server = Server::start(&world, &["--slots", "0", "--trusted-proxy", "127.0.0.1"], &[]);
    let plain = "x-nothing: 1";
    let made = server.post("/polyaxon/api/v1/projects/", plain, r#"{"name": "p"}"#);
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    let builds = "/polyaxon/api/v1/admin/p/builds/";
    for _ in 0..2 {
        let content = r#"{"content": "version: 1\nkind: build\nbuild:\n  image: busybox\n"}"#;
        let made = server.post(builds, plain, content);
        assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    }
    let list = |headers: &str| {
        let mut connection =
            server.send(&format!("GET {builds}?limit=1"), &format!("{headers}\r\n"));
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    };
    let proxied = "x-forwarded-proto: https\r\nx-forwarded-host: ci.example.com\r\n\
                   x-forwarded-prefix: /ashlar\r\nx-forwarded-for: 203.0.113.7\r\n";
    let link = format!("\"https://ci.example.com/ashlar{builds}?limit=1&offset=1\"");
    assert!(list(proxied).contains(&link), "{}", list(proxied));
    let link = format!("\"http://{}{builds}?limit=1&offset=1\"", server.address);
    assert!(list("").contains(&link), "{}", list(""));
}
