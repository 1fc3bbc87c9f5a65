//! Retention: what a tag points at stays, whichever way the tag came to it.

use std::time::Duration;

use ashlar_core::Timestamp;
use serde_json::{Value, json};

use crate::support::{World, steps};

const DAY: Duration = Duration::from_secs(86_400);

/// Lets go what is more than a day old, some days from now.
async fn days_later(world: &World, days: u32) {
    let owner = world.service.authenticate(&world.owner).await.unwrap();
    let retention = "artifacts.age=1d".parse().unwrap();
    world.service.set_retention(&owner, None, retention).await.unwrap();
    let later = ashlar_service::now().nanos() + (DAY * days).as_nanos() as i64;
    while world.service.apply_retention(Timestamp::from_nanos(later)).await.unwrap().gone > 0 {}
}

fn tagged(tag: &str, word: &str) -> Value {
    let mut request = steps("app", &[&format!("echo {word} > /word")]);
    request["tags"] = json!([tag]);
    request
}

async fn is_there(world: &World, build: &str) -> bool {
    let build = world.status(build).await["build"].clone();
    match build["artifact_availability"]["status"].as_str().unwrap() {
        "available" => true,
        "unavailable" => false,
        other => panic!("{other}: {build}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tag_points_at_stays_and_goes_when_the_tag_does() {
    let world = World::new().await;
    // Nobody looks at the template before retention does: the name moved with the success.
    let path = "/v1/templates/build";
    let first = World::ready(&world.post(path, tagged("v1", "one")).await.entries());
    let plain = World::ready(&world.build(tagged("moving", "two")).await);
    let newest = World::ready(&world.build(tagged("moving", "three")).await);
    days_later(&world, 2).await;
    assert!(is_there(&world, &first).await, "a tag is on it");
    assert!(!is_there(&world, &plain).await, "its tag has moved on");
    assert!(is_there(&world, &newest).await);
    let row = world.status(&first).await["build"].clone();
    assert_eq!(row.get("retention_expires_at"), None, "{row}");

    // Tags that are moved by hand, and taken away.
    let promote = format!("/v1/templates/builds/{newest}/promote");
    world.post(&promote, json!({ "tag": "v1" })).await.is(200);
    assert!(world.status(&first).await["build"]["retention_expires_at"].is_string());
    days_later(&world, 4).await;
    assert!(!is_there(&world, &first).await, "no tag is on it any more");
    let last = World::ready(&world.build(tagged("other", "four")).await);
    for tag in ["v1", "moving"] {
        world.delete(&format!("/v1/templates/app/tags/{tag}")).await.is(204);
    }
    days_later(&world, 6).await;
    assert!(!is_there(&world, &newest).await, "its tags were taken away");
    assert!(is_there(&world, &last).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_a_retry_brings_keeps_the_retried_build() {
    let world = World::new().await;
    let first = World::ready(&world.build(tagged("a", "one")).await);
    let retry = format!("/v1/templates/builds/{first}/retry");
    let retried = world.post(&retry, json!({ "tags": ["b"] })).await.is(202);
    let retried = retried["build_id"].as_str().unwrap().to_owned();
    assert_eq!(world.ended(&retried).await["build"]["status"], "ready");
    World::ready(&world.build(tagged("c", "two")).await);
    world.delete("/v1/templates/app/tags/a").await.is(204);
    days_later(&world, 2).await;
    assert!(!is_there(&world, &first).await);
    assert!(is_there(&world, &retried).await, "the tag of the retry is on it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_was_moved_later_than_a_build_ended_stays_where_it_is() {
    let world = World::new().await;
    let wanted = World::ready(&world.build(tagged("wanted", "one")).await);
    let slow = world.post("/v1/templates/builds", tagged("prod", "two")).await.is(202);
    let slow = slow["build_id"].as_str().unwrap().to_owned();
    world.get(&format!("/v1/templates/builds/{slow}/logs?follow=true")).await;
    // Each look finds out about the end of the other build, and settles it.
    let promote = format!("/v1/templates/builds/{wanted}/promote");
    world.post(&promote, json!({ "tag": "prod" })).await.is(200);
    world.delete("/v1/templates/app/tags/wanted").await.is(204);
    World::ready(&world.build(tagged("newest", "three")).await);
    days_later(&world, 2).await;
    assert!(is_there(&world, &wanted).await, "the tag was moved to it by hand");
    assert!(!is_there(&world, &slow).await);
}
