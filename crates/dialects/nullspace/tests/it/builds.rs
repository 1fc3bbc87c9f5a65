//! Builds: counters, phases, context, credentials, claims.

use ashlar_core::Digest;
use serde_json::{Value, json};

use crate::support::{World, steps};

fn counter(build: &Value, name: &str) -> u64 {
    build["build"]["cache_summary"][name].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boundary_lets_what_is_before_it_hit() {
    let world = World::new().await;
    let request = json!({ "name": "bounded", "base_image": "busybox", "steps": [
        { "action": "run", "command": "echo 1 > /1" },
        { "action": "skip_cache" },
        { "action": "run", "command": "echo 2 > /2" },
    ]});
    World::ready(&world.build(request.clone()).await);
    let entries = world.build(request).await;
    let status = world.status(&World::ready(&entries)).await;
    assert_eq!((counter(&status, "layer_hits"), counter(&status, "layer_bypasses")), (1, 1));
    assert_eq!(counter(&status, "final_artifact_bypasses"), 1);
    let bypass =
        entries.iter().find(|e| e["cache_status"] == "bypass" && e["cache_kind"] == "layer");
    let bypass = bypass.unwrap();
    assert_eq!(bypass["cache_reason"], "builder_cache_boundary");
    // The boundary is no step.
    assert_eq!((&bypass["step_index"], &bypass["total_steps"]), (&json!(2), &json!(2)));
}

/// Builds, and checks whether an earlier build answered it as a whole; no layer is made again then.
async fn is_answered(world: &World, request: &Value, answered: bool) {
    let status = world.status(&World::ready(&world.build(request.clone()).await)).await;
    let finals = ["hits", "misses"].map(|c| counter(&status, &format!("final_artifact_{c}")));
    assert_eq!(finals, if answered { [1, 0] } else { [0, 1] }, "{request}");
    let layers = ["hits", "misses"].map(|c| counter(&status, &format!("layer_{c}")));
    assert_eq!(layers, if answered { [0, 0] } else { [1, 0] }, "{request}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_the_contract_lists_makes_another_final_artifact() {
    let world = World::new().await;
    let file = |path: &str, content: &str| json!({ "path": path, "entry_type": "file", "content_base64": content });
    let plain = json!({ "name": "app", "base_image": "busybox",
        "build_context": { "files": [file("used", "eA=="), file("other", "eA==")] },
        "steps": [{ "action": "copy", "sources": ["used"], "dst": "/used" }] });
    World::ready(&world.build(plain.clone()).await);
    is_answered(&world, &plain, true).await;
    let context = json!({ "files": [file("used", "eA=="), file("other", "eQ==")] });
    for (field, value) in [
        ("build_backend", json!("buildkit")),
        ("build_context", context),
        ("build_args", json!({ "ARG": "1" })),
        ("build_args", json!({ "ARG": "2" })),
        ("build_envs", json!({ "UNUSED": "1" })),
        ("build_envs", json!({ "UNUSED": "2" })),
        ("build_target", json!("stage")),
        ("runtime_config", json!({ "default_user": "user" })),
        ("runtime_config", json!({ "default_workdir": "/tmp" })),
        ("runtime_config", json!({ "default_envs": { "SEEN": "1" } })),
    ] {
        let mut other = plain.clone();
        other[field] = value;
        is_answered(&world, &other, false).await;
        is_answered(&world, &other, true).await;
    }
    for (field, value) in [
        ("name", json!("other")),
        ("tags", json!(["v2"])),
        ("build_config", json!({ "vcpus": 2, "memory_mib": 256 })),
        ("build_backend", json!("native")),
    ] {
        let mut same = plain.clone();
        same[field] = value;
        is_answered(&world, &same, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfiles_text_and_ids_of_secrets_make_another_final_artifact() {
    let world = World::new().await;
    let plain = json!({ "name": "app", "dockerfile": "FROM busybox\nRUN echo 1 > /1\n" });
    World::ready(&world.build(plain.clone()).await);
    is_answered(&world, &plain, true).await;
    let secret = |id: &str, value: &str| json!([{ "id": id, "value": value }]);
    for (field, value, answered) in [
        ("dockerfile", json!("FROM busybox\n# says why\nRUN echo 1 > /1\n"), false),
        ("build_secrets", secret("one", "first-value"), false),
        ("build_secrets", secret("one", "other-value"), true),
        ("build_secrets", secret("two", "other-value"), false),
    ] {
        let mut other = plain.clone();
        other[field] = value;
        is_answered(&world, &other, answered).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_build_keeps_what_was_done_and_moves_no_tag() {
    let world = World::new().await;
    let good = World::ready(&world.build(steps("app", &["echo 1"])).await);
    let entries = world.build(steps("app", &["echo 0 > /0", "exit 3"])).await;
    let last = entries.last().unwrap();
    assert_eq!(last["kind"], "error");
    let detail = &last["error_detail"];
    assert_eq!((&detail["phase"], &detail["code"]), (&json!("build_step"), &json!("build_error")));
    assert_eq!(detail["details"]["exit_code"], 3);
    assert_eq!(detail["step_index"], 2);
    let status = world.status(last["build_id"].as_str().unwrap()).await;
    assert_eq!(status["build"]["failure_phase"], "build_step");
    assert_eq!((counter(&status, "layer_misses"), counter(&status, "layer_stores")), (2, 1));
    assert_eq!(counter(&status, "final_artifact_stores"), 0);
    let tags = world.get("/v1/templates/app/tags").await.is(200);
    assert_eq!((&tags[0]["tag"], &tags[0]["build_id"]), (&json!("default"), &json!(good)));
    let fixed = world.build(steps("app", &["echo 0 > /0", "exit 0"])).await;
    let status = world.status(&World::ready(&fixed)).await;
    assert_eq!((counter(&status, "layer_hits"), counter(&status, "layer_misses")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocking_create_answers_with_the_template_or_the_failure() {
    let world = World::new().await;
    let info = world.post("/v1/templates", steps("app", &["true"])).await.is(201);
    assert_eq!((&info["name"], &info["tags"]), (&json!("app"), &json!(["default"])));
    let refused = world.post("/v1/templates", steps("bad", &["exit 9"])).await;
    let body = refused.refused(400, "build_error");
    assert_eq!(body["error_detail"]["details"]["exit_code"], 9);
    assert!(body["build_id"].as_str().unwrap().starts_with("tb_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_announced_uploaded_checked_and_counted() {
    let world = World::new().await;
    let (digest, blobs) = (Digest::of("hello").hex(), "/v1/templates/blobs");
    let entry = |path: &str, force: bool| {
        json!({ "path": path, "entry_type": "file", "sha256": digest, "size_bytes": 5,
                "mode": "0644", "force_upload": force })
    };
    let preflight = async |files: Value| {
        let path = format!("{blobs}/preflight");
        world.post(&path, json!({ "files": files })).await.is(200)["files"].clone()
    };
    let dir = json!({ "path": "d", "entry_type": "dir", "mode": "0700" });
    let files = preflight(json!([entry("a", false), dir, entry("b", false)])).await;
    let id = files[0]["blob_id"].as_str().unwrap().to_owned();
    assert_eq!(files[2]["blob_id"], json!(id), "equal content, equal id");
    assert_eq!((&files[0]["missing"], &files[1]["missing"]), (&json!(true), &json!(false)));
    assert_eq!(files[0]["mode"], "0644");
    let build = |blob: &str| {
        json!({ "name": "app", "base_image": "busybox",
                "steps": [{ "action": "copy", "sources": ["a"], "dst": "/a" }],
                "build_context": { "files": [
                    { "path": "a", "entry_type": "file", "mode": "0644", "blob_id": blob }] } })
    };
    let refused = world.post("/v1/templates/builds", build(&id)).await;
    let body = refused.refused(400, "file_upload_error");
    assert_eq!(body["error_detail"]["phase"], "preflight");
    let put = async |id: &str, content: &'static str| {
        world.send(Some(&world.owner), "PUT", &format!("{blobs}/{id}"), content).await
    };
    for wrong in ["hallo", "hello!", "hell", ""] {
        let body = put(&id, wrong).await.refused(400, "file_upload_error");
        assert_eq!(body["error_detail"]["phase"], "blob_upload", "{wrong}");
    }
    put("nope", "x").await.refused(400, "file_upload_error");
    assert_eq!(preflight(json!([entry("a", false)])).await[0]["missing"], true);
    put(&id, "hello").await.is(204);
    put(&id, "hello").await.is(204);
    assert_eq!(preflight(json!([entry("a", false)])).await[0]["missing"], false);
    let status = world.status(&World::ready(&world.build(build(&id)).await)).await;
    let files = |s: &Value| {
        ["misses", "stores", "hits", "bypasses"].map(|w| counter(s, &format!("file_blob_{w}")))
    };
    assert_eq!(files(&status), [1, 1, 0, 0]);
    let status = world.status(&World::ready(&world.build(build(&id)).await)).await;
    assert_eq!(files(&status), [0, 0, 1, 0]);
    let forced = preflight(json!([entry("a", true)])).await;
    assert_eq!(forced[0]["missing"], true);
    let forced = forced[0]["blob_id"].as_str().unwrap().to_owned();
    assert_ne!(forced, id);
    world.post("/v1/templates/builds", build(&forced)).await.refused(400, "file_upload_error");
    put(&forced, "hallo").await.refused(400, "file_upload_error");
    put(&forced, "hello").await.is(204);
    let status = world.status(&World::ready(&world.build(build(&forced)).await)).await;
    assert_eq!(files(&status), [0, 1, 0, 1]);
    let status = world.status(&World::ready(&world.build(build(&forced)).await)).await;
    assert_eq!(files(&status), [0, 0, 1, 0]);
    // Another tenant has not uploaded it.
    let stranger = world
        .send(Some(&world.stranger), "POST", "/v1/templates/builds", build(&id).to_string())
        .await;
    stranger.refused(400, "file_upload_error");
}

#[tokio::test(flavor = "multi_thread")]
async fn dockerfiles_come_as_text_or_in_the_context() {
    let world = World::new().await;
    let b64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let request = |path: &str| {
        json!({ "name": "app", "dockerfile_path": path, "build_target": "two",
                "build_args": { "WHO": "me" }, "build_envs": { "HIDDEN": "yes" },
                "runtime_config": { "default_envs": { "SEEN": "1" }, "default_user": "user",
                                    "default_workdir": "/srv" },
                "build_context": { "files": [
                    { "path": "deep/Df", "entry_type": "file", "content_base64":
                      b64("FROM busybox AS one\nRUN false\nFROM busybox AS two\nARG WHO\nCOPY f /f\n\
                           RUN grep x /f && echo $WHO $HIDDEN\n") },
                    { "path": "f", "entry_type": "file", "content_base64": b64("x\n") }] } })
    };
    let entries = world.build(request("deep/Df")).await;
    let id = World::ready(&entries);
    assert!(entries.iter().any(|e| e["message"] == "me yes"), "{entries:#?}");
    let build = world.status(&id).await["build"].clone();
    assert_eq!(build["source_type"], "dockerfile");
    assert_eq!(build["build_backend"], "buildkit");
    let runtime = &build["runtime_defaults"];
    let keys = runtime["default_env_keys"].as_array().unwrap();
    assert!(keys.contains(&json!("SEEN")) && !keys.contains(&json!("HIDDEN")), "{runtime}");
    assert_eq!(
        (&runtime["default_user"], &runtime["default_workdir"]),
        (&json!("user"), &json!("/srv"))
    );
    assert!(entries.iter().any(|e| e["message"].as_str().unwrap().contains("runs on native")));
    world.post("/v1/templates/builds", request("Df")).await.refused(400, "invalid_request");
    // Without a context, a copy finds nothing; that is the step's failure.
    let text = json!({ "name": "app", "dockerfile": "FROM busybox\nCOPY nothing /x\n" });
    let entries = world.build(text).await;
    assert_eq!(entries.last().unwrap()["error_detail"]["phase"], "build_step", "{entries:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_uses_credentials_or_secrets_needs_them_again() {
    let world = World::new().await;
    let auth = json!({ "kind": "basic", "username": "u", "password": "p4ssw0rd-value" });
    let mut request = steps("app", &["true"]);
    request["base_image_auth"] = auth.clone();
    let id = World::ready(&world.build(request).await);
    let retry = format!("/v1/templates/builds/{id}/retry");
    world.post(&retry, json!({})).await.refused(400, "invalid_request");
    let again =
        world.post(&retry, json!({ "base_image_auth": auth, "tags": ["v2"] })).await.is(202);
    assert_eq!(
        (&again["retry_of_build_id"], &again["original_build_id"]),
        (&json!(id), &json!(id))
    );
    assert_eq!(again["tags"], json!(["v2"]));
    let status = world.ended(again["build_id"].as_str().unwrap()).await;
    assert_eq!(status["build"]["status"], "ready");
    assert!(!status.to_string().contains("p4ssw0rd-value"));
    let third = again["build_id"].as_str().unwrap();
    let third = world
        .post(
            &format!("/v1/templates/builds/{third}/retry"),
            json!({ "base_image_auth": {
            "kind": "aws_ecr", "access_key_id": "a", "secret_access_key": "s", "region": "r" } }),
        )
        .await
        .is(202);
    assert_eq!(
        (&third["retry_of_build_id"], &third["original_build_id"]),
        (&again["build_id"], &json!(id))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_name_needs_its_token() {
    let world = World::new().await;
    let claims = "/v1/templates/claims";
    let claim = world.post(claims, json!({ "template_ref": "acme/wanted" })).await.is(201);
    assert_eq!(claim["canonical_ref"], "acme/wanted");
    world.post(claims, json!({ "template_ref": "wanted" })).await.refused(409, "conflict");
    for bad in ["wanted:v1", "other/wanted", "a b", "tmpl_x"] {
        world.post(claims, json!({ "template_ref": bad })).await.refused(400, "invalid_request");
    }
    let mut request = steps("wanted", &["true"]);
    world.post("/v1/templates/builds", request.clone()).await.refused(409, "conflict");
    request["claim_token"] = claim["claim_token"].clone();
    World::ready(&world.build(request).await);
    world.post(claims, json!({ "template_ref": "wanted" })).await.refused(409, "conflict");
    let used = format!("{claims}/{}", claim["claim_token"].as_str().unwrap());
    world.delete(&used).await.refused(404, "template_name_claim_not_found");
    let other = world.post(claims, json!({ "template_ref": "other" })).await.is(201);
    let path = format!("{claims}/{}", other["claim_token"].as_str().unwrap());
    let stranger = world.send(Some(&world.stranger), "DELETE", &path, "").await;
    stranger.refused(404, "template_name_claim_not_found");
    world.delete(&path).await.is(204);
    world.delete(&path).await.refused(404, "template_name_claim_not_found");
    world.post(claims, json!({ "template_ref": "other" })).await.is(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_says_so_once() {
    let world = World::new().await;
    let path = "/v1/templates/builds";
    let build = world.post(path, steps("app", &["sleep 100"])).await.is(202);
    let id = build["build_id"].as_str().unwrap().to_owned();
    world.post(&format!("{path}/{id}/retry"), json!({})).await.refused(400, "invalid_request");
    let promote = json!({ "tag": "x" });
    world.post(&format!("{path}/{id}/promote"), promote).await.refused(409, "conflict");
    let cancel = format!("{path}/{id}/cancel");
    let asked = world.send(Some(&world.owner), "POST", &cancel, "").await.is(200);
    assert!(asked["build"]["cancel_requested_at"].is_string(), "{asked}");
    let status = world.ended(&id).await;
    let build = &status["build"];
    assert_eq!(build["status"], "cancelled", "{build}");
    for absent in ["error", "error_detail", "failure_phase"] {
        assert!(build.get(absent).is_none(), "{build}");
    }
    let kinds = status["entries"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap());
    assert_eq!(kinds.filter(|k| *k == "cancelled").count(), 1);
    assert_eq!(world.post(&cancel, json!({ "reason": "late" })).await.is(200)["build"], *build);
}

#[tokio::test(flavor = "multi_thread")]
async fn bases_are_found_in_the_documented_order() {
    let world = World::new().await;
    let mut parent = steps("parent", &["echo base > /base"]);
    parent["runtime_config"] = json!({ "default_envs": { "GIVEN": "yes" } });
    parent["build_envs"] = json!({ "HIDDEN": "yes" });
    let entries = world.build(parent).await;
    let (build, id) = (World::ready(&entries), entries[0]["template_id"].as_str().unwrap());
    let command = "test \"$GIVEN\" = yes && test -z \"$HIDDEN\" && cat /base";
    for base in [
        "acme/parent".to_owned(),
        "acme/parent:default".to_owned(),
        "nullspace/parent:latest".to_owned(),
        format!("parent:{build}"),
        id.to_owned(),
    ] {
        let mut child = steps("child", &[command]);
        child["base_image"] = json!(base);
        let id = World::ready(&world.build(child).await);
        assert_eq!(world.status(&id).await["build"]["source_type"], "template_base", "{base}");
    }
    for base in
        ["acme/nothing", "acme/parent:v7", "tmpl_x", "nullspace/nothing:latest", "parent:tb_0"]
    {
        let mut child = steps("child", &["true"]);
        child["base_image"] = json!(base);
        world.post("/v1/templates/builds", child).await.refused(400, "template_not_found");
    }
    let import = World::ready(&world.build(json!({ "name": "i", "base_image": "busybox" })).await);
    assert_eq!(world.status(&import).await["build"]["source_type"], "oci_import");
}

#[tokio::test(flavor = "multi_thread")]
async fn validate_and_plan_change_nothing() {
    let world = World::new().await;
    let mut request = steps("app", &["echo one"]);
    request["start_cmd"] = json!("sleep 1");
    let valid = world.post("/v1/templates/validate", request.clone()).await.is(200);
    assert_eq!(valid, json!({ "valid": true, "errors": [], "warnings": [] }));
    let wrong =
        json!({ "base_image": "busybox", "steps": [{ "action": "run" }, { "action": "fly" }] });
    let said = world.post("/v1/templates/validate", wrong.clone()).await.is(200);
    assert_eq!((&said["valid"], said["errors"].as_array().unwrap().len()), (&json!(false), 2));
    let text = world.send(Some(&world.owner), "POST", "/v1/templates/validate", "no json").await;
    assert_eq!(text.is(200)["valid"], false);
    world.post("/v1/templates/plan", wrong).await.refused(400, "invalid_request");
    let plan = world.post("/v1/templates/plan", request).await.is(200);
    assert_eq!(plan["build_plan"]["run_steps"], json!(["echo one"]));
    assert_eq!(plan["build_plan"]["base_template"], "busybox");
    assert_eq!(plan["build_plan"]["start_cmd"], "sleep 1");
    assert_eq!(plan["requires_base_image_auth"], false);
    let file = "FROM busybox AS a\nENV X=1\nFROM a\nWORKDIR /w\nCMD x\nRUN <<E\necho hi\nE\n";
    let plan = world.post("/v1/templates/plan", json!({ "dockerfile": file })).await.is(200);
    let plan = &plan["build_plan"];
    assert_eq!(plan["env_assignments"], json!([["X", "1"]]));
    assert_eq!(
        (&plan["base_template"], &plan["ignored_instructions"]),
        (&json!("busybox"), &json!(["CMD"]))
    );
    world.get("/v1/templates/app").await.refused(404, "template_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_where_and_as_whom_the_result_runs() {
    let world = World::new().await;
    let plan = async |request: Value| {
        let plan = world.post("/v1/templates/plan", request).await.is(200)["build_plan"].clone();
        (plan["default_workdir"].clone(), plan["default_user"].clone())
    };
    let file = "FROM busybox AS a\nWORKDIR /first\nUSER one\nFROM a\nWORKDIR /last\nWORKDIR in\n\
                USER two\nRUN true\n";
    let mut request = json!({ "dockerfile": file });
    assert_eq!(plan(request.clone()).await, (json!("/last/in"), json!("two")));
    request["build_target"] = json!("a");
    assert_eq!(plan(request.clone()).await, (json!("/first"), json!("one")));
    request["runtime_config"] = json!({ "default_workdir": "/said", "default_user": "three" });
    assert_eq!(plan(request).await, (json!("/said"), json!("three")));
    let steps = json!({ "base_image": "busybox", "steps": [
        { "action": "workdir", "path": "/w" }, { "action": "user", "user": "u" },
        { "action": "workdir", "path": "x" }] });
    assert_eq!(plan(steps).await, (json!("/w/x"), json!("u")));
    assert_eq!(plan(json!({ "base_image": "busybox" })).await, (Value::Null, Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_build_that_is_refused_takes_nothing_from_others_of_its_name() {
    let world = std::sync::Arc::new(World::new().await);
    // Refused by the service, after all that the dialect itself looks at.
    let secrets: Vec<Value> =
        (0..101).map(|i| json!({ "id": format!("s{i}"), "value": "x" })).collect();
    for round in 0..10 {
        let name = format!("app{round}");
        let refused =
            json!({ "name": name, "dockerfile": "FROM busybox", "build_secrets": secrets });
        let send = |request: &Value| {
            let (world, request) = (std::sync::Arc::clone(&world), request.clone());
            tokio::spawn(async move { world.post("/v1/templates/builds", request).await })
        };
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(send(&refused));
            all.push(send(&steps(&name, &["true"])));
        }
        let mut accepted = Vec::new();
        for reply in all {
            let reply = reply.await.unwrap();
            match reply.status.as_u16() {
                202 => accepted.push(reply.json()),
                _ => drop(reply.refused(400, "invalid_request")),
            }
        }
        assert_eq!(accepted.len(), 4);
        for build in accepted {
            assert_eq!(build["template_id"], accepted_template(&world, &name).await);
            let status = world.ended(build["build_id"].as_str().unwrap()).await;
            assert_eq!(status["build"]["status"], "ready", "{status}");
        }
    }
    // Alone, it takes no name at all.
    let alone = json!({ "name": "alone", "dockerfile": "FROM busybox", "build_secrets": secrets });
    world.post("/v1/templates/builds", alone).await.refused(400, "invalid_request");
    world.get("/v1/templates/alone").await.refused(404, "template_not_found");
    world.post("/v1/templates/claims", json!({ "template_ref": "alone" })).await.is(201);
}

async fn accepted_template(world: &World, name: &str) -> Value {
    world.get(&format!("/v1/templates/{name}")).await.is(200)["id"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_starts_as_its_base_does_unless_it_says_otherwise() {
    let world = World::new().await;
    let probe = |command: &str| {
        json!({ "kind": "command", "command": command, "timeout_secs": 20, "interval_ms": 50,
                "startup_grace_secs": 0 })
    };
    let mut base = steps("base", &["true"]);
    base["start_cmd"] = json!("sleep 100");
    base["runtime_config"] = json!({ "readiness": probe("true") });
    World::ready(&world.build(base).await);
    let on = |name: &str, base: &str| {
        let mut request = steps(name, &["echo x > /x"]);
        request["base_image"] = json!(base);
        request
    };
    let started = async |request: Value| {
        let status = world.status(&World::ready(&world.build(request).await)).await;
        let runtime = status["build"]["runtime_defaults"].clone();
        (runtime["start_cmd"].clone(), runtime["readiness"]["command"].clone())
    };
    assert_eq!(started(on("child", "acme/base")).await, (json!("sleep 100"), json!("true")));
    assert_eq!(started(on("grand", "acme/child")).await, (json!("sleep 100"), json!("true")));
    let mut own = on("own", "acme/base");
    own["start_cmd"] = json!("sleep 200");
    own["runtime_config"] = json!({ "readiness": probe("test -e /x") });
    assert_eq!(started(own).await, (json!("sleep 200"), json!("test -e /x")));
    let info = world.get("/v1/templates/grand").await.is(200);
    assert_eq!(info["runtime_defaults"]["start_cmd"], "sleep 100");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sends_is_the_context_whatever_an_ignore_file_says() {
    let world = World::new().await;
    let file = |path: &str, content: &str| json!({ "path": path, "entry_type": "file", "content_base64": content });
    let text = "FROM busybox\nCOPY . /c\nRUN cat /c/kept && test -e /c/.dockerignore\n";
    // "*\n" and "here\n".
    let files = [file(".dockerignore", "Kgo="), file("kept", "aGVyZQo=")];
    let request = json!({ "name": "app", "dockerfile": text, "build_context": { "files": files } });
    let entries = world.build(request).await;
    World::ready(&entries);
    assert!(entries.iter().any(|e| e["message"] == "here"), "{entries:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_the_build_does() {
    let world = World::new().await;
    let step = |path: &str| json!({ "action": "workdir", "path": path });
    let run = |command: &str| json!({ "action": "run", "command": command });
    for (dirs, said, want) in [
        (vec!["q"], None, "/q"),
        // As the SDK sends it.
        (vec!["q"], Some("q"), "/q"),
        (vec!["/a", "q"], Some("q"), "/a/q"),
        (vec!["/a", "../q"], None, "/q"),
        (vec!["/a"], Some("q"), "/q"),
        (vec!["/a"], Some("/q"), "/q"),
    ] {
        let steps: Vec<Value> = dirs.iter().map(|d| step(d)).collect();
        let mut request = json!({ "name": "app", "base_image": "busybox", "steps": steps });
        if let Some(said) = said {
            request["runtime_config"] = json!({ "default_workdir": said });
        }
        let plan = world.post("/v1/templates/plan", request.clone()).await.is(200);
        assert_eq!(plan["build_plan"]["default_workdir"], want, "{dirs:?} {said:?}");
        let status = world.status(&World::ready(&world.build(request).await)).await;
        assert_eq!(status["build"]["runtime_defaults"]["default_workdir"], want);
    }
    // Commands as the shell gets them, also those that no line of a Dockerfile holds.
    let commands = ["echo a", "echo x \\", " echo 'b'\necho c", "cat <<X\nx\nX", "-x"];
    let steps: Vec<Value> = commands.iter().map(|c| run(c)).collect();
    let request = json!({ "name": "app", "base_image": "busybox", "steps": steps });
    let plan = world.post("/v1/templates/plan", request).await.is(200);
    assert_eq!(plan["build_plan"]["run_steps"], json!(commands));
    let text = "FROM busybox\nRUN [\"printf\", \"%s\", \"a b\"]\n";
    let request = json!({ "name": "app", "dockerfile": text });
    let plan = world.post("/v1/templates/plan", request).await.is(200);
    assert_eq!(plan["build_plan"]["run_steps"], json!(["printf %s 'a b'"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_never_began_has_no_duration() {
    let world = World::one_at_a_time().await;
    let path = "/v1/templates/builds";
    let build = world.post(path, steps("app", &["echo began; sleep 100"])).await.is(202);
    let first = build["build_id"].as_str().unwrap();
    while !world.status(first).await["entries"].to_string().contains("began") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let build = world.post(path, steps("app", &["true"])).await.is(202);
    let waiting = build["build_id"].as_str().unwrap();
    world.post(&format!("{path}/{waiting}/cancel"), json!({})).await.is(200);
    let ended = world.ended(waiting).await["build"].clone();
    assert_eq!(ended["status"], "cancelled");
    assert!(ended["finished_at"].is_string());
    assert_eq!((ended.get("started_at"), ended.get("duration_ms")), (None, None), "{ended}");
    world.post(&format!("{path}/{first}/cancel"), json!({})).await.is(200);
    let ended = world.ended(first).await["build"].clone();
    assert!(ended["started_at"].is_string() && ended["duration_ms"].is_u64(), "{ended}");
}
