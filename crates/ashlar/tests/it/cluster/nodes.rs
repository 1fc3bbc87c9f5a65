//! Servers and workers as processes, with the PostgreSQL and the S3 server that they share.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use reqwest::{Method, RequestBuilder, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::postgres;
use crate::s3::S3;
use crate::world::rootfs;

const TOKEN: &str = "token-of-the-cluster";
/// How long anything may take here.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// How long a worker is believed to be alive.
pub(super) const LEASE: Duration = Duration::from_secs(4);

/// What all processes share.
pub(super) struct Cluster {
    pub(super) s3: S3,
    dir: TempDir,
    database: String,
}

/// One process; it is killed with this.
pub(super) struct Node {
    name: String,
    child: Child,
    log: PathBuf,
    pub(super) client: Client,
}

impl Cluster {
    pub(super) async fn start() -> Self {
        let database = postgres::fresh_database().await;
        let s3 = tokio::task::spawn_blocking(S3::start).await.unwrap();
        Self { s3, dir: tempfile::tempdir().unwrap(), database }
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ashlar"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.envs(self.s3.variables()).env("ASHLAR_TOKEN", TOKEN);
        command.env("ASHLAR_SECRETS_KEY", "5e".repeat(32));
        command.env("ASHLAR_LEASE", format!("{}s", LEASE.as_secs()));
        command.env("ASHLAR_DATABASE", &self.database);
        command.env("ASHLAR_BLOB_STORE", self.s3.url("cluster"));
        command.env("ASHLAR_DATA_DIR", self.dir.path().join(name));
        command.env("RUST_LOG", "info,ashlar::access=warn").args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command with a node's settings to its end.
    pub(super) fn run(&self, name: &str, args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
        let output = self.command(name, args).envs(env.iter().copied()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), text)
    }

    /// Starts a server that builds nothing itself.
    pub(super) fn server(&self, name: &str) -> Node {
        self.node(name, &["serve", "--slots", "0", "--listen", "127.0.0.1:0"])
    }

    /// Starts a worker; its data directory has the image `base`.
    pub(super) fn worker(&self, name: &str) -> Node {
        if !self.dir.path().join(name).exists() {
            let from = rootfs().to_str().unwrap();
            let (code, text) = self.run(name, &["images", "import", from, "base"], &[]);
            assert_eq!(code, 0, "{text}");
        }
        self.bare_worker(name)
    }

    /// Starts a worker whose data directory is empty.
    pub(super) fn bare_worker(&self, name: &str) -> Node {
        self.node(name, &["worker", "--slots", "4", "--listen", "127.0.0.1:0"])
    }

    fn node(&self, name: &str, args: &[&str]) -> Node {
        let log = self.dir.path().join(format!("{name}.log"));
        let began = std::fs::metadata(&log).map_or(0, |m| m.len());
        let out = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = self.command(name, args);
        let mut child = command.stdout(Stdio::null()).stderr(out).spawn().unwrap();
        let until = Instant::now() + WAIT_MAX;
        let url = loop {
            let text = read_from(&log, began);
            let said = |line: &str| Some(line.split_once("http://")?.1.trim().to_owned());
            // Only a whole line has a whole address.
            let mut lines = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
            if let Some(address) = lines.find_map(said) {
                break format!("http://{address}");
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "{name}: {ended:?} {text}");
            std::thread::sleep(Duration::from_millis(10));
        };
        Node { name: name.to_owned(), child, log, client: Client::new(&url) }
    }
}

fn read_from(path: &Path, from: u64) -> String {
    let bytes = std::fs::read(path).unwrap();
    String::from_utf8_lossy(&bytes[usize::try_from(from).unwrap()..]).into_owned()
}

