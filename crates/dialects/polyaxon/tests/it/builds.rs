//! Builds that wait for a worker: creation, lists, changes, statuses from outside.

use serde_json::{Value, json};

use crate::support::World;

const BUILDS: &str = "/api/v1/acme/first/builds/";
const SPEC: &str = "{version: 1, kind: build, image: busybox}";

async fn world() -> World {
    let world = World::still().await;
    world.project("first").await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn three_generations_of_bodies() {
    let world = world().await;
    let nested = json!({"version": 1, "kind": "build", "build": {"image": "busybox", "build_steps": ["echo"]}});
    let flat = json!({"version": 1, "kind": "build", "image": "busybox", "build_steps": ["echo"]});
    let yaml = "version: 1\nkind: build\nimage: busybox\nbuild_steps:\n- echo\n";
    let python = "{'version': 1, 'kind': 'build', 'image': 'busybox', 'build_steps': ['echo']}";
    let locale = "ENV LC_ALL en_US.UTF-8\nENV LANG en_US.UTF-8\nENV LANGUAGE en_US.UTF-8\n";
    let table = [
        (json!({"config": nested}), &nested, nested.to_string(), locale),
        (json!({"config": flat}), &flat, flat.to_string(), ""),
        (json!({"content": yaml}), &flat, yaml.to_owned(), ""),
        (json!({"content": python}), &flat, python.to_owned(), ""),
        (json!({"content": flat.to_string()}), &flat, flat.to_string(), ""),
    ];
    for (body, config, content, locale) in table {
        let made = world.post(BUILDS, body.clone()).await.is(201);
        let page = world.get(&format!("{BUILDS}{}/", made["id"])).await.is(200);
        assert_eq!((&page["config"], &page["content"]), (config, &json!(content)), "{body}");
        let want = format!(
            "\nFROM busybox\n\n{locale}# Use bash as default shell, rather than sh\nENV SHELL /bin/bash\n\nWORKDIR /code\n\nRUN echo\nCOPY build /code\n"
        );
        assert_eq!(page["dockerfile"], want, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_has_every_field_that_any_client_looks_for() {
    let world = world().await;
    let body = json!({
        "content": "version: 1\nkind: build\nimage: busybox\ntags: [x]\nbackend: kaniko\nenvironment: {resources: {cpu: {limits: 1}, memory: {limits: 512, requests: 256}}}",
        "name": "n", "description": "d", "ttl": 60, "id": 99, "last_status": "succeeded", "user": "eve",
    });
    let made = world.post(BUILDS, body).await.is(201);
    let page = world.get(&format!("{BUILDS}{}", made["id"])).await.is(200);
    let id = &made["id"];
    let want = json!({
        "name": "n", "description": "d", "user": "owner", "tags": ["x"], "project": "acme.first",
        "unique_name": format!("acme.first.builds.{id}"), "last_status": "created", "backend": "kaniko",
        "is_managed": true, "bookmarked": false, "started_at": null, "finished_at": null,
        "node_scheduled": null, "num_jobs": 0, "num_experiments": 0, "commit": null,
        "resources": {"cpu": {"limits": 1.0, "requests": null}, "memory": {"limits": 512.0, "requests": 256.0}},
    });
    for (key, value) in want.as_object().unwrap() {
        assert_eq!(&page[key], value, "{key}");
    }
    let uuid = page["uuid"].as_str().unwrap();
    assert!(uuid.len() == 32 && uuid.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    assert_eq!(page["pod_id"], format!("plx-build-{uuid}"));
    assert!(page["created_at"].as_str().unwrap().ends_with('Z'));
    let list = world.get(BUILDS).await.is(200);
    let item = list["results"][0].as_object().unwrap();
    let only_whole = [
        "config",
        "content",
        "resources",
        "node_scheduled",
        "num_jobs",
        "num_experiments",
        "dockerfile",
        "commit",
    ];
    for key in page.as_object().unwrap().keys() {
        assert_eq!(item.contains_key(key), !only_whole.contains(&key.as_str()), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bodies_are_refused_in_the_originals_forms() {
    let world = world().await;
    let table = [
        (json!({}), json!({"non_field_errors": ["Build expects a `content`."]})),
        (json!({"config": null}), json!({"config": ["This field is required."]})),
        (json!({"content": SPEC, "ttl": "soon"}), json!(["ttl must be an integer."])),
        (
            json!({"content": SPEC, "name": "a b"}),
            json!({"name": ["Enter a valid 'slug' consisting of letters, numbers, underscores or hyphens."]}),
        ),
        (
            json!({"content": SPEC, "tags": "red"}),
            json!({"tags": ["Expected a list of items but got type \"str\"."]}),
        ),
        (
            json!({"content": SPEC, "backend": "x"}),
            json!({"backend": ["\"x\" is not a valid choice."]}),
        ),
        (json!({"content": {"a": 1}}), json!({"content": ["Not a valid string."]})),
        (
            json!({"content": SPEC, "is_managed": "maybe"}),
            json!({"is_managed": ["Must be a valid boolean."]}),
        ),
    ];
    for (body, want) in table {
        assert_eq!(world.post(BUILDS, body.clone()).await.is(400), want, "{body}");
    }
    for content in [
        "a: [",
        "{version: 1, kind: job, image: a}",
        "{version: 1, kind: build}",
        "{version: 1, kind: build, image: a, x: 1}",
    ] {
        let by_content = world.post(BUILDS, json!({"content": content})).await.is(400);
        assert!(
            by_content[0].as_str().unwrap().starts_with("Received non valid specification config.")
        );
        let by_config = world.post(BUILDS, json!({"config": content})).await.is(400);
        assert!(
            by_config["config"][0].as_str().unwrap().starts_with("Received non valid"),
            "{by_config}"
        );
    }
    assert_eq!(world.get(BUILDS).await.is(200)["count"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_made_unique_and_changes_are_kept() {
    let world = world().await;
    let make =
        async |name: &str| world.post(BUILDS, json!({"content": SPEC, "name": name})).await.is(201);
    let first = make("x").await;
    assert_eq!((&first["name"], &make("x").await["name"]), (&json!("x"), &json!("x-2")));
    assert_eq!(make("x").await["name"], "x-3");
    let path = format!("{BUILDS}{}/", first["id"]);
    let change = json!({"description": "new", "tags": ["a", "a"], "id": 5, "last_status": "failed", "content": "x"});
    let changed = world.patch(&path, change).await.is(200);
    assert_eq!((&changed["description"], &changed["tags"]), (&json!("new"), &json!(["a"])));
    assert_eq!((&changed["id"], &changed["last_status"]), (&first["id"], &json!("created")));
    assert!(changed["updated_at"].as_str() > first["updated_at"].as_str());
    let merged = world.patch(&path, json!({"tags": ["b"], "merge": true})).await.is(200);
    assert_eq!(merged["tags"], json!(["a", "b"]));
    assert_eq!(world.patch(&path, json!({"name": "x-2"})).await.is(200)["name"], "x-2-2");
    // The old name is free.
    assert_eq!(make("x").await["name"], "x");
    world.patch(&path, json!({"name": "no slug"})).await.is(400);
    let other = format!("/api/v1/acme/second/builds/{}/", first["id"]);
    world.project("second").await;
    assert_eq!(world.get(&other).await.status, 404, "a build of another project");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_sorted_and_asked() {
    let world = world().await;
    for i in 0..23 {
        let tags = if i % 2 == 0 { json!(["even"]) } else { Value::Null };
        let body = json!({"content": SPEC, "name": format!("b-{i}"), "tags": tags});
        world.post(BUILDS, body).await.is(201);
    }
    let page = async |query: &str| world.get(&format!("{BUILDS}{query}")).await.is(200);
    let names = |page: &Value| -> Vec<String> {
        let rows = page["results"].as_array().unwrap();
        rows.iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = page("").await;
    assert_eq!(
        (&first["count"], names(&first).len(), &first["previous"]),
        (&json!(23), 20, &Value::Null)
    );
    assert_eq!(names(&first)[0], "b-22");
    assert_eq!(first["next"], "http://h:1/api/v1/acme/first/builds/?limit=20&offset=20");
    let second = page("?offset=20&sort=created_at").await;
    assert_eq!(
        (names(&second), &second["next"]),
        (vec!["b-20".into(), "b-21".into(), "b-22".into()], &Value::Null)
    );
    assert_eq!(page("?query=tags:even").await["count"], 12);
    assert_eq!(page("?query=tags:~even,name:%251%25").await["count"], 7);
    assert_eq!(page("?query=status:created|running,user.username:owner").await["count"], 23);
    assert_eq!(page("?query=created_at:%3E2018-01-01%2010:30").await["count"], 23);
    assert_eq!(page("?query=finished_at:%3E2018-01-01").await["count"], 0);
    assert_eq!(page("?query=project.name:first&limit=5").await["count"], 23);
    assert_eq!(page("?query=").await["count"], 23);
    let refused = world.get(&format!("{BUILDS}?query=foo:1")).await.is(400);
    assert!(refused[0].as_str().unwrap().contains("`foo`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_waits_is_stopped_put_away_and_deleted() {
    let world = world().await;
    let path = world.build("first", SPEC).await;
    assert_eq!(world.statuses(&path).await.0, ["created"]);
    for _ in 0..2 {
        world.poke(&format!("{path}stop")).await.is_empty(200);
    }
    let (words, message) = world.statuses(&path).await;
    assert_eq!(
        (words, message.as_str()),
        (vec!["created".into(), "stopped".into()], "BuildJob was stopped.")
    );
    let page = world.get(&path).await.is(200);
    assert_eq!(
        (&page["last_status"], &page["started_at"]),
        (&json!("stopped"), &page["created_at"])
    );
    world.poke(&format!("{path}archive/")).await.is_empty(200);
    for gone in ["", "statuses/", "logs/"] {
        world.get(&format!("{path}{gone}")).await.is(404);
    }
    assert_eq!(world.get(BUILDS).await.is(200)["count"], 0);
    let archived = world.get("/api/v1/archives/acme/builds/").await.is(200);
    assert_eq!((&archived["count"], &archived["results"][0]["deleted"]), (&json!(1), &json!(true)));
    world.poke(&format!("{path}restore/")).await.is_empty(200);
    assert_eq!(world.poke(&format!("{path}restore/")).await.status, 404, "it is not archived");
    world.get(&path).await.is(200);

    let running = world.build("first", SPEC).await;
    world.poke(&format!("{running}archive/")).await.is_empty(200);
    world.poke(&format!("{running}restore/")).await.is_empty(200);
    assert_eq!(world.statuses(&running).await.1, "Build is scheduled for deletion.");
    world.delete(&path).await.is_empty(204);
    world.get(&path).await.is(404);
    assert_eq!(world.delete(&path).await.status, 404);
    world.poke(&format!("{BUILDS}invalidate/")).await.is_empty(200);
    world.poke(&format!("{running}invalidate/")).await.is_empty(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_come_from_outside_under_the_table() {
    let world = world().await;
    let made = world.post(BUILDS, json!({"is_managed": false})).await.is(201);
    let path = format!("{BUILDS}{}/", made["id"]);
    let post = async |body: Value| world.post(&format!("{path}statuses/"), body).await;
    assert_eq!(
        (&made["is_managed"], &made["last_status"], &made["content"]),
        (&json!(false), &json!("created"), &Value::Null)
    );
    let row =
        post(json!({"status": "running", "message": "m", "details": {"a": 1}, "traceback": "t"}))
            .await
            .is(201);
    assert_eq!(
        (&row["status"], &row["message"], &row["details"]["a"]),
        (&json!("running"), &json!("m"), &json!(1))
    );
    assert_eq!(row["job"], made["id"]);
    for dropped in ["running", "created", "scheduled"] {
        assert_eq!(
            post(json!({"status": dropped})).await.is(201)["status"],
            "running",
            "{dropped}"
        );
    }
    assert_eq!(world.get(&path).await.is(200)["last_status"], "running");
    assert!(world.get(&path).await.is(200)["started_at"].is_string());
    post(json!({"status": "warning"})).await.is(201);
    post(json!({"status": "upstream_failed", "message": "it broke"})).await.is(201);
    post(json!({"status": "running"})).await.is(201);
    let (words, message) = world.statuses(&path).await;
    assert_eq!(words, ["created", "running", "warning", "upstream_failed"]);
    assert_eq!(message, "it broke");
    let page = world.get(&path).await.is(200);
    assert_eq!(
        (&page["last_status"], page["finished_at"].is_string()),
        (&json!("upstream_failed"), true)
    );
    assert_eq!(post(json!({})).await.is(400), json!({"status": ["This field is required."]}));
    let unknown = post(json!({"status": "cat"})).await.is(400);
    assert_eq!(unknown, json!({"status": ["\"cat\" is not a valid choice."]}));
    post(json!({"status": "failed", "message": "x".repeat(257)})).await.is(400);
    // Rows have numbers that stay, and pages of their own.
    let rows = world.get(&format!("{path}statuses/")).await.is(200);
    let again = world.get(&format!("{path}statuses/")).await.is(200);
    assert_eq!(rows, again);
    let row = &rows["results"][2];
    let one =
        world.get(&format!("{path}statuses/{}/", row["uuid"].as_str().unwrap())).await.is(200);
    assert_eq!(&one, row);
    let numbers: Vec<u64> =
        rows["results"].as_array().unwrap().iter().map(|r| r["id"].as_u64().unwrap()).collect();
    assert!(
        numbers.windows(2).all(|w| w[0] < w[1]) && !numbers.contains(&made["id"].as_u64().unwrap())
    );
    // Others have other rows; a managed build's are its worker's.
    let managed = world.build("first", SPEC).await;
    world.get(&format!("{managed}statuses/{}/", row["uuid"].as_str().unwrap())).await.is(404);
    let kept =
        world.post(&format!("{managed}statuses/"), json!({"status": "failed"})).await.is(201);
    assert_eq!(kept["status"], "created");
    // One that is driven from outside and stopped here.
    let other = world.post(BUILDS, json!({"is_managed": false, "content": SPEC})).await.is(201);
    let other = format!("{BUILDS}{}/", other["id"]);
    world.poke(&format!("{other}stop/")).await.is_empty(200);
    assert_eq!(world.get(&other).await.is(200)["last_status"], "stopped");
    assert_eq!(world.statuses(&other).await.0, ["created", "stopped"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_look_at_statuses_at_once_and_see_the_same() {
    let world = std::sync::Arc::new(world().await);
    let path = format!("{}statuses/", world.build("first", SPEC).await);
    let looks: Vec<_> = (0..8)
        .map(|_| {
            let (world, path) = (std::sync::Arc::clone(&world), path.clone());
            tokio::spawn(async move { world.get(&path).await.is(200) })
        })
        .collect();
    let mut seen = Vec::new();
    for look in looks {
        seen.push(look.await.unwrap());
    }
    assert!(seen.windows(2).all(|w| w[0] == w[1]), "{seen:?}");
}
