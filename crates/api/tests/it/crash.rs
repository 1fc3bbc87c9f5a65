//! The server is killed (SIGKILL) at random moments under many builds, and nothing is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ashlar_api::{ApiOptions, app, serve};
use ashlar_core::journal::Event;
use ashlar_records::Store;
use ashlar_service::Service;
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{ADMIN, Client, add_base, config};

/// How often the server is killed; the variable of this name says otherwise (`make crash`: 100).
const ROUNDS: (&str, u32) = ("ASHLAR_CRASH_ROUNDS", 25);
/// What the moments are drawn from; the variable of this name repeats a run.
const SEED: &str = "ASHLAR_CRASH_SEED";
/// Builds that are at work when it is, as far as the machine allows.
const BUILDS: usize = 50;
/// The latest moment of a kill, in milliseconds after the start.
const MOMENT_MAX: u64 = 2000;
/// Images whose blobs are looked at in the end.
const IMAGES: usize = 40;
/// Says to the test binary that it is the server, and where.
const SERVER: &str = "ASHLAR_CRASH_SERVER";

/// The server itself, in a process of its own: `the_server` is run by the test below.
#[tokio::test(flavor = "multi_thread")]
async fn the_server() {
    let Some(dir) = std::env::var_os(SERVER) else { return };
    let dir = Path::new(&dir);
    let mut config = config(&dir.join("data"));
    config.slots = BUILDS;
    let service = Service::open(config).await.unwrap();
    service.start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::fs::write(dir.join("address.new"), address).unwrap();
    std::fs::rename(dir.join("address.new"), dir.join("address")).unwrap();
    let router = app(&service, ApiOptions::default()).unwrap();
    serve(listener, router, std::future::pending(), Duration::ZERO).await.unwrap();
}

