//! A service in a directory of its own, with the image `busybox`, and requests to its dialect.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ashlar_core::{BuildId, Platform, Timestamp};
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
    router: Router,
    pub(crate) owner: String,
    pub(crate) stranger: String,
    pub(crate) data: TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Checks the status and returns the body.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        if self.bytes.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// Checks that there is a status and no body.
    #[track_caller]
    pub(crate) fn is_empty(&self, status: u16) {
        assert_eq!(self.is(status), Value::Null);
    }
}

impl World {
    /// Opens a service whose builds wait for ever.
    pub(crate) async fn still() -> Self {
        Self::open(tempfile::tempdir().unwrap(), 0).await
    }

    /// Opens a service that builds, with the image `busybox`.
    pub(crate) async fn running() -> Self {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().to_owned();
        tokio::task::spawn_blocking(move || add_base(&dir)).await.unwrap();
        Self::open(data, 4).await
    }

    /// Opens a service in a directory.
    pub(crate) async fn open(data: TempDir, slots: usize) -> Self {
        let config = ServiceConfig { slots, ..ServiceConfig::new(data.path()) };
        let service = Service::open(config).await.unwrap();
        if slots > 0 {
            service.start();
        }
        let admin = service.admin().clone();
        let owner = token(&service, &admin, "acme", Role::Owner).await;
        let stranger = token(&service, &admin, "other", Role::Owner).await;
        let router = ashlar_dialect_polyaxon::router(Arc::clone(&service));
        Self { service, router, owner, stranger, data }
    }

    /// Opens the records beside the service, as another process would.
    pub(crate) async fn records(&self) -> ashlar_records::Store {
        use ashlar_records::{Durability, Options, Store};
        let file = ashlar_records::records_file;
        let dir = self.data.path().to_owned();
        let file = tokio::task::spawn_blocking(move || file(&dir)).await.unwrap().unwrap();
        let options = Options { durability: Durability::Process, ..Options::default() };
        Store::open_with(&file.display().to_string(), options).await.unwrap()
    }

    /// Returns a token of the owner's tenant that may only read.
    pub(crate) async fn reader(&self) -> String {
        token(&self.service, &self.service.admin().clone(), "acme", Role::Reader).await
    }

    /// Returns the admin's token.
    pub(crate) fn admin(&self) -> String {
        fs::read_to_string(self.service.token_path().unwrap()).unwrap().trim().to_owned()
    }

    pub(crate) async fn request(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let read = to_bytes(response.into_body(), usize::MAX);
        let bytes = tokio::time::timeout(PATIENCE, read).await.expect("an answer in time").unwrap();
        Reply { status, headers, bytes: bytes.to_vec() }
    }

    pub(crate) async fn send(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path).header("host", "h:1");
        if let Some(token) = token {
            request = request.header("authorization", format!("Token {token}"));
        }
        let body = match body {
            Some(value) => {
                request = request.header("content-type", "application/json");
                Body::from(value.to_string())
            }
            None => Body::empty(),
        };
        self.request(request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Some(&self.owner), "GET", path, None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(Some(&self.owner), "DELETE", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(Some(&self.owner), "POST", path, Some(body)).await
    }

    /// Posts nothing, without a content type.
    pub(crate) async fn poke(&self, path: &str) -> Reply {
        self.send(Some(&self.owner), "POST", path, None).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Reply {
        self.send(Some(&self.owner), "PATCH", path, Some(body)).await
    }

    /// Makes a project.
    pub(crate) async fn project(&self, name: &str) -> Value {
        self.post("/api/v1/projects/", json!({ "name": name })).await.is(201)
    }

    /// Returns the id by which everybody else knows a build.
    pub(crate) async fn id(&self, path: &str) -> BuildId {
        let page = self.get(path).await.is(200);
        BuildId::from_uuid(page["uuid"].as_str().unwrap().parse().unwrap())
    }

    /// Starts a build of a project from a specification's text; returns its path.
    pub(crate) async fn build(&self, project: &str, content: &str) -> String {
        let path = format!("/api/v1/acme/{project}/builds/");
        let made = self.post(&path, json!({ "content": content })).await.is(201);
        format!("{path}{}/", made["id"])
    }

    /// Waits until a build has ended; returns its page.
    pub(crate) async fn ended(&self, path: &str) -> Value {
        const DONE: [&str; 4] = ["succeeded", "failed", "stopped", "skipped"];
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let page = self.get(path).await.is(200);
            if DONE.contains(&page["last_status"].as_str().unwrap()) {
                return page;
            }
            assert!(tokio::time::Instant::now() < until, "it does not end: {page}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns the words of a build's statuses, and the last one's message.
    pub(crate) async fn statuses(&self, path: &str) -> (Vec<String>, String) {
        let page = self.get(&format!("{path}statuses/")).await.is(200);
        let rows = page["results"].as_array().unwrap();
        let words = rows.iter().map(|r| r["status"].as_str().unwrap().to_owned()).collect();
        let message = rows.last().and_then(|r| r["message"].as_str()).unwrap_or_default();
        (words, message.to_owned())
    }

    /// Uploads code as the CLI does.
    pub(crate) async fn upload(&self, project: &str, archive: Vec<u8>, sync: bool) -> Reply {
        let json = sync.then_some(r#"{"sync": true, "delay": true}"#);
        let body = multipart(&[("repo", Some("/home/x/repo.tar.gz"), archive)], json);
        self.upload_body(project, body).await
    }

    pub(crate) async fn upload_body(&self, project: &str, body: Vec<u8>) -> Reply {
        let path = format!("/api/v1/acme/{project}/repo/upload/");
        let request = Request::builder()
            .method("PUT")
            .uri(path)
            .header("authorization", format!("Token {}", self.owner))
            .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
            .body(Body::from(body))
            .unwrap();
        self.request(request).await
    }
}

const BOUNDARY: &str = "b7f2c1";

/// Returns a multipart body.
pub(crate) fn multipart(parts: &[(&str, Option<&str>, Vec<u8>)], json: Option<&str>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, file, bytes) in parts {
        let file = file.map(|f| format!("; filename=\"{f}\"")).unwrap_or_default();
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\nContent-Type: text/plain\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    if let Some(json) = json {
        let part = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"json\"\r\n\r\n{json}\r\n"
        );
        body.extend_from_slice(part.as_bytes());
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// Returns a tar of files, each below `./` as the CLI has them.
pub(crate) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, format!("./{path}"), text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Compresses as the CLI does.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn token(service: &Arc<Service>, admin: &Actor, tenant: &str, role: Role) -> String {
    // It may be there already.
    let _ = service.add_tenant(admin, tenant).await;
    let actor = service.act_for(admin, tenant).await.unwrap();
    let name = role.as_str();
    let (_, text) = service.make_token(&actor, name, role, name, None).await.unwrap();
    text.expose().to_owned()
}

/// Adds the image `busybox`: the host's program with its applets.
fn add_base(data: &Path) {
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
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
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
    let names = ["busybox".parse().unwrap(), "busybox:latest".parse().unwrap()];
    engine.images().store().add(&[image], &names, None).unwrap();
}
