//! What clients cannot use up for others: threads, requests.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, Instant};

use ashlar_api::Patience;
use ashlar_core::Digest;
use ashlar_service::UploadLimits;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;

use crate::support::{ADMIN, Client, World, send};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Begins an upload and sends less than it announces.
fn stalled(world: &World, token: &str, path: &str, kind: &str) -> TcpStream {
    let address = world.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: {kind}\r\ncontent-length: 1000\r\nconnection: close\r\n\r\nabc"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn blob(n: u32) -> String {
    format!("PUT /api/v1/blobs/{}", Digest::of(n.to_string()))
}

/// Counts the uploads that have begun.
fn begun(data: &Path) -> usize {
    let tenants = std::fs::read_dir(data.join("uploads")).into_iter().flatten().flatten();
    tenants.map(|tenant| std::fs::read_dir(tenant.path()).unwrap().count()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_falls_silent_is_not_waited_for() {
    let patience = Patience { body: Duration::from_millis(100), ..Patience::default() };
    let world = World::patient(patience, |_| {}).await;
    let long = format!("/api/v1/builds/{}/cancel", uuid());
    for (path, kind) in [
        (blob(1), "application/octet-stream"),
        ("POST /api/v1/contexts".to_owned(), "application/x-tar"),
        ("POST /api/v1/builds".to_owned(), "application/json"),
        (format!("POST {long}"), "application/json"),
    ] {
        let mut stream = stalled(&world, ADMIN, &path, kind);
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(said.starts_with("HTTP/1.1 400 "), "{path}: {said}");
        assert!(said.contains("no bytes of the body came"), "{path}: {said}");
    }
    assert!(begun(world.data.path()) <= 1);
}

fn uuid() -> String {
    "01890a5d-ac96-774b-bcce-b302099a8057".into()
}

/// With few threads, as many clients as there are and more stall: builds still find theirs.
#[test]
fn stalled_uploads_leave_threads_to_builds() {
    const THREADS: usize = 12;
    let limits = UploadLimits { all: 3, tenant: 2 };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(THREADS)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::with(|config| {
            config.uploads = limits;
            config.slots = 2;
        })
        .await;
        let reader = world.tenant("readers", "reader").await;
        let mut open = Vec::new();
        for tenant in ["one", "two"] {
            let client = world.tenant(tenant, "developer").await;
            for n in 0..2 * u32::try_from(THREADS).unwrap() {
                let kind = "application/octet-stream";
                open.push(stalled(&world, client.token(), &blob(n), kind));
                open.push(stalled(&world, reader.token(), &blob(n), kind));
            }
        }
        let until = Instant::now() + PATIENCE;
        while begun(world.data.path()) < limits.all {
            assert!(Instant::now() < until, "no upload begins");
            tokio::task::yield_now().await;
        }
        let other = world.tenant("other", "developer").await;
        let built = other.built(&json!({ "dockerfile": "FROM base\nRUN echo x >/x\n" })).await;
        assert_eq!(built["state"], "succeeded");
        assert_eq!(begun(world.data.path()), limits.all, "and no more uploads than there may be");
        drop(open);
    });
}

/// Sends requests until one is told to come later.
async fn slowed(make: impl Fn() -> reqwest::RequestBuilder) -> bool {
    for _ in 0..200 {
        let answer = send(make()).await;
        if answer.status.as_u16() == 429 {
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_counts_the_requests_of_a_tenant() {
    let world = World::with(|config| config.requests_per_second = Some(NonZeroU32::MIN)).await;
    type Make = fn(&Client, &str) -> reqwest::RequestBuilder;
    let doors: [(&str, Make); 4] = [
        ("native", |client, _| client.request(Method::GET, "/api/v1/whoami")),
        ("registry", |client, _| client.request(Method::GET, "/v2/")),
        ("token", |client, token| {
            let basic = STANDARD.encode(format!("x:{token}"));
            client
                .request(Method::GET, "/v2/token")
                .header("authorization", format!("Basic {basic}"))
        }),
        ("web", |client, cookie| client.request(Method::GET, "/").header("cookie", cookie)),
    ];
    let anonymous = world.client(None);
    for (name, make) in doors {
        let tenant = world.admin_of_a_new_tenant(name).await;
        let client = if matches!(name, "native" | "registry") { &tenant } else { &anonymous };
        let known = match name {
            "web" => world.session(tenant.token()).await,
            _ => tenant.token().to_owned(),
        };
        assert!(slowed(|| make(client, &known)).await, "{name}");
    }
    // One tenant's bucket is empty, another's is not.
    world.admin_of_a_new_tenant("fresh").await.get("/api/v1/whoami").await.is(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_slow_at_every_door() {
    for (path, header, value) in [
        ("/api/v1/whoami", "authorization", "Bearer wrong-token"),
        ("/v2/", "authorization", "Bearer wrong-token"),
        ("/v2/token", "authorization", "Basic eDp3cm9uZy10b2tlbg=="),
        ("/v2/token", "x-none", "none"),
        ("/", "cookie", "ashlar_session=session_wrong"),
    ] {
        let world = World::with(|config| config.requests_per_second = Some(NonZeroU32::MIN)).await;
        let client = world.client(None);
        let make = || client.request(Method::GET, path).header(header, value);
        assert!(slowed(make).await, "{path} {header}");
    }
}
