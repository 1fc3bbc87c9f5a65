//! How long builds are kept that came through the dialect.

use ashlar_service::now;
use serde_json::json;

use crate::support::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn old_successes_go_and_the_last_good_of_each_name_stays() {
    let world = World::running().await;
    world.project("first").await;
    let spec = "{version: 1, kind: build, image: busybox}";
    let mut builds = Vec::new();
    for name in [None, Some("nightly"), Some("nightly"), None] {
        let path = "/api/v1/acme/first/builds/";
        let made = world.post(path, json!({ "content": spec, "name": name })).await.is(201);
        let path = format!("{path}{}/", made["id"]);
        assert_eq!(world.ended(&path).await["last_status"], "succeeded");
        builds.push((path.clone(), world.id(&path).await));
    }
    let owner = world.service.act_for(world.service.admin(), "acme").await.unwrap();
    let tags = world.service.tags_of(&owner, builds[0].1).await.unwrap();
    let [tag] = tags.as_slice() else { panic!("one image name each: {tags:?}") };
    let bounds = "records.count=1".parse().unwrap();
    world.service.set_retention(&owner, None, bounds).await.unwrap();
    for _ in 0..2 {
        world.service.apply_retention(now()).await.unwrap();
    }
    // The newest success of each name, or of the project's builds without one, is exempt.
    let mut left = Vec::new();
    for (path, _) in &builds {
        left.push(world.get(path).await.status.as_u16());
    }
    assert_eq!(left, [404, 404, 200, 200]);
    assert!(world.service.resolve_tag(&owner, tag).await.is_err(), "its name went with it");
    assert_eq!(world.get("/api/v1/acme/first/builds/").await.is(200)["count"], 2);
}
