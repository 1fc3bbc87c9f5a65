//! The history of a template.

use ashlar_core::BuildId;
use serde_json::{Value, json};

use crate::support::{World, steps};

async fn ids(world: &World, path: &str) -> (Vec<String>, Option<String>) {
    let page = world.get(path).await.is(200);
    let id = |b: &Value| b["build_id"].as_str().unwrap().to_owned();
    let next = page.get("next_cursor").map(|c| c.as_str().unwrap().to_owned());
    (page["builds"].as_array().unwrap().iter().map(id).collect(), next)
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_neither_repeat_nor_hide_rows_while_builds_are_added() {
    let world = World::new().await;
    let mut built = Vec::new();
    for i in 0..5 {
        let command = format!("echo {i}");
        built.insert(0, World::ready(&world.build(steps("app", &[&command])).await));
    }
    let path = "/v1/templates/refs/app/builds?limit=2";
    let (first, cursor) = ids(&world, path).await;
    assert_eq!(first, built[..2]);
    let cursor = cursor.unwrap();
    assert!(cursor.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    World::ready(&world.build(steps("app", &["echo new"])).await);
    let (second, next) = ids(&world, &format!("{path}&cursor={cursor}")).await;
    assert_eq!(second, built[2..4]);
    let (third, end) = ids(&world, &format!("{path}&cursor={}", next.unwrap())).await;
    assert_eq!((third, end), (built[4..].to_vec(), None));
    let (exact, end) = ids(&world, "/v1/templates/refs/app/builds?limit=6").await;
    assert_eq!((exact.len(), end), (6, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_hold_together_and_reach_all_attempts() {
    let world = World::new().await;
    World::ready(&world.build(steps("app", &["true"])).await);
    world.build(steps("app", &["false"])).await;
    World::ready(
        &world.build(json!({ "name": "app", "dockerfile": "FROM busybox\nRUN true" })).await,
    );
    let count = async |query: &str| {
        // Whatever the reference says of a tag, the history is the template's.
        ids(&world, &format!("/v1/templates/refs/app%3Adefault/builds?{query}")).await.0.len()
    };
    for (query, want) in [
        ("", 3),
        ("status=ready", 2),
        ("status=error", 1),
        ("status=waiting", 0),
        ("backend=buildkit", 1),
        ("source_type=declarative", 2),
        ("status=error&source_type=dockerfile", 0),
        ("status=ready&backend=native", 1),
    ] {
        assert_eq!(count(query).await, want, "{query}");
    }
    let rows = world.get("/v1/templates/app/builds").await.is(200);
    for row in rows["builds"].as_array().unwrap() {
        for key in ["cache_summary", "artifact_availability", "promotability"] {
            assert!(row[key].is_object(), "{row}");
        }
        for absent in ["error", "error_detail", "canonical_ref", "namespace_slug", "visibility"] {
            assert!(row.get(absent).is_none(), "{row}");
        }
    }
    for bad in ["limit=0", "limit=101", "limit=x", "status=done", "cursor=zz", "backend=x"] {
        let path = format!("/v1/templates/app/builds?{bad}");
        world.get(&path).await.refused(400, "invalid_request");
    }
    world.get("/v1/templates/refs/nothing/builds").await.refused(404, "template_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_artifacts_is_what_the_store_has() {
    let world = World::new().await;
    let first = World::ready(&world.build(steps("app", &["echo 1 > /1"])).await);
    let second = World::ready(&world.build(steps("app", &["echo 2 > /2"])).await);
    let row = async |id: &str| {
        let rows = world.get("/v1/templates/app/builds").await.is(200);
        let rows = rows["builds"].as_array().unwrap().clone();
        rows.into_iter().find(|r| r["build_id"] == id).unwrap()
    };
    for id in [&first, &second] {
        let row = row(id).await;
        assert_eq!(row["artifact_availability"]["status"], "available");
        assert_eq!(row.get("retention_expires_at"), None, "nothing goes by itself");
    }
    let owner = world.service.authenticate(&world.owner).await.unwrap();
    let retention = "artifacts.age=1d".parse().unwrap();
    world.service.set_retention(&owner, None, retention).await.unwrap();
    // The tag is on the second build.
    assert!(row(&first).await["retention_expires_at"].is_string());
    assert_eq!(row(&second).await.get("retention_expires_at"), None);
    let status = world.status(&first).await;
    assert_eq!(status["build"]["retention_expires_at"], row(&first).await["retention_expires_at"]);
    // Taken away behind the record's back.
    let build: BuildId = first.trim_start_matches("tb_").parse().unwrap();
    let record = world.service.row(&owner, build).await.unwrap();
    let (data, digest) = (world.data.path().to_owned(), record.artifacts[0].digest);
    std::fs::remove_file(data.join(format!("images/records/{}.json", digest.hex()))).unwrap();
    let gone = row(&first).await;
    assert_eq!(gone["artifact_availability"]["status"], "unavailable", "{gone}");
    assert_eq!(gone["promotability"]["status"], "purged");
    assert_eq!(gone["promotability"]["promotable"], false);
    let promote = format!("/v1/templates/builds/{first}/promote");
    world.post(&promote, json!({ "tag": "old" })).await.refused(409, "conflict");
}
