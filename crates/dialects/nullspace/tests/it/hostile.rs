//! Bad and hostile requests: each is refused with a JSON error, before anything is begun.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{World, steps};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused_and_leave_no_template() {
    let world = World::new().await;
    let copy = |source: &str| json!({ "action": "copy", "sources": [source], "dst": "/x" });
    let steps = |step: Value| json!({ "name": "x", "base_image": "busybox", "steps": [step] });
    let with = |key: &str, value: Value| {
        let mut request = json!({ "name": "x", "base_image": "busybox" });
        request[key] = value;
        request
    };
    let docker = |key: &str, value: Value| {
        let mut request = json!({ "name": "x", "dockerfile": "FROM busybox" });
        request[key] = value;
        request
    };
    let cases = [
        json!({}),
        json!([]),
        json!("text"),
        json!({ "name": "x" }),
        with("name", json!("a/b")),
        with("name", json!(7)),
        with("name", json!("")),
        with("name", json!("tmpl_x")),
        with("alias", json!(1)),
        with("tags", json!([])),
        with("tags", json!(["tb_1"])),
        with("tags", json!("v1")),
        with("base_image", json!("UPPER CASE")),
        with("base_image", json!("a@sha256:1")),
        with("build_backend", json!("docker")),
        with("build_envs", json!({ "A": 1 })),
        with("build_envs", json!({ "A=B": "1" })),
        with("build_envs", json!({ "A": "x".repeat((128 << 10) - 2) })),
        with("runtime_config", json!({ "default_envs": { "A": "x".repeat(128 << 10) } })),
        with("build_config", json!({ "vcpus": "2" })),
        with("build_config", json!({ "vcpus": 1.5 })),
        with("build_secrets", json!([{ "id": "a", "value": "b" }])),
        with("runtime_config", json!({ "readiness": { "kind": "tcp" } })),
        with("skip_cache", json!("yes")),
        with("steps", json!({})),
        with("dockerfile", json!("FROM busybox")),
        with("base_image_auth", json!({ "kind": "magic" })),
        with("registry_auth", json!([{ "registry": "a/b", "auth": { "kind": "basic" } }])),
        docker("steps", json!([{ "action": "run", "command": "true" }])),
        docker("build_backend", json!("native")),
        docker("build_target", json!("nope")),
        docker("build_secrets", json!([{ "id": "a/b", "value": "c" }])),
        docker("build_secrets", json!([{ "id": "a", "value": "b" }, { "id": "a", "value": "c" }])),
        docker("build_secrets", json!([{ "id": "a", "value": "x".repeat((500 << 10) + 1) }])),
        docker("dockerfile", json!("NOT A DOCKERFILE")),
        docker("dockerfile", json!("")),
        steps(json!({ "action": "fly" })),
        steps(json!({ "command": "true" })),
        steps(json!({ "action": "run" })),
        steps(copy("not-there")),
        steps(copy(".")),
        steps(copy("./")),
        steps(copy("../../etc/passwd")),
        steps(copy("/etc/passwd")),
        steps(copy("a\u{0}b")),
    ];
    for case in cases {
        for path in
            ["/v1/templates/builds", "/v1/templates/build", "/v1/templates", "/v1/templates/plan"]
        {
            world.post(path, case.clone()).await.refused(400, "invalid_request");
        }
        let said = world.post("/v1/templates/validate", case.clone()).await.is(200);
        assert_eq!(said["valid"], false, "{case}");
        assert!(!said["errors"].as_array().unwrap().is_empty());
    }
    for text in ["", "{", "\u{0}", "nul"] {
        let reply = world.send(Some(&world.owner), "POST", "/v1/templates/builds", text).await;
        reply.refused(400, "invalid_request");
    }
    world.get("/v1/templates/x").await.refused(404, "template_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_that_leave_their_root_are_refused_everywhere() {
    let world = World::new().await;
    for path in ["../x", "/etc/x", "a/../../x", "", "a\u{0}b", "..", "a//b"] {
        let build = json!({ "name": "x", "dockerfile": "FROM busybox", "build_context": { "files": [
            { "path": path, "entry_type": "file", "content_base64": "" }] } });
        let body =
            world.post("/v1/templates/builds", build).await.refused(400, "file_upload_error");
        assert_eq!(body["error_detail"]["phase"], "preflight", "{path:?}");
        for required in ["code", "message", "retryable", "suggested_action"] {
            assert!(body["error_detail"].get(required).is_some(), "{body}");
        }
        let files = json!({ "files": [{ "path": path, "entry_type": "dir" }] });
        world.post("/v1/templates/blobs/preflight", files).await.refused(400, "file_upload_error");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_data_to_the_shell() {
    let world = World::new().await;
    let request = json!({ "name": "quoted", "base_image": "busybox", "steps": [
        { "action": "make_dir", "path": "/a b/$(touch /pwned)/'x\"" },
        { "action": "make_symlink", "target": "; touch /pwned", "path": "/link" },
        { "action": "rename", "src": "/a b", "dst": "/c d", "force": true },
        { "action": "run", "command": "test ! -e /pwned && test -d '/c d'" },
        { "action": "remove", "path": "/c d", "recursive": true, "force": true },
    ]});
    World::ready(&world.build(request).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_secrets_are_nowhere_on_disk() {
    let world = World::new().await;
    let value = "hidden-4711-value";
    let request = json!({ "name": "s", "build_secrets": [{ "id": "k", "value": value }],
        "dockerfile": "FROM busybox\nRUN --mount=type=secret,id=k cat /run/secrets/k; true" });
    let entries = world.build(request).await;
    World::ready(&entries);
    assert!(!json!(entries).to_string().contains(value));
    assert_eq!(world.files_with(value), [] as [PathBuf; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_build_variables_are_nowhere_on_disk() {
    let world = World::new().await;
    let (value, other) = ("variable-5812-value", "variable-6034-value");
    let command = "test \"$TOKEN\" = variable-$NUMBER-value && echo seen";
    let request = |value: &str, number: &str| {
        // The number and not the value stands in what may be kept.
        json!({ "name": "v", "base_image": "busybox", "build_args": { "N": number },
            "build_envs": { "TOKEN": value, "NUMBER": number },
            "steps": [{ "action": "run", "command": command }] })
    };
    let entries = world.build(request(value, "5812")).await;
    let first = World::ready(&entries);
    assert!(entries.iter().any(|e| e["message"] == "seen"), "{entries:#?}");
    let again = World::ready(&world.build(request(value, "5812")).await);
    let summary = world.status(&again).await["build"]["cache_summary"].clone();
    assert_eq!(summary["final_artifact_hits"], 1, "an unchanged value hits");
    let changed = World::ready(&world.build(request(other, "6034")).await);
    let summary = world.status(&changed).await["build"]["cache_summary"].clone();
    assert_eq!(summary["layer_misses"], 1, "a changed value misses");
    let id = |text: &str| text.trim_start_matches("tb_").parse().unwrap();
    let journal = world.service.journal(world.service.admin(), id(&changed), 0, 1000).await;
    let journal = serde_json::to_string(&journal.unwrap()).unwrap();
    assert!(journal.contains(r#""kind":"secret","name":"TOKEN""#), "{journal}");
    // A retry has it without being told again.
    let retry = format!("/v1/templates/builds/{first}/retry");
    let retried = world.post(&retry, json!({})).await.is(202);
    let status = world.ended(retried["build_id"].as_str().unwrap()).await;
    assert_eq!(status["build"]["status"], "ready", "{status}");
    let docker = json!({ "name": "d", "build_envs": { "TOKEN": value },
        "dockerfile": "FROM busybox\nRUN test ${#TOKEN} = 19 && echo long\n" });
    World::ready(&world.build(docker).await);
    for value in [value, other] {
        assert_eq!(world.files_with(value), [] as [PathBuf; 0]);
    }
}

/// Every route that reads a body, on a template `app` with a build.
fn bodies(build: &str) -> Vec<(&'static str, String)> {
    let mut all = vec![
        ("POST", String::new()),
        ("POST", "/build".into()),
        ("POST", "/builds".into()),
        ("POST", "/plan".into()),
        ("POST", "/blobs/preflight".into()),
        ("POST", "/claims".into()),
        ("POST", format!("/builds/{build}/cancel")),
        ("POST", format!("/builds/{build}/retry")),
        ("POST", format!("/builds/{build}/promote")),
    ];
    for root in ["/app", "/refs/acme%2Fapp"] {
        all.extend([
            ("POST", format!("{root}/tags")),
            ("POST", format!("{root}/rename")),
            ("PATCH", format!("{root}/visibility")),
        ]);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_objects_are_refused_by_every_route() {
    let world = World::new().await;
    let build = World::ready(&world.build(steps("app", &["true"])).await);
    let deep = "[".repeat(100_000);
    let nested = format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let bad = ["{", "[]", "7", "\"text\"", "\u{0}", "{\"a\":}", "{}{}", &deep, &nested];
    for (method, path) in bodies(&build) {
        let path = format!("/v1/templates{path}");
        for body in bad {
            let reply = world.send(Some(&world.owner), method, &path, body.to_owned()).await;
            reply.refused(400, "invalid_request");
        }
        let bytes = vec![0xff, 0xfe, b'{', b'}'];
        let reply = world.send(Some(&world.owner), method, &path, bytes).await;
        reply.refused(400, "invalid_request");
    }
    for body in bad {
        let path = "/v1/templates/validate";
        let said = world.send(Some(&world.owner), "POST", path, body.to_owned()).await.is(200);
        assert_eq!(said["valid"], false, "{said}");
    }
    // Nothing of it has changed the build.
    assert_eq!(world.status(&build).await["build"]["status"], "ready");
    assert_eq!(world.get("/v1/templates/app/builds").await.is(200)["builds"][0]["build_id"], build);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_values_are_refused_by_every_route_and_change_nothing() {
    let world = World::new().await;
    let build = World::ready(&world.build(steps("app", &["true"])).await);
    let long = "x".repeat(129);
    let before = world.get("/v1/templates/app").await.is(200);
    let on = |rest: &str| format!("/v1/templates/builds/{build}{rest}");
    let file = |sha256: Value, size: Value| {
        json!({ "files": [{ "path": "a", "entry_type": "file", "sha256": sha256,
                            "size_bytes": size }] })
    };
    let digest = || json!(ashlar_core::Digest::of("x").hex());
    let preflight = "/v1/templates/blobs/preflight".to_owned();
    let cases = [
        (on("/cancel"), json!({ "reason": 7 })),
        (on("/retry"), json!({ "tags": [] })),
        (on("/retry"), json!({ "tags": ["a b"] })),
        (on("/retry"), json!({ "base_image_auth": { "kind": "magic" } })),
        (on("/retry"), json!({ "build_secrets": [{ "id": "a/b", "value": "x" }] })),
        (on("/promote"), json!({})),
        (on("/promote"), json!({ "tags": [] })),
        (on("/promote"), json!({ "tag": "tb_x" })),
        (on("/promote"), json!({ "tag": "" })),
        (on("/promote"), json!({ "tag": long })),
        (on("/promote"), json!({ "tag": ["x"] })),
        ("/v1/templates/app/tags".into(), json!({ "tags": [long] })),
        ("/v1/templates/app/tags".into(), json!({ "tags": [7] })),
        ("/v1/templates/app/rename".into(), json!({ "new_name": long })),
        ("/v1/templates/app/rename".into(), json!({ "new_name": "acme/x" })),
        ("/v1/templates/app/rename".into(), json!({ "new_name": "a:b" })),
        ("/v1/templates/app/rename".into(), json!({ "new_name": "-a" })),
        ("/v1/templates/app/rename".into(), json!({ "new_name": null })),
        ("/v1/templates/claims".into(), json!({})),
        ("/v1/templates/claims".into(), json!({ "template_ref": "" })),
        ("/v1/templates/claims".into(), json!({ "template_ref": long })),
        (preflight.clone(), json!({ "files": {} })),
        (preflight.clone(), json!({ "files": [7] })),
        (preflight.clone(), json!({ "files": [{ "path": "a", "entry_type": "link" }] })),
        (preflight.clone(), file(json!("00"), json!(1))),
        (preflight.clone(), file(json!("g".repeat(64)), json!(1))),
        (preflight.clone(), file(Value::Null, json!(1))),
        (preflight.clone(), file(digest(), Value::Null)),
        (preflight.clone(), file(digest(), json!(-1))),
        (preflight.clone(), file(digest(), json!(1.5))),
        (preflight, file(digest(), json!("1"))),
    ];
    for (path, body) in cases {
        let reply = world.post(&path, body.clone()).await;
        assert_eq!(reply.status, 400, "{path} {body}: {}", reply.text);
        let code = reply.json()["code"].clone();
        assert!(code == "invalid_request" || code == "file_upload_error", "{path} {body}: {code}");
    }
    for body in [json!({}), json!({ "visibility": "secret" }), json!({ "visibility": true })] {
        let path = "/v1/templates/app/visibility";
        let reply = world.send(Some(&world.owner), "PATCH", path, body.to_string()).await;
        reply.refused(400, "invalid_request");
    }
    for query in ["offset=18446744073709551616", "offset=+1", "offset=0x1", "offset=%00"] {
        world.get(&on(&format!("?{query}"))).await.refused(400, "invalid_request");
        world.get(&on(&format!("/logs?{query}"))).await.refused(400, "invalid_request");
    }
    world.get(&on("/logs?cursor=l1")).await.refused(400, "invalid_request");
    for path in ["/builds/tb_", "/builds/tb_%00", "/builds/..", "/builds/TB_1/logs"] {
        let path = format!("/v1/templates{path}");
        world.get(&path).await.refused(404, "template_build_not_found");
    }
    for blob in ["..", "sha256-", "sha256-00-1", "%00"] {
        let path = format!("/v1/templates/blobs/{blob}");
        let reply = world.send(Some(&world.owner), "PUT", &path, "x").await;
        reply.refused(400, "file_upload_error");
    }
    world.get("/v1/templates/refs/%ff").await.refused(404, "not_found");
    assert_eq!(world.get("/v1/templates/app").await.is(200), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_repeat_no_secret() {
    let world = World::new().await;
    let value = "value-of-a-secret-5501";
    let login = json!({ "kind": "basic", "username": "me", "password": value });
    let plain = |key: &str, value: Value| {
        let mut request = json!({ "name": "x", "base_image": "busybox" });
        request[key] = value;
        request
    };
    let docker = |secrets: Value| json!({ "name": "x", "dockerfile": "FROM busybox", "build_secrets": secrets });
    for request in [
        plain("build_secrets", json!([{ "id": "a", "value": value }])),
        plain("build_envs", json!({ "A=B": value })),
        plain("base_image_auth", json!({ "kind": "basic", "password": value })),
        plain("registry_auth", json!([{ "registry": "a b", "auth": login }])),
        plain("registry_auth", json!([{ "registry": "a.example", "auth": value }])),
        docker(json!([{ "id": "a/b", "value": value }])),
        docker(json!([{ "id": "a", "value": value }, { "id": "a", "value": value }])),
        docker(json!([{ "id": "a", "value": [value] }])),
    ] {
        for path in ["/v1/templates/builds", "/v1/templates/plan"] {
            let reply = world.post(path, request.clone()).await;
            assert_eq!(reply.status, 400, "{request}: {}", reply.text);
            assert!(!reply.text.contains(value), "{}", reply.text);
        }
    }
    assert_eq!(world.files_with(value), [] as [PathBuf; 0]);
}
