//! Logs: offsets, streams, phases.

use std::pin::pin;

use axum::body::Body;
use axum::http::Request;
use futures_core::Stream as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{World, steps};

fn offsets(entries: &[Value]) -> Vec<u64> {
    entries.iter().map(|e| e["offset"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_gap_free_and_stay_the_same() {
    let world = World::new().await;
    let entries = world.build(steps("app", &["echo a; echo b >&2; printf c", "true"])).await;
    let id = World::ready(&entries);
    let all: Vec<u64> = (0..entries.len() as u64).collect();
    assert_eq!(offsets(&entries), all);
    assert_eq!(entries[0]["kind"], "start");
    let times: Vec<&str> = entries.iter().map(|e| e["timestamp"].as_str().unwrap()).collect();
    assert!(times.is_sorted());
    for entry in &entries {
        assert_eq!(entry["build_id"], json!(id));
        assert_eq!(entry.get("step_index").is_some(), entry.get("total_steps").is_some());
    }
    let level =
        |text: &str| entries.iter().find(|e| e["message"] == text).unwrap()["level"].clone();
    assert_eq!((level("a"), level("b"), level("c")), (json!("info"), json!("warn"), json!("info")));
    let logs = format!("/v1/templates/builds/{id}/logs");
    for (query, from) in [
        ("", 0),
        ("?offset=3", 3),
        ("?cursor=2", 2),
        ("?offset=4&cursor=1", 4),
        ("?follow=true&offset=5", 5),
        ("?offset=99999", all.len()),
    ] {
        let replayed = world.get(&format!("{logs}{query}")).await.entries();
        assert_eq!(replayed, entries[from..], "{query}");
    }
    let snapshot = world.get(&format!("/v1/templates/builds/{id}?offset=3")).await.is(200);
    assert_eq!(snapshot["entries"].as_array().unwrap(), &entries[3..]);
    assert_eq!(snapshot["next_offset"], json!(entries.len()));
    let beyond = world.get(&format!("/v1/templates/builds/{id}?offset=99999")).await.is(200);
    assert_eq!((&beyond["entries"], &beyond["next_offset"]), (&json!([]), &json!(99999)));
    for bad in ["-1", "x", "1.5", ""] {
        let path = format!("/v1/templates/builds/{id}?offset={bad}");
        world.get(&path).await.refused(400, "invalid_request");
    }
    world.get(&format!("{logs}?follow=maybe")).await.refused(400, "invalid_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_broke_off_goes_on_after_the_last_event() {
    let world = World::new().await;
    let entries = world.build(steps("app", &["echo a"])).await;
    let path = format!("/v1/templates/builds/{}/logs", World::ready(&entries));
    let request = Request::get(&path)
        .header("authorization", format!("bearer {}", world.owner))
        .header("last-event-id", "2")
        .header("x-request-id", "mine-1")
        .body(Body::empty())
        .unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "mine-1");
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    assert!(String::from_utf8(bytes.to_vec()).unwrap().starts_with("id: 3\nevent: log\ndata: {"));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_one_line_whatever_a_step_writes() {
    let world = World::new().await;
    let command = r"printf 'a\302\205\342\200\250\342\200\251b\001\013\r\n\377\n'";
    let reply = world.post("/v1/templates/build", steps("app", &[command])).await;
    for separator in ['\u{85}', '\u{2028}', '\u{2029}', '\u{1}', '\u{b}'] {
        assert!(!reply.text.contains(separator), "{separator:?}");
    }
    let messages: Vec<Value> = reply.entries().iter().map(|e| e["message"].clone()).collect();
    assert!(messages.iter().any(|m| m.as_str().unwrap().starts_with("a\u{85}\u{2028}\u{2029}b")));
    assert!(messages.contains(&json!("\u{fffd}")), "{messages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_without_following_does_not_wait() {
    let world = World::new().await;
    let path = "/v1/templates/builds";
    let build = world.post(path, steps("app", &["echo up; sleep 100"])).await.is(202);
    let id = build["build_id"].as_str().unwrap();
    loop {
        let entries = world.get(&format!("{path}/{id}/logs")).await.entries();
        assert!(entries.iter().all(|e| e["kind"] != "end"));
        if entries.iter().any(|e| e["message"] == "up") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let waiting = world.status(id).await;
    assert_eq!(waiting["build"]["status"], "building");
    assert_eq!(waiting["build"]["promotability"]["status"], "not_ready");
    let history = world.get("/v1/templates/app/builds?status=building").await.is(200);
    assert_eq!(history["builds"][0]["build_id"], json!(id));
    world.post(&format!("{path}/{id}/cancel"), json!({})).await.is(200);
    world.ended(id).await;
    let history = world.get("/v1/templates/app/builds?status=building").await.is(200);
    assert_eq!(history, json!({ "builds": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cache_entry_is_counted_and_every_count_is_an_entry() {
    let world = World::new().await;
    for request in [
        steps("app", &["echo 1", "exit 1"]),
        steps("app", &["echo 1", "echo 2"]),
        steps("app", &["echo 1", "echo 2"]),
    ] {
        let entries = world.build(request).await;
        let id = entries[0]["build_id"].as_str().unwrap();
        let status = world.status(id).await;
        for (kind, words) in
            [("final_artifact", "final_artifact"), ("layer", "layer"), ("file_blob", "file_blob")]
        {
            for (word, counter) in
                [("hit", "hits"), ("miss", "misses"), ("bypass", "bypasses"), ("stored", "stores")]
            {
                let fits = |e: &&Value| e["cache_kind"] == kind && e["cache_status"] == word;
                let found = entries.iter().filter(fits).count();
                let said = &status["build"]["cache_summary"][format!("{words}_{counter}")];
                assert_eq!(*said, json!(found), "{kind} {word} {entries:#?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_step_keeps_its_followers() {
    let world = World::new().await;
    let reply = world.post("/v1/templates/build", steps("app", &["sleep 10; echo up"])).await;
    // Clients read each line that begins with `data: `, and nothing else.
    let lines: Vec<&str> = reply.text.lines().collect();
    let silent = lines.iter().position(|l| *l == ": keep-alive").expect("a comment");
    let spoke = lines.iter().position(|l| l.contains("\"up\"")).expect("the step's line");
    assert!(silent < spoke, "{}", reply.text);
    assert_eq!(lines[silent + 1], "", "a comment is a frame of its own");
    assert_eq!(reply.entries().last().unwrap()["kind"], "end");
}

/// How often journals were read.
fn journal_reads(world: &World) -> u64 {
    let families = world.service.metrics_registry().gather();
    let store = families.iter().find(|f| f.name() == "ashlar_store_duration_seconds").unwrap();
    let mut kinds = store.get_metric().iter();
    let journal = kinds.find(|m| m.get_label().iter().any(|l| l.value() == "journal"));
    journal.map_or(0, |m| m.get_histogram().get_sample_count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_sent_as_it_is_read() {
    const LINES: usize = 100_000;
    let world = World::new().await;
    let path = "/v1/templates/builds";
    let build = world.post(path, steps("app", &[&format!("seq {LINES}")])).await.is(202);
    let path = format!("{path}/{}/logs", build["build_id"].as_str().unwrap());
    let build = build["build_id"].as_str().unwrap().trim_start_matches("tb_").parse().unwrap();
    let mut follower = world.service.follow(world.service.admin(), build, 0).await.unwrap();
    while !follower.next(10_000).await.unwrap().is_empty() {}
    let before = journal_reads(&world);
    let request = Request::get(&path).header("authorization", format!("Bearer {}", world.owner));
    let request = request.body(Body::empty()).unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    let mut body = pin!(response.into_body().into_data_stream());
    let mut chunk = async || std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await;
    let mut text = chunk().await.unwrap().unwrap().to_vec();
    // The client has taken the first piece: no more of the rest was read than waits for it.
    let read = journal_reads(&world) - before;
    assert!(read < 20, "{read} reads for the first piece");
    while let Some(bytes) = chunk().await {
        text.extend_from_slice(&bytes.unwrap());
    }
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.matches("\nevent: log\n").count(), text.matches("data: ").count());
    assert!(text.contains(&format!("\"message\":\"{LINES}\"")));
    assert!(text.trim_end().lines().last().unwrap().contains("\"kind\":\"end\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_of_one_moment_and_sent_as_its_log_is_read() {
    const LINES: usize = 40_000;
    let world = World::new().await;
    let path = "/v1/templates/builds";
    let commands = format!("seq {LINES}; sleep 100");
    let build = world.post(path, steps("app", &[&commands])).await.is(202);
    let id = build["build_id"].as_str().unwrap();
    let number = id.trim_start_matches("tb_").parse().unwrap();
    let mut follower = world.service.follow(world.service.admin(), number, 0).await.unwrap();
    let mut lines = 0;
    while lines < LINES {
        lines += follower.next(10_000).await.unwrap().len();
    }
    let before = journal_reads(&world);
    let path = format!("{path}/{id}");
    let request = Request::get(&path).header("authorization", format!("Bearer {}", world.owner));
    let request = request.body(Body::empty()).unwrap();
    let response = world.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    let mut body = pin!(response.into_body().into_data_stream());
    let mut chunk = async || std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await;
    let mut text = chunk().await.unwrap().unwrap().to_vec();
    // The client has taken the first piece: no more of the rest was read than waits for it.
    let read = journal_reads(&world) - before;
    assert!(read < 20, "{read} reads for the first piece");
    // The log goes on, and ends, while the client reads.
    world.post(&format!("{path}/cancel"), json!({})).await.is(200);
    let ended = world.ended(id).await;
    while let Some(bytes) = chunk().await {
        text.extend_from_slice(&bytes.unwrap());
    }
    let status: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(status["build"]["status"], "building");
    let entries = status["entries"].as_array().unwrap();
    assert!(entries.len() > LINES && entries.iter().all(|e| e["kind"] != "cancelled"));
    assert_eq!(status["next_offset"], json!(entries.len()));
    // Whoever goes on from there gets the rest, and whoever asks anew gets the same once more.
    let rest = world.get(&format!("{path}?offset={}", entries.len())).await.is(200);
    assert_eq!(rest["entries"].as_array().unwrap().last().unwrap()["kind"], "cancelled");
    let all = ended["entries"].as_array().unwrap();
    assert!(all[..entries.len()] == entries[..]);
    assert_eq!(json!(all[entries.len()..]), rest["entries"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_cancel_does_not_repeat_the_log() {
    let world = World::new().await;
    let path = "/v1/templates/builds";
    let build = world.post(path, steps("app", &["echo said; sleep 100"])).await.is(202);
    let id = build["build_id"].as_str().unwrap();
    let status =
        async |offset: u64| world.get(&format!("{path}/{id}?offset={offset}")).await.is(200);
    while !status(0).await["entries"].to_string().contains("said") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let cancel = format!("{path}/{id}/cancel");
    let asked = world.post(&cancel, json!({})).await.is(200);
    assert!(!asked["entries"].to_string().contains("said"), "{asked}");
    // Whoever goes on from there misses nothing.
    let next = asked["next_offset"].as_u64().unwrap();
    world.ended(id).await;
    // It may have ended already when the answer was made.
    let mut entries = asked["entries"].as_array().unwrap().clone();
    assert!(entries.iter().all(|e| e["kind"] == "cancelled"), "{asked}");
    let first = next - entries.len() as u64;
    entries.extend(status(next).await["entries"].as_array().unwrap().clone());
    assert_eq!(entries.last().unwrap()["kind"], "cancelled");
    let all = status(0).await;
    assert_eq!(all["entries"].as_array().unwrap()[first as usize..], entries);
    // Of a build that has ended its last entry is there, as in every snapshot.
    let late = world.post(&cancel, json!({})).await.is(200);
    assert_eq!(late["entries"], json!([all["entries"].as_array().unwrap().last().unwrap()]));
    assert_eq!(late["next_offset"], all["next_offset"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_waits_for_a_build_holds_up_the_servers_stop() {
    let world = World::stopping_at_once().await;
    let path = "/v1/templates/builds";
    let build = world.post(path, steps("app", &["echo up; sleep 100"])).await.is(202);
    let id = build["build_id"].as_str().unwrap();
    let logs = format!("{path}/{id}/logs?follow=true");
    while !world.status(id).await["entries"].to_string().contains("\"up\"") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // Another one, whose client waits for the answer.
    let created = world.post("/v1/templates", steps("other", &["echo up; sleep 100"]));
    let stop = async {
        while world.get("/v1/templates/other/builds").await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        world.service.drain().await;
    };
    let (followed, created, ()) = tokio::join!(world.get(&logs), created, stop);
    assert!(followed.text.contains("\"up\""));
    assert!(followed.text.ends_with(": the server stops; go on after the last id\n\n"));
    assert!(followed.entries().iter().all(|e| e["kind"] != "error"));
    let refused = created.refused(503, "feature_unavailable");
    assert!(refused["build_id"].is_string(), "{refused}");
}
