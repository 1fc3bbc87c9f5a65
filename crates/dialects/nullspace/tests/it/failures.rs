//! Every phase in which a build can fail, each brought about for real. The phase `auth` is among
//! the tests of registries.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{World, steps};

/// A directory in which nothing can be made, not even by root.
struct Sealed(PathBuf);

impl Sealed {
    fn new(dir: &Path) -> Self {
        chattr("+i", dir);
        Self(dir.to_owned())
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        chattr("-i", &self.0);
    }
}

fn chattr(flag: &str, dir: &Path) {
    let done = Command::new("chattr").arg(flag).arg(dir).status();
    let done = done.expect("install Debian's package e2fsprogs");
    assert!(done.success(), "{} is on no file system with attributes", dir.display());
}

/// Checks how a build failed, in its log and in its status; returns the detail.
async fn failed(world: &World, entries: &[Value], phase: &str, code: &str) -> Value {
    let last = entries.last().unwrap();
    assert_eq!(last["kind"], "error", "{entries:#?}");
    let status = world.status(last["build_id"].as_str().unwrap()).await;
    let (build, detail) = (&status["build"], &last["error_detail"]);
    assert_eq!((&build["status"], &build["failure_phase"]), (&json!("error"), &json!(phase)));
    assert_eq!((&detail["phase"], &detail["code"]), (&json!(phase), &json!(code)), "{detail}");
    assert_eq!((&build["error_detail"], &build["error"]), (detail, &detail["message"]));
    for text in ["message", "suggested_action"] {
        assert!(detail[text].as_str().is_some_and(|t| !t.is_empty()), "{detail}");
    }
    assert!(detail["details"]["reason"].is_string(), "{detail}");
    assert_eq!(detail["step_index"], last.get("step_index").cloned().unwrap_or_default());
    let want = json!({ "status": "failed", "reason": "build failed" });
    assert_eq!(build["artifact_availability"], want);
    assert_eq!(build["artifact_ids"], json!([]));
    detail.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn prepare_the_base_is_not_there() {
    let world = World::new().await;
    let mut request = steps("app", &["true"]);
    // Nothing listens there.
    request["base_image"] = json!("127.0.0.1:9/no/image:1");
    let detail = failed(&world, &world.build(request).await, "prepare", "build_error").await;
    assert_eq!(detail.get("step_index"), None);
    assert_eq!(detail["retryable"], true, "{detail}");
    assert_eq!(detail["details"]["reason"], "source_unavailable");
    let request = json!({ "name": "app", "dockerfile": "FROM 127.0.0.1:9/no/image:1" });
    let detail = failed(&world, &world.build(request).await, "prepare", "build_error").await;
    assert_eq!(detail["retryable"], true, "{detail}");
    assert_eq!(detail["details"]["reason"], "source_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn build_step_an_address_gives_nothing() {
    let world = World::new().await;
    let text = "FROM busybox\nRUN true\nADD http://127.0.0.1:9/file /file\n";
    let entries = world.build(json!({ "name": "app", "dockerfile": text })).await;
    let detail = failed(&world, &entries, "build_step", "build_error").await;
    assert_eq!((&detail["step_index"], &detail["retryable"]), (&json!(3), &json!(true)));
    assert_eq!(entries.last().unwrap()["total_steps"], 3);
    let history = world.get("/v1/templates/app/builds").await.is(200);
    assert_eq!(history["builds"][0]["failure_phase"], "build_step");
}

#[tokio::test(flavor = "multi_thread")]
async fn build_step_messages_are_one_line_and_speak_of_this_api() {
    let world = World::new().await;
    let secret = "FROM busybox\nRUN --mount=type=secret,id=zz,required=true true";
    for (request, action) in [
        (json!({ "name": "app", "dockerfile": secret }), "build_secrets"),
        (steps("app", &["echo a\necho b\nexit 7"]), "Fix the command"),
    ] {
        let entries = world.build(request).await;
        let detail = failed(&world, &entries, "build_step", "build_error").await;
        let message = detail["message"].as_str().unwrap();
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(detail["suggested_action"].as_str().unwrap().contains(action), "{detail}");
        let told = format!("{} {}", detail["suggested_action"], detail["details"]["hint"]);
        assert!(!told.contains("ashlar") && !told.contains("--"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn build_step_a_command_fails() {
    let world = World::new().await;
    let entries = world.build(steps("app", &["true", "echo why >&2; exit 7"])).await;
    let detail = failed(&world, &entries, "build_step", "build_error").await;
    assert_eq!((&detail["step_index"], &detail["details"]["exit_code"]), (&json!(2), &json!(7)));
    assert_eq!(detail["details"]["last_lines"], json!(["why"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn build_step_a_step_wants_more_memory_than_the_request_allows() {
    let world = World::new().await;
    let hungry = "head -c 200000000 /dev/zero | tail -c 199999999 > /dev/null";
    let mut request = steps("app", &["true", hungry]);
    request["build_config"] = json!({ "vcpus": 1, "memory_mib": 64 });
    let detail = failed(&world, &world.build(request).await, "build_step", "build_error").await;
    assert_eq!((&detail["details"]["limit"], &detail["step_index"]), (&json!("memory"), &json!(2)));
    assert!(detail["message"].as_str().unwrap().contains("memory"), "{detail}");
    let mut request = steps("app", &["true", hungry]);
    request["build_config"] = json!({ "vcpus": 1, "memory_mib": 1024 });
    World::ready(&world.build(request).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn build_step_a_step_writes_more_than_the_request_allows() {
    let world = World::new().await;
    let mut request = steps("app", &["head -c 50000000 /dev/zero > /big; sleep 60"]);
    request["build_config"] = json!({ "disk_mb": 16 });
    let detail = failed(&world, &world.build(request).await, "build_step", "build_error").await;
    assert_eq!(detail["details"]["limit"], "disk", "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_the_process_is_not_ready_in_time() {
    let world = World::new().await;
    let mut request = steps("app", &["true"]);
    request["start_cmd"] = json!("echo up; exec sleep 100");
    request["runtime_config"] = json!({ "readiness": { "kind": "tcp", "port": 9,
        "timeout_secs": 1, "interval_ms": 50, "startup_grace_secs": 0 } });
    let entries = world.build(request).await;
    let detail = failed(&world, &entries, "readiness", "build_error").await;
    assert_eq!(detail["details"]["reason"], "not_ready");
    assert_eq!(detail["details"]["command"], "echo up; exec sleep 100");
    assert!(entries.iter().any(|e| e["message"] == "up" && e["phase"] == "startup"));
    assert_eq!(entries.last().unwrap()["phase"], "readiness");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_the_start_command_is_no_step_and_a_probe_needs_none() {
    let world = World::new().await;
    let mut nobody = json!({ "name": "app", "base_image": "busybox", "start_cmd": "sleep 100" });
    nobody["runtime_config"] = json!({ "default_user": "nope" });
    let mut probe = steps("app", &["true"]);
    probe["runtime_config"] = json!({ "readiness": { "kind": "command", "command": "false",
        "timeout_secs": 1, "interval_ms": 50, "startup_grace_secs": 0 } });
    for request in [nobody, probe] {
        let entries = world.build(request).await;
        let detail = failed(&world, &entries, "readiness", "build_error").await;
        assert_eq!(detail.get("step_index"), None, "{detail}");
        assert_eq!(entries.last().unwrap()["phase"], "readiness");
        let told = json!(entries).to_string();
        assert!(!told.contains("2147483647") && !told.contains("START "), "{entries:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_the_process_wants_more_memory_than_the_request_allows() {
    let world = World::new().await;
    let mut request = steps("app", &["true"]);
    request["start_cmd"] =
        json!("head -c 200000000 /dev/zero | tail -c 199999999 > /dev/null; exit 9");
    request["build_config"] = json!({ "memory_mib": 64 });
    request["runtime_config"] = json!({ "readiness": { "kind": "tcp", "port": 9,
        "timeout_secs": 20, "interval_ms": 50, "startup_grace_secs": 0 } });
    let entries = world.build(request).await;
    let phase = entries.last().unwrap()["error_detail"]["phase"].clone();
    assert_eq!(phase, "readiness", "{entries:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_the_result_cannot_be_kept() {
    let world = World::new().await;
    World::ready(&world.build(steps("warm", &["true"])).await);
    let sealed = Sealed::new(&world.data.path().join("cache/finals"));
    let entries = world.build(steps("app", &["echo x > /x"])).await;
    let detail = failed(&world, &entries, "snapshot", "internal_error").await;
    assert_eq!(detail["retryable"], true);
    drop(sealed);
    World::ready(&world.build(steps("app", &["echo x > /x"])).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn finalize_the_image_cannot_be_named() {
    let world = World::new().await;
    let sealed = Sealed::new(&world.data.path().join("images/names"));
    let entries = world.build(steps("app", &["echo x > /x"])).await;
    failed(&world, &entries, "finalize", "build_error").await;
    drop(sealed);
    World::ready(&world.build(steps("app", &["echo x > /x"])).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_workers_are_lost_until_no_attempt_is_left() {
    let mut world = World::new().await.restarted().await;
    let path = "/v1/templates/builds";
    let build = world.post(path, steps("app", &["echo began; sleep 100"])).await.is(202);
    let id = build["build_id"].as_str().unwrap().to_owned();
    let mut begun = 0;
    for _ in 1..=3 {
        let began = async || {
            let entries = world.status(&id).await["entries"].as_array().unwrap().clone();
            entries.iter().filter(|e| e["message"] == "began").count()
        };
        let before = begun;
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            while begun <= before {
                tokio::time::sleep(Duration::from_millis(20)).await;
                begun = began().await;
            }
        });
        waited.await.expect("the next attempt begins");
        assert_eq!(world.status(&id).await["build"]["status"], "building");
        world = world.killed().await;
    }
    let entries = world.ended(&id).await["entries"].as_array().unwrap().clone();
    let detail = failed(&world, &entries, "interrupted", "internal_error").await;
    assert_eq!(detail["retryable"], true);
    // The server may have begun again before it ended, which uses up no attempt.
    let retries = entries.iter().filter(|e| e["kind"] == "retry").count();
    assert!(retries >= 2, "{entries:#?}");
}
