//! Private base images: a real registry (Debian's `docker-registry`) that wants a password.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use ashlar_blobs::BlobStore;
use ashlar_oci::registry::BlobOrigins;
use ashlar_oci::{Credential, Descriptor, Registry, RegistrySettings, Transfer};
use base64::Engine as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{World, steps};

/// What the registry knows: `me`, Amazon's user and Google's, each with its password's bcrypt hash.
const USERS: &str = "me:$2b$04$abcdefghijklmnopqrstuuEnoc1ULmpdg2DO6EydJmKbMmOocqRce
AWS:$2b$04$abcdefghijklmnopqrstuuQyFJaqdnKIYgreFcN/QXjVN7It7VSaa
_json_key:$2b$04$abcdefghijklmnopqrstuuVv1u49cXaZiAlMRz3V8qXjFqHCVtS/y
";
const PASSWORD: &str = "pull-secret-8821";
const AWS_PASSWORD: &str = "ecr-token-7719";
const GCP_KEY: &str = r#"{"type":"service_account","key":"gcp-9915"}"#;

/// A registry that lives as long as the test, with the image `private/app:1`.
pub(crate) struct Closed {
    host: String,
    child: Child,
    _dir: TempDir,
}

impl Drop for Closed {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Closed {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (root, users) = (dir.path().join("data"), dir.path().join("users"));
        fs::write(&users, USERS).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\nhttp: {{ addr: '{host}' }}\n\
             storage:\n  filesystem: {{ rootdirectory: {} }}\n\
             auth:\n  htpasswd: {{ realm: here, path: {} }}\n",
            root.display(),
            users.display()
        );
        let path = dir.path().join("config.yml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("install Debian's package docker-registry");
        let begun = Instant::now();
        while std::net::TcpStream::connect(&host).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "docker-registry does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Self { host, child, _dir: dir }
    }

    /// Builds an image somewhere else and puts it in; returns its digest.
    async fn fill(&self) -> String {
        let world = World::new().await;
        let build = World::ready(&world.build(steps("app", &["echo private > /secret"])).await);
        let build = build.trim_start_matches("tb_").parse().unwrap();
        let packaged = world.service.package(world.service.admin(), build).await.unwrap();
        let size = packaged.manifest.len() as u64;
        let root = Descriptor::new(packaged.media_type, packaged.digest, size);
        let (host, data) = (self.host.clone(), world.data.path().to_owned());
        let push = move || {
            let mut settings = RegistrySettings::default();
            let credential = Credential::Basic { username: "me".into(), password: PASSWORD.into() };
            settings.credentials.insert(host.clone(), credential);
            let blobs = BlobStore::open(&data).unwrap();
            let name = format!("{host}/private/app:1").parse().unwrap();
            let quiet = Transfer::quiet();
            Registry::new(settings)
                .push(&name, &root, &blobs, &BlobOrigins::new(), &quiet)
                .unwrap();
        };
        tokio::task::spawn_blocking(push).await.unwrap();
        packaged.digest.to_string()
    }

    pub(crate) fn image(&self) -> String {
        format!("{}/private/app:1", self.host)
    }
}

fn basic(password: &str) -> Value {
    json!({ "kind": "basic", "username": "me", "password": password })
}

fn on(image: &str, auth: Option<Value>) -> Value {
    let mut request = steps("app", &["cat /secret"]);
    request["base_image"] = json!(image);
    if let Some(auth) = auth {
        request["base_image_auth"] = auth;
    }
    request
}