fn start(dir: &Path) -> (Child, Client) {
    let address = dir.join("address");
    let _ = std::fs::remove_file(&address);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::the_server", "--nocapture"]).env(SERVER, dir);
    let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !address.exists() {
        assert!(Instant::now() < until, "{}", std::fs::read_to_string(dir.join("log")).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    let text = std::fs::read_to_string(&address).unwrap();
    (child, Client::new(&format!("http://{text}"), Some(ADMIN)))
}

/// Entries that a client was shown, by build and number.
type Shown = Arc<Mutex<BTreeMap<(String, u64), Value>>>;

/// Follows a build until the connection breaks.
async fn follow(client: Client, build: String, shown: Shown) {
    let path = format!("/api/v1/builds/{build}/events?follow=true");
    let Ok(response) = client.request(Method::GET, &path).send().await else { return };
    let (mut bytes, mut text) = (response.bytes_stream(), String::new());
    while let Some(Ok(chunk)) = bytes.next().await {
        text += &String::from_utf8_lossy(&chunk);
        while let Some((frame, rest)) = text.split_once("\n\n") {
            if let Some(data) = frame.lines().find_map(|l| l.strip_prefix("data: ")) {
                let entry: Value = serde_json::from_str(data).unwrap();
                let key = (build.clone(), entry["number"].as_u64().unwrap());
                let before = shown.lock().unwrap().insert(key, entry.clone());
                assert!(before.is_none_or(|b| b == entry), "an entry changed: {entry}");
            }
            text = rest.to_owned();
        }
    }
}

/// Draws moments (xorshift64).
struct Moments(u64);

impl Moments {
    #[expect(clippy::print_stderr, reason = "a failed test names the seed that repeats it")]
    fn new() -> Self {
        let said = std::env::var(SEED).ok().and_then(|n| n.parse().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = said.unwrap_or_else(|| u64::from(now.subsec_nanos())).max(1);
        eprintln!("{SEED}={seed}");
        Self(seed)
    }

    fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(self.0 % MOMENT_MAX)
    }
}

/// All builds that were asked for, in order, each with its id once the client has read it.
type Asked = Arc<Mutex<Vec<Option<String>>>>;

/// Asks for a build, under a key: whoever has no answer asks again.
async fn submit(client: &Client, number: usize) -> Option<String> {
    let (lines, pause) = [(1, "0"), (20, "0.02"), (1, "0")][number % 3];
    let text = format!(
        "FROM base\nRUN for i in $(seq {lines}); do echo {number}.$i; sleep {pause}; done; echo {number} >/out\n"
    );
    let ask = json!({"scope": "s", "dockerfile": text, "idempotency_key": format!("{number}")});
    let request = client.request(Method::POST, "/api/v1/builds").json(&ask);
    let answer = request.send().await.ok()?;
    assert!(answer.status().is_success(), "{}", answer.status());
    let built: Value = answer.json().await.ok()?;
    Some(built["id"].as_str().unwrap().to_owned())
}

/// Keeps [`BUILDS`] builds going and follows them, until the server is gone.
async fn drive(client: Client, asked: Asked, shown: Shown) {
    let mut followed = BTreeMap::new();
    loop {
        let known = asked.lock().unwrap().clone();
        for (number, id) in known.iter().enumerate() {
            if id.is_none() {
                let Some(id) = submit(&client, number).await else { return };
                asked.lock().unwrap()[number] = Some(id);
            }
        }
        // The newest ones: those before them have ended, or will.
        let known = asked.lock().unwrap().clone();
        for id in known.iter().rev().take(2 * BUILDS).flatten() {
            let follow = || tokio::spawn(follow(client.clone(), id.clone(), shown.clone()));
            followed.entry(id.clone()).or_insert_with(follow);
        }
        let open = followed.values().filter(|f| !f.is_finished()).count();
        let Ok(answer) = client.request(Method::GET, "/readyz").send().await else { return };
        assert!(answer.status().is_success());
        asked.lock().unwrap().extend(std::iter::repeat_n(None, BUILDS.saturating_sub(open)));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_doubled_or_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let base = data.clone();
    tokio::task::spawn_blocking(move || add_base(&base)).await.unwrap();
    let rounds = std::env::var(ROUNDS.0).ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS.1);
    let (asked, shown): (Asked, Shown) = Default::default();
    let mut moments = Moments::new();
    for _ in 0..rounds {
        let (mut server, client) = start(dir.path());
        let driver = tokio::spawn(drive(client, asked.clone(), shown.clone()));
        tokio::time::sleep(moments.next()).await;
        server.kill().unwrap();
        server.wait().unwrap();
        driver.await.unwrap();
    }
    let (mut server, client) = start(dir.path());
    let (mut accepted, mut succeeded) = (Vec::new(), Vec::new());
    let numbers = asked.lock().unwrap().len();
    for number in 0..numbers {
        let known = asked.lock().unwrap()[number].clone();
        let build = match known {
            Some(build) => build,
            None => submit(&client, number).await.unwrap(),
        };
        accepted.push(build);
    }
    for build in &accepted {
        let ended = client.wait(build).await;
        match ended["state"] == "succeeded" {
            true => succeeded.push(build.clone()),
            false => assert!(lost_too_often(&ended), "{ended:#}"),
        }
    }
    eprintln!("{rounds} kills, {numbers} builds, {} succeeded", succeeded.len());
    assert!(succeeded.len() * 4 >= numbers, "only {} of {numbers} succeeded", succeeded.len());
    let listed = client.get("/api/v1/builds?page=1&limit=1").await.is(200).json();
    assert_eq!(listed["total"], numbers, "a build was lost or made twice");
    for state in ["queued", "preparing", "running", "exporting"] {
        let path = format!("/api/v1/builds?state={state}&page=1&limit=1");
        assert_eq!(client.get(&path).await.is(200).json()["total"], 0, "stuck in {state}");
    }
    let every = succeeded.len().div_ceil(IMAGES);
    for build in succeeded.iter().step_by(every) {
        check_image(&client, build).await;
    }
    server.kill().unwrap();
    server.wait().unwrap();
    check_journals(&data, &accepted, &shown).await;
}

/// Pulls all blobs of a build's image.
async fn check_image(client: &Client, build: &str) {
    let path = format!("/v2/default/builds/manifests/{build}");
    let manifest = client.get(&path).await.is(200).json();
    for blob in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
        let digest = blob["digest"].as_str().unwrap();
        let bytes = client.get(&format!("/v2/default/builds/blobs/{digest}")).await.is(200).body;
        assert_eq!(ashlar_core::Digest::of(&bytes).to_string(), digest);
    }
}

/// A build may be at work at each kill; after its last attempt it fails and says so.
fn lost_too_often(build: &Value) -> bool {
    build["failure"]["kind"] == "interrupted" && build["attempt"] == 3
}

async fn check_journals(data: &Path, accepted: &[String], shown: &Shown) {
    let store = Store::open(data.join("records.db").to_str().unwrap()).await.unwrap();
    let shown = shown.lock().unwrap().clone();
    assert!(!shown.is_empty() && !accepted.is_empty());
    for build in accepted {
        let build = build.parse().unwrap();
        let (row, folded) = store.rebuild(build).await.unwrap();
        assert_eq!(row, folded);
        let entries = store.journal(build, 0, usize::MAX).await.unwrap();
        assert!(entries.iter().enumerate().all(|(i, e)| e.number == i as u64), "a gap in {build}");
        let ends =
            entries.iter().filter(|e| matches!(&e.event, Event::State { to } if to.is_terminal()));
        assert_eq!(ends.count(), 1, "{build} ended once");
        for entry in &entries {
            if let Some(seen) = shown.get(&(build.to_string(), entry.number)) {
                assert_eq!(*seen, serde_json::to_value(entry).unwrap());
            }
        }
        let last = shown.range((build.to_string(), 0)..=(build.to_string(), u64::MAX)).next_back();
        let last = last.map_or(0, |((_, number), _)| number + 1);
        assert!(last <= entries.len() as u64, "what was shown is gone");
    }
}
