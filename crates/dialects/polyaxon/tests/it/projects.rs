//! Projects and their bookmarks.

use serde_json::{Value, json};

use crate::support::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_project_from_creation_to_its_end() {
    let world = World::still().await;
    // What the CLI sends: every key, most of them null.
    let body = json!({
        "name": "quick-start", "description": "d", "tags": ["a"], "is_public": false, "readme": "r",
        "id": null, "user": null, "uuid": null, "created_at": null, "num_builds": null,
    });
    let made = world.post("/api/v1/projects/", body).await.is(201);
    assert_eq!((&made["user"], &made["owner"]), (&json!("acme"), &json!("acme")));
    assert_eq!(made["unique_name"], "acme.quick-start");
    assert_eq!(made["uuid"].as_str().unwrap().len(), 32);
    assert!(made.get("bookmarked").is_none() && made["id"].is_u64());
    let taken = world.post("/api/v1/projects/", json!({"name": "quick-start"})).await.is(400);
    assert_eq!(taken, json!(["A project with name `quick-start` already exists."]));
    for bad in [
        json!({}),
        json!({"name": "a b"}),
        json!({"name": "api"}),
        json!({"name": "x".repeat(129)}),
    ] {
        let refused = world.post("/api/v1/projects/", bad).await.is(400);
        assert!(refused["name"][0].is_string(), "{refused}");
    }
    world.project("second").await;
    let page = world.get("/api/v1/acme/").await.is(200);
    assert_eq!(page["count"], 2);
    assert_eq!(page["results"][0]["name"], "second");
    assert_eq!(page["results"][0]["bookmarked"], false);
    let names = world.get("/api/v1/acme/projects/names").await.is(200);
    assert_eq!(names["results"][1], json!({"user": "acme", "unique_name": "acme.quick-start"}));

    let path = "/api/v1/acme/quick-start/";
    let full = world.get(path).await.is(200);
    assert_eq!(
        (&full["has_code"], &full["num_builds"], &full["readme"]),
        (&json!(false), &json!(0), &json!("r"))
    );
    let change = json!({"description": null, "tags": ["b"], "merge": true, "id": 99});
    let changed = world.patch(path, change).await.is(200);
    assert_eq!((&changed["description"], &changed["tags"]), (&Value::Null, &json!(["a", "b"])));
    assert_eq!(changed["id"], full["id"]);
    world.patch(path, json!({"name": "second"})).await.is(400);
    let renamed = world.patch(path, json!({"name": "third"})).await.is(200);
    assert_eq!(renamed["unique_name"], "acme.third");
    world.get(path).await.is(404);

    let path = "/api/v1/acme/third/";
    world.poke(&format!("{path}archive/")).await.is_empty(200);
    world.get(path).await.is(404);
    assert_eq!(world.get("/api/v1/acme/").await.is(200)["count"], 1);
    let archived = world.get("/api/v1/archives/acme/projects/").await.is(200);
    assert_eq!(
        (&archived["results"][0]["name"], &archived["results"][0]["deleted"]),
        (&json!("third"), &json!(true))
    );
    world.poke(&format!("{path}restore/")).await.is_empty(200);
    world.get(path).await.is(200);
    let build = world.build("third", "{version: 1, kind: build, image: busybox}").await;
    assert_eq!(world.get(path).await.is(200)["num_builds"], 1);
    world.delete(path).await.is_empty(204);
    for gone in [path, build.as_str()] {
        world.get(gone).await.is(404);
    }
    // The name is free again, and nothing of the old one is there.
    world.project("third").await;
    assert_eq!(world.get("/api/v1/acme/third/builds/").await.is(200)["count"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bookmarks_are_each_users_own_and_leave_a_trace() {
    let world = World::still().await;
    world.project("first").await;
    let build = world.build("first", "{version: 1, kind: build, image: busybox}").await;
    for path in ["/api/v1/acme/first/", build.as_str()] {
        assert_eq!(world.delete(&format!("{path}unbookmark/")).await.status, 404, "never marked");
        for _ in 0..2 {
            world.poke(&format!("{path}bookmark/")).await.is_empty(201);
        }
        assert_eq!(world.get(path).await.is(200)["bookmarked"], true);
        let other = world.reader().await;
        let seen = world.send(Some(&other), "GET", path, None).await.is(200);
        assert_eq!(seen["bookmarked"], false);
    }
    for (kind, key) in [("builds", "unique_name"), ("projects", "name")] {
        let page = world.get(&format!("/api/v1/bookmarks/owner/{kind}/")).await.is(200);
        assert_eq!(page["count"], 1, "{page}");
        let object = &page["results"][0]["content_object"];
        assert!(object[key].is_string() && object.get("bookmarked").is_none(), "{page}");
    }
    let other = world.reader().await;
    let theirs =
        world.send(Some(&other), "GET", "/api/v1/bookmarks/owner/builds/", None).await.is(200);
    assert_eq!(theirs["count"], 0);
    for path in ["/api/v1/acme/first/", build.as_str()] {
        for _ in 0..2 {
            world.delete(&format!("{path}unbookmark/")).await.is_empty(204);
        }
        assert_eq!(world.get(path).await.is(200)["bookmarked"], false);
    }
    assert_eq!(world.get("/api/v1/bookmarks/owner/builds/").await.is(200)["count"], 0);
}
