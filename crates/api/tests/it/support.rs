//! A server with a base image, and clients of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ashlar_api::{ApiOptions, Patience, TrustedProxies, app, serve_with};
use ashlar_core::{Platform, Timestamp};
use ashlar_layers::KnownFiles;
use ashlar_native::{Engine, EngineConfig};
use ashlar_oci::{LayerRef, LocalImage, Origin};
use ashlar_sandbox::{NativeConfig, NativeSandbox};
use ashlar_service::{Service, ServiceConfig, TokenText};
use ashlar_snapshots::Tree;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// The admin's token in all tests.
pub(crate) const ADMIN: &str = "admin-token-of-the-tests";
/// How long connections may go on after the end of a test's server.
const GRACE: Duration = Duration::from_secs(5);
/// How long a build may take.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A server of its own.
pub(crate) struct World {
    pub(crate) service: Arc<Service>,
    pub(crate) url: String,
    pub(crate) admin: Client,
    pub(crate) data: TempDir,
    _stop: oneshot::Sender<()>,
}

/// Talks to a server with one token.
#[derive(Clone)]
pub(crate) struct Client {
    url: String,
    token: Option<String>,
    http: reqwest::Client,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// Fails unless the status is this.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }
}

pub(crate) fn config(data: &Path) -> ServiceConfig {
    let mut config = ServiceConfig::new(data);
    config.admin_token = Some(TokenText::new(ADMIN.into()));
    // The sandbox's own tests are about networks.
    config.network = ashlar_core::graph::Network::None;
    config
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// Logs a browser in; returns its cookie.
    pub(crate) async fn session(&self, token: &str) -> String {
        let login = self.client(None).request(Method::POST, "/login");
        let login = login.header("content-type", "application/x-www-form-urlencoded");
        let answer = send(login.body(format!("token={token}"))).await.is(303);
        let cookie = answer.header("set-cookie");
        cookie.split(';').next().unwrap().to_owned()
    }

    pub(crate) async fn postgres() -> Self {
        let database = crate::postgres::fresh_database().await;
        Self::with(|config| config.database = Some(database)).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut ServiceConfig)) -> Self {
        Self::patient(Patience::default(), change).await
    }

    /// Starts a server that waits for clients only so long.
    pub(crate) async fn patient(
        patience: Patience,
        change: impl FnOnce(&mut ServiceConfig),
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let dir = data.path().to_owned();
        tokio::task::spawn_blocking(move || add_base(&dir)).await.unwrap();
        let mut config = config(data.path());
        change(&mut config);
        let service = Service::open(config).await.unwrap();
        service.start();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let proxies = TrustedProxies::new(["127.0.0.2".parse().unwrap()]);
        let options = ApiOptions { proxies, ..ApiOptions::default() };
        let router = app(&service, options).unwrap();
        let stopped = async { drop(stopped.await) };
        tokio::spawn(serve_with(listener, router, stopped, GRACE, patience));
        let admin = Client::new(&url, Some(ADMIN));
        Self { service, url, admin, data, _stop: stop }
    }

    pub(crate) fn client(&self, token: Option<&str>) -> Client {
        Client::new(&self.url, token)
    }

    /// Makes a tenant, and a client that owns it; takes nothing out of the admin's bucket.
    pub(crate) async fn admin_of_a_new_tenant(&self, name: &str) -> Client {
        use ashlar_service::Role;
        let admin = self.service.admin();
        self.service.add_tenant(admin, name).await.unwrap();
        let actor = self.service.act_for(admin, name).await.unwrap();
        let made = self.service.make_token(&actor, name, Role::Owner, "test", None).await.unwrap();
        self.client(Some(made.1.expose()))
    }

    /// Makes a tenant, and a client with a role in it.
    pub(crate) async fn tenant(&self, name: &str, role: &str) -> Client {
        let made = self.admin.post("/api/v1/tenants", &json!({ "name": name })).await;
        assert!([201, 409].contains(&made.status.as_u16()), "{}", made.text());
        let new = json!({ "principal": format!("{name}-{role}"), "role": role });
        let request = self.admin.request(Method::POST, "/api/v1/tokens");
        let made = send(request.header("ashlar-tenant", name).json(&new)).await.is(201);
        self.client(made.json()["token"].as_str())
    }
}

impl Client {
    pub(crate) fn new(url: &str, token: Option<&str>) -> Self {
        // Fails when an earlier test of this process did it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let policy = reqwest::redirect::Policy::none();
        let http = reqwest::Client::builder().redirect(policy).no_proxy().build().unwrap();
        Self { url: url.to_owned(), token: token.map(str::to_owned), http }
    }

    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().unwrap()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    /// Submits a build and returns its id.
    pub(crate) async fn submit(&self, ask: &Value) -> String {
        let answer = self.post("/api/v1/builds", ask).await.is(201);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn dockerfile(&self, text: &str) -> String {
        self.submit(&json!({ "scope": "test", "name": "test", "dockerfile": text })).await
    }

    /// Waits for a build's end and returns it.
    pub(crate) async fn wait(&self, build: &str) -> Value {
        let ended = ["succeeded", "failed", "cancelled", "skipped"];
        self.wait_for(build, |b| ended.contains(&b["state"].as_str().unwrap())).await
    }

    pub(crate) async fn wait_for(&self, build: &str, done: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + WAIT_MAX;
        loop {
            let shown = self.get(&format!("/api/v1/builds/{build}")).await.is(200).json();
            if done(&shown) {
                return shown;
            }
            assert!(Instant::now() < until, "the build takes too long: {shown:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Builds a Dockerfile that must succeed.
    pub(crate) async fn built(&self, ask: &Value) -> Value {
        let build = self.submit(ask).await;
        let shown = self.wait(&build).await;
        assert_eq!(shown["state"], "succeeded", "{shown:#}");
        shown
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
}

pub(crate) fn id(build: &Value) -> &str {
    build["id"].as_str().unwrap()
}

/// Returns a tar archive of files.
pub(crate) fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Adds the image `base` to a data directory: busybox with its applets.
pub(crate) fn add_base(data: &Path) {
    let sandbox = NativeSandbox::new(&NativeConfig::new(data.join("sandbox"))).unwrap();
    let engine = Engine::open(EngineConfig::new(data), Arc::new(sandbox)).unwrap();
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.exists(), "install Debian's package busybox-static");
    let draft = engine.snapshots().begin(&Tree::scratch()).unwrap();
    let root = draft.upper();
    for dir in ["bin", "tmp", "etc", "root", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "echo", "sleep", "test", "true", "wc", "cp", "ls", "seq", "nc"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
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
    engine.images().store().add(&[image], &["base".parse().unwrap()], None).unwrap();
}
