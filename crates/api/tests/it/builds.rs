//! Builds from submission to result, on both databases.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, World, id, send, tar_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_build_runs_and_its_record_says_so_on_sqlite() {
    whole_life(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_runs_and_its_record_says_so_on_postgres() {
    whole_life(&World::postgres().await).await;
}

async fn whole_life(world: &World) {
    let client = world.tenant("acme", "owner").await;
    let archive = tar_of(&[("in/hello.txt", "hello\n")]);
    let request = client.request(Method::POST, "/api/v1/contexts");
    let kept = send(request.header("content-type", "application/x-tar").body(archive)).await;
    let context = kept.is(201).json()["digest"].clone();
    let ask = json!({
        "name": "app", "scope": "web", "context": context, "labels": {"team": "blue"},
        "dockerfile": "FROM base\nCOPY in /in\nRUN cat /in/hello.txt >/out; cat /out\n",
        "tags": ["web/app:v1"],
    });
    let built = client.built(&ask).await;
    assert_eq!(built["steps"], json!({"total": 3, "ended": 3, "cached": 0}));
    assert_eq!(built["cache"]["layer"]["misses"], 2);
    assert_eq!(built["cache"]["file_blob"]["misses"], 1);
    assert_eq!(built["attempt"], 1);
    let again = client.built(&ask).await;
    assert_eq!(again["cache"]["final_artifact"]["hits"], 1);
    assert_eq!(again["artifacts"][0]["digest"], built["artifacts"][0]["digest"]);

    let tags = client.get("/api/v1/tags?prefix=web/").await.is(200).json();
    assert_eq!(tags["tags"], json!([{"tag": "web/app:v1", "build": id(&again)}]));
    let promote = format!("/api/v1/builds/{}/promote", id(&built));
    client.post(&promote, &json!({"tags": ["web/app:v1", "web/app:old"]})).await.is(200);
    let listed = client.get("/api/v1/tags").await.json();
    let leads = listed["tags"].as_array().unwrap().iter().all(|t| t["build"] == built["id"]);
    assert!(leads, "{listed}");

    for query in ["label=team=blue", "q=label:team=blue+state:succeeded+APP", "scope=web&limit=2"] {
        let found = client.get(&format!("/api/v1/builds?{query}")).await.is(200).json();
        assert_eq!(found["builds"].as_array().unwrap().len(), 2, "{query}");
    }
    let first = client.get("/api/v1/builds?limit=1").await.json();
    assert_eq!(first["builds"][0]["id"], again["id"]);
    let cursor = first["next"].as_str().unwrap();
    let second = client.get(&format!("/api/v1/builds?limit=1&cursor={cursor}")).await.json();
    assert_eq!(second["builds"][0]["id"], built["id"]);
    assert_eq!(second.get("next"), None);
    let numbered = client.get("/api/v1/builds?limit=1&page=2").await.json();
    assert_eq!((&numbered["total"], &numbered["builds"][0]["id"]), (&json!(2), &built["id"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_says_what_where_and_with_which_code() {
    let world = World::new().await;
    let build = world.admin.dockerfile("FROM base\nRUN echo oh no >&2; exit 7\n").await;
    let failed = world.admin.wait(&build).await;
    assert_eq!(failed["state"], "failed");
    assert_eq!(failed["failure"]["kind"], "step");
    assert_eq!(failed["failure"]["exit_code"], 7);
    assert_eq!(failed["failure"]["last_lines"], json!(["oh no"]));
    let build = world.admin.dockerfile("FROM base\nRUNN x\n").await;
    let failed = world.admin.wait(&build).await;
    assert_eq!(failed["failure"]["kind"], "definition");
    assert_eq!(failed["failure"]["location"]["line"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_on_an_earlier_build_and_images_as_they_are() {
    let world = World::new().await;
    let client = &world.admin;
    let steps = json!([{"action": "run", "command": "echo one >/one"}]);
    let runtime = json!({"envs": {"PORT": "80"}});
    let ask = json!({"scope": "t", "base": "base", "steps": steps, "runtime": runtime});
    let parent = client.built(&ask).await;
    let steps = json!([{"action": "run", "command": "cat /one; echo $PORT"}]);
    let ask = json!({"scope": "t", "base_build": id(&parent), "steps": steps});
    let child = client.built(&ask).await;
    let log = client.get(&format!("/api/v1/builds/{}/logs?format=text", id(&child))).await;
    assert_eq!(log.text(), "one\n80\n");
    let config = client.get(&format!("/api/v1/builds/{}/image", id(&child))).await.is(200).json();
    let env = config["config"]["Env"].as_array().unwrap();
    assert!(env.contains(&json!("PORT=80")), "{config}");
    let plain = client.built(&json!({"scope": "t", "image": "base"})).await;
    assert_eq!(plain["source"], "image");
    let stranger = world.tenant("other", "owner").await;
    let ask = json!({"base_build": id(&parent), "steps": steps});
    stranger.post("/api/v1/builds", &ask).await.is(400);
    let tenant = parent["tenant"].as_str().unwrap();
    let sneaky = format!("FROM build.ashlar.internal/{tenant}/{}\nRUN cat /one\n", id(&parent));
    let build = stranger.dockerfile(&sneaky).await;
    assert_eq!(stranger.wait(&build).await["state"], "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_command_must_become_ready() {
    let world = World::new().await;
    let probe = |command: &str| json!({"probe": "command", "command": command, "interval_ms": 50, "grace_ms": 0, "timeout_ms": 3000});
    let start =
        json!({"command": "echo up >/tmp/up; sleep 60", "readiness": probe("test -e /tmp/up")});
    let ask = json!({"scope": "t", "image": "base", "start": start});
    world.admin.built(&ask).await;
    let start = json!({"command": "sleep 60", "readiness": probe("test -e /never")});
    let build = world.admin.submit(&json!({"scope": "t", "image": "base", "start": start})).await;
    let failed = world.admin.wait(&build).await;
    assert_eq!(failed["failure"]["kind"], "readiness", "{failed:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_ends_running_and_waiting_builds() {
    let world = World::with(|config| config.slots = 1).await;
    let client = &world.admin;
    let running = client.dockerfile("FROM base\nRUN echo begun; sleep 600\n").await;
    client.wait_for(&running, |b| b["state"] == "running").await;
    let waiting = client.dockerfile("FROM base\nRUN true\n").await;
    let cancel = |build: &str| format!("/api/v1/builds/{build}/cancel");
    let at_once =
        client.post(&cancel(&waiting), &json!({"reason": "no need"})).await.is(202).json();
    assert_eq!(at_once["state"], "cancelled");
    assert_eq!(at_once["cancellation"]["reason"], "no need");
    client.post(&cancel(&running), &json!({})).await.is(202);
    assert_eq!(client.wait(&running).await["state"], "cancelled");
    // Again, and on a build that has ended: nothing changes.
    let same = client.post(&cancel(&running), &json!({"reason": "x"})).await.is(202).json();
    assert_eq!(same["cancellation"].get("reason"), None);
    let next = client.dockerfile("FROM base\nRUN true\n").await;
    assert_eq!(client.wait(&next).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_takes_the_same_inputs_and_asks_for_secrets_again() {
    let world = World::new().await;
    let client = &world.admin;
    let text = "FROM base\nRUN --mount=type=secret,id=key cat /run/secrets/key | wc -c; exit 1\n";
    let ask = json!({"scope": "t", "dockerfile": text, "secrets": {"key": "hunter2hunter2"}});
    let build = client.submit(&ask).await;
    let failed = client.wait(&build).await;
    assert_eq!(failed["state"], "failed");
    let retry = format!("/api/v1/builds/{build}/retry");
    let missing = client.post(&retry, &json!({})).await.is(400).json();
    assert_eq!(missing["field"], "secrets");
    let secrets = json!({"secrets": {"key": "hunter2hunter2"}});
    let again = client.post(&retry, &secrets).await.is(201).json();
    assert_eq!(again["retry_of"], json!(build));
    assert!(again["definition"]["answers"].is_string(), "{again:#}");
    let again = client.wait(id(&again)).await;
    assert_eq!(again["failure"]["kind"], "step", "{again:#}");
    for build in [&failed, &again] {
        let journal = client.get(&format!("/api/v1/builds/{}/events", id(build))).await.text();
        assert!(!journal.contains("hunter2"), "{journal}");
        assert!(journal.contains("14"), "the step saw the secret: {journal}");
    }
    assert!(no_file_holds(world.data.path(), b"hunter2hunter2"));
}

fn no_file_holds(dir: &std::path::Path, needle: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().flatten().all(|entry| {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            return no_file_holds(&path, needle);
        }
        let bytes = if kind.is_file() { std::fs::read(&path).unwrap_or_default() } else { vec![] };
        !bytes.windows(needle.len()).any(|w| w == needle)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_be_repeated_with_its_key() {
    let world = World::new().await;
    let client = &world.admin;
    let ask = |name: &str| json!({"name": name, "image": "base", "idempotency_key": "k1"});
    let first = client.post("/api/v1/builds", &ask("a")).await.is(201).json();
    let second = client.post("/api/v1/builds", &ask("a")).await.is(200).json();
    assert_eq!(first["id"], second["id"]);
    client.post("/api/v1/builds", &ask("b")).await.is(409);
    // Keys are each tenant's own.
    let other = world.tenant("other", "developer").await;
    other.post("/api/v1/builds", &ask("b")).await.is(201);
    // A build that was deleted is no answer.
    let path = format!("/api/v1/builds/{}", id(&first));
    client.wait(id(&first)).await;
    client.delete(&path).await.is(204);
    let third = client.post("/api/v1/builds", &ask("a")).await.is(201).json();
    assert_ne!(first["id"], third["id"]);
    let fourth = client.post("/api/v1/builds", &ask("a")).await.is(200).json();
    assert_eq!(third["id"], fourth["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_for_builds_takes_the_header_and_prefers_it_to_the_body() {
    let world = World::new().await;
    let client = &world.admin;
    let built = client.built(&json!({"image": "base"})).await;
    let retry = format!("/api/v1/builds/{}/retry", id(&built));
    let run = json!({"nodes": [{"id": "a", "build": {"image": "base"}}]});
    let build = json!({"image": "base"});
    for (number, (path, body)) in
        [("/api/v1/builds", build), ("/api/v1/workflows", run), (&retry, json!({}))]
            .into_iter()
            .enumerate()
    {
        let post = |header: Option<String>, of_body: Option<&str>| {
            let mut body = body.clone();
            if let Some(key) = of_body {
                body["idempotency_key"] = json!(format!("{key}-{number}"));
            }
            let request = client.request(Method::POST, path).json(&body);
            send(match header {
                Some(key) => request.header("idempotency-key", format!("{key}-{number}")),
                None => request,
            })
        };
        let by = |key: &str| Some(key.to_owned());
        let first = post(by("header"), None).await.is(201).json();
        for (header, of_body) in [(by("header"), None), (by("header"), Some("body"))] {
            let again = post(header, of_body).await.is(200).json();
            assert_eq!(again["id"], first["id"], "{path}");
        }
        let other = post(None, Some("body")).await.is(201).json();
        assert_ne!(other["id"], first["id"], "{path}: the body's key was not used up");
        let again = post(None, Some("header")).await.is(200).json();
        assert_eq!(again["id"], first["id"], "{path}");
        let wrong = client.request(Method::POST, path).json(&body);
        let wrong = send(wrong.header("idempotency-key", &b"\xff"[..])).await.is(400).json();
        assert_eq!(wrong["field"], "Idempotency-Key", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_nobody_reads_and_limits_that_nothing_keeps_are_refused() {
    let world = World::with(|config| config.slots = 0).await;
    let submit = async |field: &str, value: Value| {
        let mut ask = json!({"base": "base", "steps": [{"action": "run", "command": "true"}]});
        ask[field] = value.clone();
        let run = json!({"nodes": [{"id": "a", "build": ask.clone()}]});
        let alone = world.admin.post("/api/v1/builds", &ask).await;
        let in_run = world.admin.post("/api/v1/workflows", &run).await;
        assert_eq!(alone.status, in_run.status, "{field}: {value}: {}", in_run.text());
        alone
    };
    let login = json!({"kind": "basic", "username": "u", "password": "p", "unread": 1});
    for (field, value) in [
        ("limits", json!({"unread": 1})),
        ("runtime", json!({"unread": 1})),
        ("platform", json!({"os": "linux", "architecture": "amd64", "unread": 1})),
        ("extra_hosts", json!([{"host": "h", "address": "10.0.0.1", "unread": 1}])),
        ("ulimits", json!([{"name": "nofile", "soft": 1, "hard": 1, "unread": 1}])),
        ("start", json!({"command": "true", "unread": 1})),
        ("credentials", json!({"registry.example": login})),
    ] {
        let answer = submit(field, value).await.is(400).json();
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.contains("unknown field `unread`"), "{field}: {detail}");
    }
    let most = 315_360_000;
    for (name, bad, good) in [
        ("memory_bytes", vec![json!(0)], vec![json!(1), json!(u64::MAX)]),
        ("cpus", vec![json!(0), json!(-1), json!(5000)], vec![json!(0.001), json!(4096)]),
        ("pids", vec![json!(0), json!(4_194_305)], vec![json!(1), json!(4_194_304)]),
        ("disk_bytes", vec![json!(0)], vec![json!(1)]),
        ("step_seconds", vec![json!(0), json!(most + 1)], vec![json!(1), json!(most)]),
        ("build_seconds", vec![json!(0), json!(u64::MAX)], vec![json!(1), json!(null)]),
        ("log_bytes", vec![json!(0)], vec![json!(1)]),
    ] {
        for value in bad {
            let answer = submit("limits", json!({name: value.clone()})).await.is(400).json();
            assert_eq!(answer["field"], format!("limits.{name}"), "{value}");
        }
        for value in good {
            submit("limits", json!({name: value})).await.is(201);
        }
    }
    let probe = json!({"probe": "tcp", "interval_ms": 1, "grace_ms": 1, "timeout_ms": 1});
    let answer = submit("start", json!({"command": "x", "readiness": probe})).await.is(400).json();
    assert_eq!(answer["field"], "start.readiness");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_changed_pinned_and_forgotten() {
    let world = World::new().await;
    let client = &world.admin;
    let built = client.built(&json!({"name": "a", "image": "base"})).await;
    let path = format!("/api/v1/builds/{}", id(&built));
    let change = |body: Value| send(client.request(Method::PATCH, &path).json(&body));
    let changed = change(json!({"name": "b", "pinned": true, "labels": {"x": "1"}})).await.is(200);
    let changed = changed.json();
    assert_eq!((&changed["name"], &changed["pinned"]), (&json!("b"), &json!(true)));
    assert_eq!(changed["labels"], json!({"x": "1"}));
    change(json!({"labels": {"x": null, "bad\nname": "1"}})).await.is(400);
    client.delete(&path).await.is(409);
    change(json!({"pinned": false, "labels": {"x": null}})).await.is(200);
    client.delete(&format!("{path}/artifacts/image")).await.is(200);
    let retry = client.post(&format!("{path}/promote"), &json!({"tags": ["a:b"]})).await;
    retry.is(409);
    client.delete(&path).await.is(204);
    client.get(&path).await.is(404);
    let audit = client.get("/api/v1/audit?limit=100").await.is(200).text();
    for action in ["build.submit", "build.rename", "build.pin", "artifact.remove", "build.delete"] {
        assert!(audit.contains(action), "{action}: {audit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_name_what_is_wrong() {
    let world = World::new().await;
    let wrong = async |client: &Client, body: Value, field: &str| {
        let answer = client.post("/api/v1/builds", &body).await.is(400);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json()["field"], field, "{body}");
    };
    let c = &world.admin;
    wrong(c, json!({}), "dockerfile").await;
    wrong(c, json!({"dockerfile": "FROM base", "image": "base"}), "dockerfile").await;
    wrong(c, json!({"image": "base", "name": ""}), "name").await;
    wrong(c, json!({"image": "base", "scope": "a\nb"}), "scope").await;
    wrong(c, json!({"image": "base", "backend": "magic"}), "backend").await;
    wrong(c, json!({"image": "base", "tags": ["NO"]}), "tags").await;
    wrong(c, json!({"image": "base", "unknown": 1}), "body").await;
    wrong(c, json!({"steps": [{"action": "fly"}], "base": "base"}), "steps").await;
    let nowhere = format!("sha256:{}", "0".repeat(64));
    wrong(c, json!({"image": "base", "context": nowhere}), "contexts.context").await;
    c.get("/api/v1/builds?state=done").await.is(400);
    c.get("/api/v1/builds?limit=0").await.is(400);
    c.get("/api/v1/builds?colour=blue").await.is(400);
    c.get("/api/v1/nothing").await.is(404);
    c.get("/api/v1/builds/not-an-id").await.is(404);
}