#[track_caller]
fn failed(entries: &[Value], phase: &str, code: &str) -> Value {
    let last = entries.last().unwrap();
    let detail = &last["error_detail"];
    assert_eq!((&detail["phase"], &detail["code"]), (&json!(phase), &json!(code)), "{entries:#?}");
    detail.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_base_needs_the_builds_own_credentials() {
    let closed = Closed::start();
    let digest = closed.fill().await;
    let (world, image) = (World::new().await, closed.image());
    failed(&world.build(on(&image, None)).await, "prepare", "build_error");
    let detail =
        failed(&world.build(on(&image, Some(basic("wrong-3316")))).await, "auth", "unauthorized");
    assert_eq!(detail["details"]["reason"], "credentials_refused");
    let entries = world.build(on(&image, Some(basic(PASSWORD)))).await;
    let id = World::ready(&entries);
    assert!(entries.iter().any(|e| e["message"] == "private"), "{entries:#?}");
    // Whoever waits for the end gets the failure's own code.
    let create = world.post("/v1/templates", on(&image, Some(basic("wrong-3316")))).await;
    let body = create.refused(400, "unauthorized");
    assert_eq!(body["error_detail"]["phase"], "auth");
    assert!(body["build_id"].is_string(), "{body}");
    // The next build of the same tenant brings none: the tag is asked for, and refused.
    failed(&world.build(on(&image, None)).await, "prepare", "build_error");
    let pinned = format!("{}/private/app@{digest}", closed.host);
    for image in [&image, &pinned] {
        let path = "/v1/templates/build";
        let body = on(image, None).to_string();
        let reply = world.send(Some(&world.stranger), "POST", path, body).await;
        failed(&reply.entries(), "prepare", "build_error");
    }
    let retry = format!("/v1/templates/builds/{id}/retry");
    world.post(&retry, json!({})).await.refused(400, "invalid_request");
    let again = world.post(&retry, json!({ "base_image_auth": basic(PASSWORD) })).await.is(202);
    let status = world.ended(again["build_id"].as_str().unwrap()).await;
    assert_eq!(status["build"]["status"], "ready", "{status}");
    let artifact = id.trim_start_matches("tb_").parse().unwrap();
    world.service.package(world.service.admin(), artifact).await.unwrap();
    for secret in [PASSWORD, "wrong-3316"] {
        assert_eq!(world.files_with(secret), [] as [PathBuf; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dockerfiles_bring_credentials_by_registry() {
    let closed = Closed::start();
    closed.fill().await;
    let (world, image) = (World::new().await, closed.image());
    let text =
        format!("FROM {image} AS one\nFROM busybox\nCOPY --from=one /secret /got\nRUN cat /got");
    let auth = |auth: Value| json!([{ "registry": closed.host, "auth": auth }]);
    let request = |auth: Value| json!({ "name": "d", "dockerfile": text, "registry_auth": auth });
    let entries = world.build(request(auth(basic(PASSWORD)))).await;
    World::ready(&entries);
    assert!(entries.iter().any(|e| e["message"] == "private"), "{entries:#?}");
    failed(&world.build(request(auth(basic("wrong-3316")))).await, "auth", "unauthorized");
    let google = json!({ "kind": "gcp_artifact_registry", "service_account_json": GCP_KEY });
    let entries = world.build(request(auth(google.clone()))).await;
    World::ready(&entries);
    // As the base of the stage that is asked for.
    let base = json!({ "name": "d", "dockerfile": format!("FROM {image}\nRUN cat /secret"),
        "base_image_auth": google });
    World::ready(&world.build(base).await);
    let unknown = json!({ "name": "d", "dockerfile": "ARG R=x\nFROM ${R}/app",
        "base_image_auth": basic(PASSWORD) });
    world.post("/v1/templates/builds", unknown).await.refused(400, "invalid_request");
}

/// Amazon's API as far as it is asked: gives the password, but not to `AKIDREFUSED`.
fn amazon() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
                head += &line;
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let token =
                base64::engine::general_purpose::STANDARD.encode(format!("AWS:{AWS_PASSWORD}"));
            let (status, answer) = match head.contains("AKIDREFUSED") {
                true => (400, json!({ "__type": "UnrecognizedClientException" })),
                false => (200, json!({ "authorizationData": [{ "authorizationToken": token }] })),
            };
            let answer = answer.to_string();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close",
                answer.len()
            );
            write!(&stream, "{head}\r\n\r\n{answer}").unwrap();
        }
    });
    format!("http://{address}/")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aws_key_is_exchanged_when_the_build_starts() {
    let closed = Closed::start();
    closed.fill().await;
    let (endpoint, data) = (amazon(), tempfile::tempdir().unwrap());
    let world = World::with(data, |config| {
        config.registries.ecr_endpoint = Some(endpoint.parse().unwrap());
    })
    .await;
    let key = |id: &str| {
        json!({ "kind": "aws_ecr", "access_key_id": id, "secret_access_key": "aws-secret-4402",
                "region": "eu-central-1" })
    };
    let entries = world.build(on(&closed.image(), Some(key("AKIDEXAMPLE")))).await;
    World::ready(&entries);
    let refused = world.build(on(&closed.image(), Some(key("AKIDREFUSED")))).await;
    failed(&refused, "auth", "unauthorized");
    for secret in [AWS_PASSWORD, "aws-secret-4402"] {
        assert_eq!(world.files_with(secret), [] as [PathBuf; 0]);
    }
}
