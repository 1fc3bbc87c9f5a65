//! A service in a directory of its own, with the image `busybox`, and requests to its dialect.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ashlar_core::{Platform, Timestamp};
use ashlar_layers::KnownFiles;
use ashlar_native::{Engine, EngineConfig};
use ashlar_oci::{LayerRef, LocalImage, Origin};
use ashlar_sandbox::{NativeConfig, NativeSandbox};
use ashlar_service::{Actor, Role, Service, ServiceConfig};
use ashlar_snapshots::Tree;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

/// How long a test waits for a build.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running service with two tenants.
pub(crate) struct World {
    pub(crate) service: Arc<Service>,
    pub(crate) router: Router,
    pub(crate) owner: String,
    pub(crate) stranger: String,
    pub(crate) data: TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Checks the status and returns the body.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// Checks status and code of a refusal.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        let body = self.is(status);
        assert_eq!(body["code"], code, "{body}");
        assert!(body["error"].is_string() && body["request_id"].is_string(), "{body}");
        body
    }

    /// Returns the entries of an event stream.
    pub(crate) fn entries(&self) -> Vec<Value> {
        assert_eq!(self.headers["content-type"], "text/event-stream", "{}", self.text);
        let data = self.text.lines().filter_map(|l| l.strip_prefix("data: "));
        data.map(|d| serde_json::from_str(d).unwrap()).collect()
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(with_base().await, |_| {}).await
    }

    /// Returns a server that does not wait for builds when it is stopped.
    pub(crate) async fn stopping_at_once() -> Self {
        Self::with(with_base().await, |config| config.drain = Duration::ZERO).await
    }

    /// Returns a server that runs one build at a time.
    pub(crate) async fn one_at_a_time() -> Self {
        Self::with(with_base().await, |config| config.slots = 1).await
    }

    /// Ends the server as if it had been killed while it had a build, and starts another one.
    pub(crate) async fn killed(self) -> Self {
        self.lose_worker().await;
        self.restarted().await
    }

    /// Stops the server at once and starts one on what it left: a copy of the directory, whose lock
    /// the stopped server's last tasks may hold a while longer.
    pub(crate) async fn restarted(self) -> Self {
        self.service.drain().await;
        let data = tempfile::tempdir().unwrap();
        let copied = std::process::Command::new("cp")
            .arg("-aT")
            .args([self.data.path(), data.path()])
            .status()
            .unwrap();
        assert!(copied.success());
        Self::with(data, |config| config.drain = Duration::ZERO).await
    }

    /// Says that the worker of this server is lost, which has a build.
    async fn lose_worker(&self) {
        let dir = self.data.path().to_owned();
        let worker = fs::read_to_string(dir.join("worker-id")).unwrap();
        let file = tokio::task::spawn_blocking(move || ashlar_records::records_file(&dir));
        let file = file.await.unwrap().unwrap();
        let store = ashlar_records::Store::open(file.to_str().unwrap()).await.unwrap();
        let lost = store.lose_worker(worker.trim().parse().unwrap()).await.unwrap();
        assert_eq!(lost, 1, "one build runs");
        // The server's own upkeep may have been faster.
        store.expire(ashlar_records::now()).await.unwrap();
    }

    /// Looks for a text in all files of the data directory, and says where it is.
    pub(crate) fn files_with(&self, text: &str) -> Vec<PathBuf> {
        let (mut todo, mut found) = (vec![self.data.path().to_owned()], Vec::new());
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                if kind.is_dir() {
                    todo.push(path);
                } else if kind.is_file() {
                    let bytes = fs::read(&path).unwrap();
                    if bytes.windows(text.len()).any(|w| w == text.as_bytes()) {
                        found.push(path);
                    }
                }
            }
        }
        found
    }

    /// Opens a data directory, with the configuration changed.
    pub(crate) async fn with(data: TempDir, change: impl Fn(&mut ServiceConfig)) -> Self {
        let mut config = ServiceConfig::new(data.path());
        change(&mut config);
        let service = Service::open(config).await.unwrap();
        service.start();
        let admin = service.admin().clone();
        let owner = token(&service, &admin, "acme", Role::Owner).await;
        let stranger = token(&service, &admin, "other", Role::Owner).await;
        let router = ashlar_dialect_nullspace::router(Arc::clone(&service));
        Self { service, router, owner, stranger, data }
    }

    /// Returns a token of the owner's tenant that may only read.
    pub(crate) async fn reader(&self) -> String {
        token(&self.service, &self.service.admin().clone(), "acme", Role::Reader).await
    }

    pub(crate) async fn send(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        assert!(headers.contains_key("x-request-id"), "{method} {path}");
        let read = to_bytes(response.into_body(), usize::MAX);
        let bytes = tokio::time::timeout(PATIENCE, read).await.expect("an answer in time").unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Reply { status, headers, text }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Some(&self.owner), "GET", path, Body::empty()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(Some(&self.owner), "DELETE", path, Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(Some(&self.owner), "POST", path, body.to_string()).await
    }

    /// Builds and returns the entries of the log.
    pub(crate) async fn build(&self, body: Value) -> Vec<Value> {
        let reply = self.post("/v1/templates/build", body).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
        reply.entries()
    }

    /// Builds something that shall be ready; returns the build's id.
    #[track_caller]
    pub(crate) fn ready(entries: &[Value]) -> String {
        let last = entries.last().expect("entries");
        assert_eq!(last["kind"], "end", "{entries:#?}");
        last["build_id"].as_str().unwrap().to_owned()
    }

    /// Returns a build as its status shows it.
    pub(crate) async fn status(&self, id: &str) -> Value {
        self.get(&format!("/v1/templates/builds/{id}")).await.is(200)
    }

    /// Waits until a build has ended and returns its status.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        let path = format!("/v1/templates/builds/{id}/logs?follow=true");
        self.get(&path).await;
        self.status(id).await
    }
}