impl Node {
    pub(super) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Kills it as a power cut would.
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and returns how it did and all that it said.
    pub(super) fn stop(mut self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        let until = Instant::now() + WAIT_MAX;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.said());
            }
            assert!(Instant::now() < until, "{} does not end: {}", self.name, self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn said(&self) -> String {
        read_from(&self.log, 0)
    }

    /// Waits until so many builds run in it.
    pub(super) async fn busy(&self, least: usize) {
        let until = Instant::now() + WAIT_MAX;
        loop {
            let text = self.client.get("/metrics").await.1;
            let text = String::from_utf8(text).unwrap();
            let busy = text.lines().find_map(|l| l.strip_prefix("ashlar_worker_slots_busy "));
            if busy.unwrap().parse::<usize>().unwrap() >= least {
                return;
            }
            assert!(Instant::now() < until, "{} has nothing to do", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Node {
    #[expect(clippy::print_stderr, reason = "a failed test shows what its processes said")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}:\n{}", self.name, self.said());
        }
    }
}

/// Entries that clients were shown, by build and number.
pub(super) type Shown = Arc<Mutex<BTreeMap<(String, u64), Value>>>;

/// Talks to one node.
#[derive(Clone)]
pub(super) struct Client {
    url: String,
    http: reqwest::Client,
}

impl Client {
    fn new(url: &str) -> Self {
        // Fails when an earlier test of this process did it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { url: url.to_owned(), http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(TOKEN)
    }

    pub(super) async fn get(&self, path: &str) -> (StatusCode, Vec<u8>) {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        (answer.status(), answer.bytes().await.unwrap().to_vec())
    }

    pub(super) async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    pub(super) async fn submit(&self, ask: &Value) -> String {
        let answer = self.request(Method::POST, "/api/v1/builds").json(ask).send().await.unwrap();
        let status = answer.status();
        let built: Value = answer.json().await.unwrap();
        assert_eq!(status, 201, "{built:#}");
        built["id"].as_str().unwrap().to_owned()
    }

    /// Uploads a context of one file and returns its digest.
    pub(super) async fn context(&self, name: &str, content: &str) -> Result<String, StatusCode> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, content.as_bytes()).unwrap();
        let request = self.request(Method::POST, "/api/v1/contexts");
        let request = request.header("content-type", "application/x-tar");
        let answer = request.body(archive.into_inner().unwrap()).send().await.unwrap();
        match answer.status() {
            StatusCode::CREATED => {
                let made: Value = answer.json().await.unwrap();
                Ok(made["digest"].as_str().unwrap().to_owned())
            }
            other => Err(other),
        }
    }

    /// Waits for a build's end and returns it.
    pub(super) async fn wait(&self, build: &str) -> Value {
        let ended = ["succeeded", "failed", "cancelled", "skipped"];
        self.wait_for(build, |b| ended.contains(&b["state"].as_str().unwrap())).await
    }

    pub(super) async fn wait_for(&self, build: &str, done: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + WAIT_MAX;
        loop {
            let shown = self.json(&format!("/api/v1/builds/{build}")).await;
            if done(&shown) {
                return shown;
            }
            assert!(Instant::now() < until, "the build takes too long: {shown:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Follows a build from its beginning until the connection ends.
    pub(super) async fn follow(self, build: String, shown: Shown) {
        let path = format!("/api/v1/builds/{build}/events?follow=true");
        let Ok(response) = self.request(Method::GET, &path).send().await else { return };
        let (mut bytes, mut text, mut next) = (response.bytes_stream(), String::new(), 0);
        while let Some(Ok(chunk)) = bytes.next().await {
            text += &String::from_utf8_lossy(&chunk);
            while let Some((frame, rest)) = text.split_once("\n\n") {
                if let Some(data) = frame.lines().find_map(|l| l.strip_prefix("data: ")) {
                    let entry: Value = serde_json::from_str(data).unwrap();
                    assert_eq!(entry["number"], next, "a gap or a repetition in {build}");
                    let before = shown.lock().unwrap().insert((build.clone(), next), entry.clone());
                    assert!(before.is_none_or(|b| b == entry), "servers differ: {entry}");
                    next += 1;
                }
                text = rest.to_owned();
            }
        }
    }
}
