//! Builds that really run.

use serde_json::json;

use crate::support::{World, gzip, tar};

fn spec(steps: &[&str]) -> String {
    json!({"version": 1, "kind": "build", "image": "busybox", "build_steps": steps}).to_string()
}

const USUAL: [&str; 5] = ["created", "scheduled", "building", "running", "succeeded"];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_build_runs_with_the_code_and_leaves_an_image() {
    let world = World::running().await;
    world.project("first").await;
    let code = [("app.py", "print(1)"), ("setup.sh", "#!/bin/sh\necho from-setup\n")];
    world.upload("first", gzip(&tar(&code)), false).await.is_empty(200);
    let steps = [
        "echo answer-$((40+2)) $FOO",
        "test -x setup.sh && ./setup.sh",
        "test ! -e app.py",
        "cd /tmp",
        "test $PWD = /code",
    ];
    let text = json!({
        "version": 1, "kind": "build", "image": "busybox", "build_steps": steps, "env_vars": [["FOO", "bar"]],
    });
    let path = world.build("first", &text.to_string()).await;
    let page = world.ended(&path).await;
    assert_eq!(
        page["last_status"],
        "succeeded",
        "{}",
        world.get(&format!("{path}logs")).await.text()
    );
    assert!(page["node_scheduled"].is_string() && page["started_at"].is_string());
    assert_eq!(world.statuses(&path).await, (USUAL.map(String::from).to_vec(), "Completed".into()));
    let log = world.get(&format!("{path}logs/")).await;
    assert_eq!(log.headers["content-type"], "text/plain; charset=utf-8");
    for line in ["Building: answer-42 bar", "Building: from-setup"] {
        assert!(log.text().contains(line), "{}", log.text());
    }
    assert!(log.text().lines().all(|l| l.contains(" UTC -- ")), "{}", log.text());
    // What the native API shows of it.
    let admin = world.service.admin().clone();
    let uuid: uuid::Uuid = page["uuid"].as_str().unwrap().parse().unwrap();
    let record = world.service.show(&admin, ashlar_core::BuildId::from_uuid(uuid)).await.unwrap();
    assert_eq!(
        (record.submission.dialect.as_str(), record.submission.scope.as_str()),
        ("polyaxon", "first")
    );
    assert!(record.artifacts.iter().any(|a| a.kind == "image"), "{:?}", record.artifacts);
    // The same again is answered from the cache, and looks the same.
    let again = world.build("first", &text.to_string()).await;
    world.ended(&again).await;
    assert_eq!(world.statuses(&again).await.0, USUAL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_build_that_fails_says_why_and_a_stopped_one_too() {
    let world = World::running().await;
    world.project("first").await;
    let table = [
        (spec(&["echo before", "exit 3"]), "exist-code(3)-message("),
        (spec(&["echo a\nNONSENSE b"]), "Failed to initialize build job ("),
        (
            "{version: 1, kind: build, image: 'no-such-host.invalid/image:1'}".into(),
            "Failed to initialize build job (",
        ),
        (
            "{version: 1, kind: build, dockerfile: none}".into(),
            "Failed to initialize build job (An error occurred while extracting the dockerfile from the context.).",
        ),
    ];
    for (text, want) in table {
        let path = world.build("first", &text).await;
        assert_eq!(world.ended(&path).await["last_status"], "failed", "{text}");
        let (words, message) = world.statuses(&path).await;
        assert_eq!(words.last().map(String::as_str), Some("failed"));
        assert!(message.starts_with(want), "{text}: {message}");
        assert!(world.get(&format!("{path}logs/")).await.text().contains("ERROR: "), "{text}");
    }
    let path = world.build("first", &spec(&["echo started; sleep 300"])).await;
    while !world.get(&format!("{path}logs/")).await.text().contains("Building: started") {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    world.poke(&format!("{path}stop/")).await.is_empty(200);
    assert_eq!(world.ended(&path).await["last_status"], "stopped");
    let (words, message) = world.statuses(&path).await;
    assert_eq!(words, ["created", "scheduled", "building", "running", "stopped"]);
    assert_eq!(message, "BuildJob was stopped.");
    // A running build that is deleted is gone at once, and erased once it has ended.
    let path = world.build("first", &spec(&["sleep 301"])).await;
    let uuid: uuid::Uuid =
        world.get(&path).await.is(200)["uuid"].as_str().unwrap().parse().unwrap();
    world.delete(&path).await.is_empty(204);
    world.get(&path).await.is(404);
    let (admin, id) = (world.service.admin().clone(), ashlar_core::BuildId::from_uuid(uuid));
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while world.service.row(&admin, id).await.is_ok() {
        assert!(tokio::time::Instant::now() < until, "the deleted build is still there");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn limits_are_enforced() {
    let world = World::running().await;
    world.project("first").await;
    let text = json!({
        "version": 1, "kind": "build", "image": "busybox",
        "build_steps": ["tail -c 200m /dev/zero >/dev/null"],
        "environment": {"resources": {"memory": {"limits": 32}}},
    });
    let path = world.build("first", &text.to_string()).await;
    let page = world.ended(&path).await;
    assert_eq!(
        page["last_status"],
        "failed",
        "{}",
        world.get(&format!("{path}logs/")).await.text()
    );
    assert_eq!(page["resources"]["memory"]["limits"], 32.0);
}