/// Returns a declarative request.
pub(crate) fn steps(name: &str, commands: &[&str]) -> Value {
    let steps: Vec<Value> =
        commands.iter().map(|c| json!({ "action": "run", "command": c })).collect();
    json!({ "name": name, "base_image": "busybox", "steps": steps })
}

async fn token(service: &Arc<Service>, admin: &Actor, tenant: &str, role: Role) -> String {
    // It may be there already.
    let _ = service.add_tenant(admin, tenant).await;
    let actor = service.act_for(admin, tenant).await.unwrap();
    let name = role.as_str();
    let (_, text) = service.make_token(&actor, name, role, name, None).await.unwrap();
    text.expose().to_owned()
}

/// Returns a data directory with the image `busybox`: the host's program with its applets.
async fn with_base() -> TempDir {
    let data = tempfile::tempdir().unwrap();
    let dir = data.path().to_owned();
    tokio::task::spawn_blocking(move || add_image(&dir, "busybox", |_| {})).await.unwrap();
    data
}

/// Adds an image with the host's busybox and what `fill` adds to it.
pub(crate) fn add_image(data: &Path, name: &str, fill: impl Fn(&Path)) {
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.exists(), "install Debian's package busybox-static");
    let sandbox = NativeSandbox::new(&NativeConfig::new(data.join("sandbox"))).unwrap();
    let engine = Engine::open(EngineConfig::new(data), Arc::new(sandbox)).unwrap();
    let draft = engine.snapshots().begin(&Tree::scratch()).unwrap();
    let root = draft.upper();
    for dir in ["bin", "tmp", "etc", "root", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    let list = std::process::Command::new(busybox).arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(list).unwrap().lines().filter(|a| *a != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
    fill(root);
    let layer = draft.commit(&KnownFiles::new()).unwrap().id;
    let image = LocalImage {
        names: Vec::new(),
        platform: Platform::host(),
        config: json!({
            "architecture": Platform::host().architecture, "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [{"created_by": "busybox"}],
        }),
        config_digest: None,
        layers: vec![LayerRef { tree: Some(layer), ..LayerRef::default() }],
        manifest: None,
        origin: Origin::Imported,
        repository: None,
        created: Timestamp::from_nanos(0),
    };
    let names = [name.parse().unwrap(), format!("{name}:latest").parse().unwrap()];
    engine.images().store().add(&[image], &names, None).unwrap();
}
