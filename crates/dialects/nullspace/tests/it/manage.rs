//! Templates: fields, names, tags, deletion.

use axum::body::Body;
use serde_json::json;

use crate::support::{World, steps};

#[tokio::test(flavor = "multi_thread")]
async fn fields_choose_what_is_shown() {
    let world = World::new().await;
    World::ready(&world.build(steps("app", &["true"])).await);
    world.build(steps("never", &["false"])).await;
    let all = world.get("/v1/templates").await.is(200);
    assert_eq!(all.as_array().unwrap().len(), 1, "only what has a build that is ready");
    let keys: Vec<&String> = all[0].as_object().unwrap().keys().collect();
    assert!(keys.len() >= 9, "{keys:?}");
    let some = world.get("/v1/templates?fields=name,tags").await.is(200);
    assert_eq!(some, json!([{ "name": "app", "tags": ["default"] }]));
    let one = world.get("/v1/templates/app?fields=canonical_ref").await.is(200);
    assert_eq!(one, json!({ "canonical_ref": "acme/app" }));
    for path in
        ["/v1/templates?fields=nope", "/v1/templates/app?fields=", "/v1/templates?fields=a,,b"]
    {
        world.get(path).await.refused(400, "invalid_fields");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_found_by_every_form_of_its_name() {
    let world = World::new().await;
    let entries = world.build(steps("app", &["true"])).await;
    let (build, id) = (World::ready(&entries), entries[0]["template_id"].as_str().unwrap());
    let status = world.status(&build).await;
    let artifact = status["build"]["artifact_ids"][0].as_str().unwrap().to_owned();
    for path in [
        format!("/{id}"),
        "/app".into(),
        "/app:default".into(),
        format!("/app:{build}"),
        format!("/{artifact}"),
        "/refs/app".into(),
        "/refs/acme/app".into(),
        "/refs/acme%2Fapp%3Adefault".into(),
        format!("/refs/{id}"),
        "/refs/nullspace%2Fapp%3Alatest".into(),
    ] {
        let info = world.get(&format!("/v1/templates{path}")).await.is(200);
        assert_eq!(info["id"], json!(id), "{path}");
    }
    for missing in ["/app:v2", "/app:tb_0", "/tmpl_0", "/refs/acme%2Fnothing", "/refs/other%2Fapp"]
    {
        world.get(&format!("/v1/templates{missing}")).await.refused(404, "template_not_found");
    }
    for bad in ["/refs/a%20b", "/refs/UPPER%2Fapp", "/app:v:w", "/refs/%2E%2E"] {
        world.get(&format!("/v1/templates{bad}")).await.refused(400, "invalid_request");
    }
    // A template may be called as a part of another one's path.
    World::ready(&world.build(steps("tags", &["true"])).await);
    let info = world.get("/v1/templates/refs/acme/tags").await.is(200);
    assert_eq!(info["name"], "tags");
    let tags = world.get("/v1/templates/refs/acme/tags/tags").await.is(200);
    assert_eq!(tags[0]["tag"], "default");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_given_moved_and_taken() {
    let world = World::new().await;
    let first = World::ready(&world.build(steps("app", &["echo 1"])).await);
    let second = World::ready(&world.build(steps("app", &["echo 2"])).await);
    let tags = "/v1/templates/app/tags";
    let assign = |reference: &str| format!("/v1/templates/refs/{reference}/tags");
    let exact = format!("app:{first}");
    world.post(&assign(&exact), json!({ "tags": ["old", "default"] })).await.is(200);
    let all = world.get(tags).await.is(200);
    assert_eq!((&all[0]["build_id"], &all[1]["build_id"]), (&json!(first), &json!(first)));
    world.post(&assign(&format!("app:{second}")), json!({ "tags": ["default"] })).await.is(200);
    world.delete(&format!("{tags}/default")).await.is(204);
    world.delete(&format!("{tags}/default")).await.refused(404, "template_not_found");
    let info = world.get("/v1/templates/app").await.is(200);
    assert_eq!((&info["tags"], info.get("default_tag")), (&json!(["old"]), None));
    // With no default, a bare name means the newest that is ready.
    world.post(&assign("app"), json!({ "tags": ["new"] })).await.is(200);
    assert_eq!(world.get(tags).await.is(200)[0]["build_id"], json!(second));
    for bad in
        [json!({}), json!({ "tags": [] }), json!({ "tags": ["tb_x"] }), json!({ "tags": ["a b"] })]
    {
        world.post(&assign("app"), bad).await.refused(400, "invalid_request");
    }
    world
        .post(&assign("app:nope"), json!({ "tags": ["x"] }))
        .await
        .refused(404, "template_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_template_keeps_ids_builds_and_old_names() {
    let world = World::new().await;
    let entries = world.build(steps("one", &["true"])).await;
    let (build, id) = (World::ready(&entries), entries[0]["template_id"].clone());
    World::ready(&world.build(steps("taken", &["true"])).await);
    let rename = "/v1/templates/refs/one/rename";
    for (name, status, code) in
        [("taken", 409, "conflict"), ("a/b", 400, "invalid_request"), ("", 400, "invalid_request")]
    {
        world.post(rename, json!({ "new_name": name })).await.refused(status, code);
    }
    world.post(rename, json!({ "new_name": "two" })).await.is(200);
    world.post(rename, json!({ "new_name": "three" })).await.is(200);
    for name in ["one", "two", "three"] {
        assert_eq!(world.get(&format!("/v1/templates/{name}")).await.is(200)["id"], id, "{name}");
    }
    assert_eq!(world.status(&build).await["build"]["name"], "three");
    let aliases = world.get("/v1/templates/three/aliases").await.is(200);
    let refs: Vec<_> = aliases.as_array().unwrap().iter().map(|a| a["alias_ref"].clone()).collect();
    assert_eq!(refs, [json!("acme/one"), json!("acme/two")]);
    // An old name still builds the same template, and may become the name again.
    assert_eq!(world.build(steps("one", &["echo"])).await[0]["template_id"], id);
    world.post(rename, json!({ "new_name": "one" })).await.is(200);
    world.delete("/v1/templates/one/aliases/acme%2Ftwo").await.is(204);
    world.get("/v1/templates/two").await.refused(404, "template_not_found");
    world.delete("/v1/templates/one/aliases/nope").await.refused(404, "template_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_template_is_gone_and_its_name_free() {
    let world = World::new().await;
    let entries = world.build(steps("app", &["true"])).await;
    let (build, id) = (World::ready(&entries), entries[0]["template_id"].clone());
    let running = world.post("/v1/templates/builds", steps("app", &["sleep 100"])).await.is(202);
    world.delete("/v1/templates/refs/app:default").await.is(204);
    world.get("/v1/templates/app").await.refused(404, "template_not_found");
    world
        .get(&format!("/v1/templates/builds/{build}"))
        .await
        .refused(404, "template_build_not_found");
    let entries = world.build(steps("app", &["true"])).await;
    assert_ne!(entries[0]["template_id"], id);
    let history = world.get("/v1/templates/app/builds").await.is(200);
    assert_eq!(history["builds"].as_array().unwrap().len(), 1);
    // What ran is stopped, and forgotten when it has ended.
    let id = running["build_id"].as_str().unwrap().strip_prefix("tb_").unwrap();
    let id = ashlar_core::BuildId::from_uuid(uuid::Uuid::try_parse(id).unwrap());
    let admin = world.service.admin().clone();
    let gone = async {
        while world.service.row(&admin, id).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_told() {
    let world = World::new().await;
    let own = world.get("/v1/templates/namespaces/acme").await.is(200);
    assert_eq!(own, json!({ "slug": "acme", "kind": "user", "is_default": true }));
    let system = world.get("/v1/templates/namespaces/nullspace").await.is(200);
    assert_eq!((&system["kind"], &system["is_default"]), (&json!("system"), &json!(false)));
    world.get("/v1/templates/namespaces/other").await.refused(404, "not_found");
    let patch =
        world.send(Some(&world.owner), "PATCH", "/v1/templates/x/visibility", Body::from("{}"));
    patch.await.refused(404, "template_not_found");
}

fn uuid_of(id: &str) -> ashlar_core::BuildId {
    let digits = id.strip_prefix("tb_").unwrap();
    ashlar_core::BuildId::from_uuid(uuid::Uuid::try_parse(digits).unwrap())
}

/// Waits until a build is forgotten.
async fn gone(world: &World, build: ashlar_core::BuildId) {
    let gone = async {
        while world.service.row(world.service.admin(), build).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_was_cut_off_goes_on_when_the_routes_are_made_again() {
    let world = World::new().await;
    let admin = world.service.admin().clone();
    let older = uuid_of(&World::ready(&world.build(steps("app", &["true"])).await));
    let newer = uuid_of(&World::ready(&world.build(steps("app", &["true"])).await));
    world.service.pin(&admin, newer, true).await.unwrap();
    world.delete("/v1/templates/app").await.is(204);
    // Builds go newest first: when the older one is gone, the newer was passed over.
    gone(&world, older).await;
    world.service.pin(&admin, newer, false).await.unwrap();
    world.service.row(&admin, newer).await.unwrap();
    world.get("/v1/templates/app").await.refused(404, "template_not_found");
    assert_eq!(world.get("/v1/templates").await.is(200), json!([]));
    // Its name is free meanwhile, and what is made of it has nothing to do with the old one.
    let made = uuid_of(&World::ready(&world.build(steps("app", &["true"])).await));
    drop(ashlar_dialect_nullspace::router(std::sync::Arc::clone(&world.service)));
    gone(&world, newer).await;
    world.service.row(&admin, made).await.unwrap();
    let history = world.get("/v1/templates/app/builds").await.is(200);
    assert_eq!(history["builds"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_with_the_server_is_nobodys_to_change() {
    let world = World::new().await;
    let build = World::ready(&world.build(steps("app", &["true"])).await);
    for name in ["app:latest", "app:default", "app", "nothing:latest", &format!("app:{build}")] {
        let path = format!("/v1/templates/refs/nullspace%2F{}", name.replace(':', "%3A"));
        let refused = async |method: &str, rest: &str, body: serde_json::Value| {
            let path = format!("{path}{rest}");
            let reply = world.send(Some(&world.owner), method, &path, body.to_string()).await;
            reply.refused(400, "invalid_request");
        };
        refused("DELETE", "", json!({})).await;
        refused("POST", "/rename", json!({ "new_name": "mine" })).await;
        refused("PATCH", "/visibility", json!({ "visibility": "public" })).await;
        refused("POST", "/tags", json!({ "tags": ["v1"] })).await;
        refused("GET", "/tags", json!({})).await;
        refused("DELETE", "/tags/default", json!({})).await;
        refused("DELETE", "/aliases/app", json!({})).await;
    }
    let info = world.get("/v1/templates/app").await.is(200);
    assert_eq!((&info["tags"], &info["visibility"]), (&json!(["default"]), &json!("private")));
    // Such a name still stands for the caller's own where something is built on it.
    let mut request = steps("child", &["true"]);
    request["base_image"] = json!("nullspace/app:latest");
    World::ready(&world.build(request).await);
}
