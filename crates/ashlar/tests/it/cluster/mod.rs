//! Two servers and three workers on one PostgreSQL and one S3 store: what they do together, and
//! what is left of it when some of them are killed or cut off.
//!
//! Needs Debian's packages `busybox-static` and `postgresql`.

mod checks;
mod nodes;

use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::json;

use checks::{check_image, check_journal, check_log};
use nodes::{Cluster, LEASE, Shown};

/// Builds of the large test.
const BUILDS: usize = 30;
/// Lines that each of them says.
const LINES: usize = 20;

/// A build that says who it is with each line, so that attempts can be told apart.
fn dockerfile(number: usize, with_context: bool) -> String {
    let copy = if with_context { "COPY file /file\n" } else { "" };
    format!(
        "FROM base\n{copy}RUN id=$(cat /proc/sys/kernel/random/uuid); \
         for i in $(seq {LINES}); do echo $id $i; sleep 0.1; done; echo {number} >/out\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_doubled_or_stuck_when_nodes_die() {
    let cluster = Cluster::start().await;
    let (one, two) = (cluster.server("server-1"), cluster.server("server-2"));
    let (shown, mut followers, mut builds) = (Shown::default(), Vec::new(), Vec::new());
    for number in 0..BUILDS {
        let server = if number % 2 == 0 { &one.client } else { &two.client };
        let mut ask = json!({
            "scope": format!("scope-{}", number % 5), "network": "none",
            "dockerfile": dockerfile(number, number % 3 == 0),
        });
        if number % 3 == 0 {
            // Uploaded to one server, built through the other.
            let other = if number % 2 == 0 { &two.client } else { &one.client };
            ask["context"] = other.context("file", &format!("{number}")).await.unwrap().into();
        }
        let build = server.submit(&ask).await;
        for server in [&one.client, &two.client] {
            let follow = server.clone().follow(build.clone(), shown.clone());
            followers.push(tokio::spawn(follow));
        }
        builds.push((build, number));
    }
    // All builds wait by now, so that the workers are busy when they are struck.
    let workers = ["worker-1", "worker-2", "worker-3"].map(|name| cluster.worker(name));
    let [first, second, third] = workers;
    first.busy(2).await;
    first.kill();
    // Cut off: it knows nothing of the end of its leases until it goes on.
    second.busy(2).await;
    second.signal(Signal::STOP);
    one.kill();
    third.busy(2).await;
    third.kill();
    let first = cluster.worker("worker-1");
    tokio::time::sleep(LEASE * 2).await;
    second.signal(Signal::CONT);
    let mut succeeded = Vec::new();
    let mut again = 0;
    for (build, number) in &builds {
        let ended = two.client.wait(build).await;
        again += u64::from(ended["attempt"].as_u64().unwrap() > 1);
        match ended["state"].as_str().unwrap() {
            "succeeded" => succeeded.push((build.clone(), *number)),
            _ => assert_eq!(ended["failure"]["kind"], "interrupted", "{ended:#}"),
        }
    }
    assert!(again >= 3, "three workers were lost, and {again} builds ran again");
    assert!(succeeded.len() > BUILDS * 3 / 4, "only {} builds succeeded", succeeded.len());
    for follower in followers {
        follower.await.unwrap();
    }
    let shown = shown.lock().unwrap().clone();
    for (build, _) in &builds {
        check_journal(&two.client, build, &shown).await;
        check_log(&two.client, build, LINES).await;
    }
    assert!(two.said().lines().all(|l| !l.contains("panicked")));
    // What the dead have built is served by those who live, and by those who come.
    let one = cluster.server("server-3");
    for (build, number) in &succeeded {
        let manifest = check_image(&two.client, build, *number).await;
        let (status, same) = one.client.get(&manifest_path(build)).await;
        assert!(status == 200 && same == manifest, "two servers differ about {build}");
    }
    for node in [first, second] {
        let (status, said) = node.stop();
        assert!(status.success(), "{said}");
    }
    assert_eq!(two.client.json("/api/v1/builds?state=running").await["builds"], json!([]));
}

fn manifest_path(build: &str) -> String {
    format!("/v2/default/builds/manifests/{build}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_one_worker_is_the_base_on_another() {
    let cluster = Cluster::start().await;
    let server = cluster.server("server");
    let worker = cluster.worker("worker-1");
    let text = "FROM base\nRUN echo from the first >/first\n";
    let base = server.client.submit(&json!({ "dockerfile": text, "network": "none" })).await;
    assert_eq!(server.client.wait(&base).await["state"], "succeeded");
    let (status, said) = worker.stop();
    assert!(status.success(), "{said}");
    // This one has neither the image `base` nor the first build's layers.
    let _other = cluster.bare_worker("worker-2");
    let tenant = server.client.json("/api/v1/whoami").await["tenant_id"].clone();
    let name = format!("build.ashlar.internal/{}/{base}:latest", tenant.as_str().unwrap());
    let by_name =
        json!({"dockerfile": format!("FROM {name}\nRUN cat /first\n"), "network": "none"});
    let steps = json!([{"action": "run", "command": "cat /first; true"}]);
    let by_build = json!({ "base_build": base, "steps": steps, "network": "none" });
    for ask in [by_name, by_build] {
        let build = server.client.submit(&ask).await;
        let ended = server.client.wait(&build).await;
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        let path = format!("/api/v1/builds/{build}/logs?format=text");
        let log = String::from_utf8(server.client.get(&path).await.1).unwrap();
        assert!(log.contains("from the first"), "{log}");
        // The same inputs again, frozen: their image is one that was built elsewhere.
        let path = format!("/api/v1/builds/{build}/retry");
        let retried = server.client.request(Method::POST, &path).json(&json!({})).send().await;
        let retried: serde_json::Value = retried.unwrap().json().await.unwrap();
        let ended = server.client.wait(retried["id"].as_str().unwrap()).await;
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_store_that_is_away_costs_time_and_nothing_else() {
    let mut cluster = Cluster::start().await;
    let server = cluster.server("server");
    let worker = cluster.worker("worker");
    let ready = async |node: &nodes::Node| node.client.get("/readyz").await.0;
    assert_eq!((ready(&server).await, ready(&worker).await), (StatusCode::OK, StatusCode::OK));
    let ask = json!({ "dockerfile": dockerfile(1, false), "network": "none" });
    let build = server.client.submit(&ask).await;
    server.client.wait_for(&build, |b| b["state"] == "running").await;
    cluster.s3 = tokio::task::spawn_blocking(move || {
        let mut s3 = cluster.s3;
        s3.stop();
        s3
    })
    .await
    .unwrap();
    let away = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!((ready(&server).await, ready(&worker).await), (away, away));
    assert_eq!(server.client.context("file", "x").await, Err(away));
    assert_eq!(server.client.get("/healthz").await.0, StatusCode::OK);
    let shown = server.client.json(&format!("/api/v1/builds/{build}")).await;
    assert!(!["failed", "succeeded"].contains(&shown["state"].as_str().unwrap()), "{shown:#}");
    cluster.s3 = tokio::task::spawn_blocking(move || {
        let mut s3 = cluster.s3;
        s3.resume();
        s3
    })
    .await
    .unwrap();
    let ended = server.client.wait(&build).await;
    assert_eq!(ended["state"], "succeeded", "{ended:#}");
    check_image(&server.client, &build, 1).await;
    assert_eq!((ready(&server).await, ready(&worker).await), (StatusCode::OK, StatusCode::OK));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_what_it_lacks() {
    let cluster = Cluster::start().await;
    let refused = |env: &[(&str, &str)], code: i32, says: &str| {
        let (found, text) = cluster.run("lacking", &["worker"], env);
        assert!(found == code && text.contains(says), "{found}: {text}");
    };
    refused(&[("ASHLAR_DATABASE", "/tmp/records.db")], 2, "postgres://");
    refused(&[("ASHLAR_BLOB_STORE", "")], 2, "--blob-store");
    refused(&[("ASHLAR_BLOB_STORE", "ftp://x")], 2, "s3://BUCKET");
    refused(&[("ASHLAR_SLOTS", "0")], 2, "--slots");
    refused(&[("ASHLAR_LEASE", "10ms")], 2, "lease");
    let server = cluster.server("server");
    refused(&[("ASHLAR_SECRETS_KEY", &"ab".repeat(32))], 1, "ASHLAR_SECRETS_KEY");
    let (status, said) = server.stop();
    assert!(status.success(), "{said}");
}
