//! The server is killed (SIGKILL) at random moments under many builds, and nothing is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ashlar_api::{ApiOptions, app, serve};
use ashlar_records::Store;
use ashlar_service::Service;
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{ADMIN, Client, add_base, config};

/// How often the server is killed; the variable of this name says otherwise.
const ROUNDS: (&str, u32) = ("ASHLAR_CRASH_ROUNDS", 6);
/// Builds that are at work or wait when it is.
const BUILDS: usize = 10;
/// Says to the test binary that it is the server, and where.
const SERVER: &str = "ASHLAR_CRASH_SERVER";

/// The server itself, in a process of its own: `the_server` is run by the test below.
#[tokio::test(flavor = "multi_thread")]
async fn the_server() {
    let Some(dir) = std::env::var_os(SERVER) else { return };
    let dir = Path::new(&dir);
    let service = Service::open(config(&dir.join("data"))).await.unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_doubled_or_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let base = data.clone();
    tokio::task::spawn_blocking(move || add_base(&base)).await.unwrap();
    let rounds = std::env::var(ROUNDS.0).ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS.1);
    let (mut accepted, shown): (Vec<String>, Shown) = Default::default();
    for round in 0..rounds {
        let (mut server, client) = start(dir.path());
        let mut followers = Vec::new();
        // Another moment each time: from the first submission to well into the builds.
        let moment = Duration::from_millis(u64::from(round * 7919 % 1500));
        let submit = async {
            for i in 0..BUILDS {
                let text = format!(
                    "FROM base\nRUN for i in $(seq 1 30); do echo {round}.{i}.$i; sleep 0.02; done; echo {round}.{i} >/out\n"
                );
                let ask = json!({"scope": "s", "dockerfile": text});
                let request = client.request(Method::POST, "/api/v1/builds").json(&ask);
                let Ok(answer) = request.send().await else { return };
                // A build counts as accepted once the client has read that it was.
                let Ok(built) = answer.json::<Value>().await else { return };
                let build = built["id"].as_str().unwrap().to_owned();
                accepted.push(build.clone());
                followers.push(tokio::spawn(follow(client.clone(), build, shown.clone())));
            }
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(moment, submit).await;
        server.kill().unwrap();
        server.wait().unwrap();
        for follower in followers {
            follower.await.unwrap();
        }
    }
    let (mut server, client) = start(dir.path());
    for build in &accepted {
        let ended = client.wait(build).await;
        assert!(ended["state"] == "succeeded" || lost_too_often(&ended), "{ended:#}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
    check_journals(&data, &accepted, &shown).await;
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
