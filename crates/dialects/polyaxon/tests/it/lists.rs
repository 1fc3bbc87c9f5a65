//! Lists of projects with very many builds.

use ashlar_core::journal::{BuildKind, Mode, OnLost, Submission};
use ashlar_core::{BuildId, Digest};
use ashlar_records::{Submit, new_build_id, now};
use serde_json::{Value, json};

use crate::support::World;

const BUILDS: &str = "/api/v1/acme/first/builds/";
const SPEC: &str = "{version: 1, kind: build, image: busybox}";
/// More builds than any list looks at one by one.
const MANY: usize = 5001;

/// Adds builds that a list counts, without what the dialect keeps beside their records: a page that
/// looked at more than its own builds would be seen to.
async fn add_many(world: &World, like: BuildId, label: &str) {
    let store = world.records().await;
    let tenant = world.service.act_for(world.service.admin(), "acme").await.unwrap();
    let like = world.service.row(&tenant, like).await.unwrap().submission;
    for _ in 0..MANY {
        let submission = Submission {
            build: new_build_id(now()).unwrap(),
            kind: BuildKind::Build,
            mode: Mode::External,
            on_lost: OnLost::Fail,
            definition: Value::Null,
            definition_digest: Digest::of("null"),
            labels: [("polyaxon.listed".to_owned(), label.to_owned())].into(),
            ..like.clone()
        };
        store.submit(&Submit::new(submission), now()).await.unwrap();
    }
    store.close().await;
}

fn names(page: &Value) -> Vec<&str> {
    page["results"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_long_list_is_found_by_its_place() {
    let world = World::still().await;
    let project = world.project("first").await;
    let mut last = String::new();
    for number in 0..30 {
        let body = json!({ "content": SPEC, "name": format!("b-{number}") });
        last = format!("{BUILDS}{}/", world.post(BUILDS, body).await.is(201)["id"]);
    }
    let page = async |query: &str| world.get(&format!("{BUILDS}{query}")).await.is(200);
    let before = world.get(&last).await.is(200)["created_at"].as_str().unwrap().to_owned();
    let short = page("").await;
    add_many(&world, world.id(&last).await, project["uuid"].as_str().unwrap()).await;

    // The last pages, wherever they begin, hold the oldest builds.
    let total = MANY + 30;
    for (offset, first, count) in
        [(MANY, "b-29", 20), (MANY + 7, "b-22", 20), (MANY + 25, "b-4", 5)]
    {
        let page = page(&format!("?offset={offset}")).await;
        assert_eq!(
            (&page["count"], names(&page).len(), names(&page)[0]),
            (&json!(total), count, first)
        );
    }
    assert_eq!(names(&page(&format!("?offset={MANY}")).await), names(&short), "the same order");
    let oldest = page("?sort=created_at&limit=7&offset=3").await;
    assert_eq!((names(&oldest).len(), names(&oldest)[0]), (7, "b-3"));
    assert_eq!(page("?offset=999999&limit=1").await["results"], json!([]));
    assert!(page("?limit=100000").await["results"].as_array().unwrap().len() <= 1000);
    assert_eq!(world.get("/api/v1/acme/first/").await.is(200)["num_builds"], total);

    // What builds have to be looked at for is refused, and works on a part of the list.
    for query in ["?query=tags:red", "?sort=finished_at", "?query=status:created"] {
        let refused = world.get(&format!("{BUILDS}{query}")).await.is(400);
        assert!(refused[0].as_str().unwrap().contains("created_at"), "{query}: {refused}");
    }
    let part = format!("created_at:%3C{before}");
    assert_eq!(page(&format!("?query={part}")).await["count"], 29, "all but the last");
    assert_eq!(page(&format!("?query={part},name:b-1%25")).await["count"], 11);
    assert_eq!(page("?query=status:stopped").await["count"], 0);
    world.poke(&format!("{last}stop/")).await.is_empty(200);
    let stopped = page("?query=status:stopped&sort=-created_at").await;
    assert_eq!((&stopped["count"], names(&stopped)), (&json!(1), vec!["b-29"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_made_again_beside_the_dialect_is_in_no_list_of_it() {
    let world = World::still().await;
    world.project("first").await;
    let path = world.build("first", SPEC).await;
    let id = world.id(&path).await;
    world.poke(&format!("{path}stop/")).await.is_empty(200);
    let owner = world.service.act_for(world.service.admin(), "acme").await.unwrap();
    let again = world.service.retry(&owner, id, ashlar_service::RetryRequest::default()).await;
    let again = again.unwrap().record;
    assert!(again.labels.contains_key("project") && !again.labels.contains_key("polyaxon.listed"));
    assert_eq!(world.get(BUILDS).await.is(200)["count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_many_builds_are_made_unique() {
    let world = World::still().await;
    world.project("first").await;
    let mut names = Vec::new();
    for _ in 0..9 {
        let made = world.post(BUILDS, json!({ "content": SPEC, "name": "x" })).await.is(201);
        names.push(made["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(names, ["x", "x-2", "x-3", "x-4", "x-5", "x-6", "x-7", "x-8", "x-9"]);
}
