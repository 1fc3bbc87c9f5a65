//! Queues, policies, drains and two servers on one database.

use std::time::Duration;

use serde_json::json;

use crate::support::{World, config, id};

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_replaces_its_running_build() {
    let world = World::new().await;
    let client = &world.admin;
    let policy = client.request(reqwest::Method::PUT, "/api/v1/scopes/test/policy");
    crate::support::send(policy.json(&json!({"policy": "replace_running"}))).await.is(204);
    let first = client.dockerfile("FROM base\nRUN sleep 600\n").await;
    client.wait_for(&first, |b| b["state"] == "running").await;
    let second = client.dockerfile("FROM base\nRUN true\n").await;
    assert_eq!(client.wait(&first).await["state"], "cancelled");
    assert_eq!(client.wait(&second).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_gives_builds_back_and_the_next_server_runs_them() {
    let world = World::with(|config| config.drain = Duration::from_millis(200)).await;
    let build = world.admin.dockerfile("FROM base\nRUN echo first; sleep 600\n").await;
    world.admin.wait_for(&build, |b| b["state"] == "running").await;
    world.service.drain().await;
    let waiting = world.admin.get(&format!("/api/v1/builds/{build}")).await.is(200).json();
    assert_eq!(waiting["state"], "queued", "{waiting:#}");
    let events = world.admin.get(&format!("/api/v1/builds/{build}/events")).await.text();
    assert!(events.contains("the server was shut down"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_takes_too_long_fails_by_its_limit() {
    let world = World::new().await;
    let ask = json!({"dockerfile": "FROM base\nRUN sleep 600\n", "limits": {"build_seconds": 1}});
    let build = world.admin.submit(&ask).await;
    let failed = world.admin.wait(&build).await;
    assert_eq!(failed["failure"]["limit"], "time", "{failed:#}");
    let ask = json!({"dockerfile": "FROM base\nRUN sleep 600\n", "limits": {"step_seconds": 1}});
    let build = world.admin.submit(&ask).await;
    let failed = world.admin.wait(&build).await;
    assert_eq!(failed["failure"]["kind"], "limit", "{failed:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_database_run_each_build_once() {
    let database = crate::postgres::fresh_database().await;
    let set = |config: &mut ashlar_service::ServiceConfig| {
        config.database = Some(database.clone());
        config.secrets_key = Some("5e".repeat(32));
        config.slots = 2;
    };
    let (one, two) = tokio::join!(World::with(set), World::with(set));
    let mut builds = Vec::new();
    for i in 0..12 {
        let world = if i % 2 == 0 { &one } else { &two };
        builds.push(world.admin.dockerfile(&format!("FROM base\nRUN echo {i}; sleep 0.1\n")).await);
    }
    let mut workers = std::collections::BTreeSet::new();
    for build in &builds {
        let shown = two.admin.wait(build).await;
        assert_eq!((&shown["state"], &shown["attempt"]), (&json!("succeeded"), &json!(1)));
        let events = one.admin.get(&format!("/api/v1/builds/{}/events", id(&shown))).await.json();
        let claims = events["entries"].as_array().unwrap().iter();
        let claims: Vec<_> = claims.filter(|e| e["event"] == "claimed").collect();
        assert_eq!(claims.len(), 1);
        workers.insert(claims[0]["worker"].as_str().unwrap().to_owned());
    }
    assert_eq!(workers.len(), 2, "both servers work");
    // A wish to stop reaches the other server's worker.
    let build = one.admin.dockerfile("FROM base\nRUN sleep 600\n").await;
    one.admin.wait_for(&build, |b| b["state"] == "running").await;
    for world in [&one, &two] {
        world.admin.post(&format!("/api/v1/builds/{build}/cancel"), &json!({})).await.is(202);
    }
    assert_eq!(one.admin.wait(&build).await["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_server() {
    let world = World::new().await;
    let second = ashlar_service::Service::open(config(world.data.path())).await;
    assert!(second.unwrap_err().internal_text().contains("another server uses"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_worker_means_is_part_of_the_submission() {
    let world = World::with(|config| config.drain = Duration::ZERO).await;
    let ask = |on_lost| json!({"dockerfile": "FROM base\nRUN sleep 600\n", "on_lost": on_lost});
    for bad in [
        json!({"do": "requeue", "attempts_max": 0}),
        json!({"do": "fail", "attempts_max": 2}),
        json!({"do": "nothing"}),
    ] {
        world.admin.post("/api/v1/builds", &ask(bad)).await.is(400);
    }
    let usual = world.admin.submit(&json!({"image": "base"})).await;
    let usual = world.admin.get(&format!("/api/v1/builds/{usual}")).await.json();
    assert_eq!(usual["on_lost"], json!({"do": "requeue", "attempts_max": 3}));
    let fail = world.admin.submit(&ask(json!({"do": "fail"}))).await;
    let once = world.admin.submit(&ask(json!({"do": "requeue", "attempts_max": 1}))).await;
    for build in [&fail, &once] {
        world.admin.wait_for(build, |b| b["state"] == "running").await;
    }
    world.service.drain().await;
    let failed = world.admin.get(&format!("/api/v1/builds/{fail}")).await.json();
    assert_eq!(failed["failure"]["kind"], "interrupted", "{failed:#}");
    let waiting = world.admin.get(&format!("/api/v1/builds/{once}")).await.json();
    assert_eq!(waiting["state"], "queued", "the worker was not lost: {waiting:#}");
}
