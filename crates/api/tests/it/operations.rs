//! What operators see and do: numbers, the end of a server with followers.

use std::sync::Arc;
use std::time::Duration;

use ashlar_api::{ApiOptions, app, serve};
use ashlar_service::Service;
use futures_util::StreamExt as _;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{ADMIN, Client, World, config};

#[tokio::test(flavor = "multi_thread")]
async fn every_number_is_there_and_moves() {
    let world = World::new().await;
    let build = json!({"dockerfile": "FROM base\nRUN echo twelve-bytes\n"});
    world.admin.built(&build).await;
    let second = json!({"dockerfile": "FROM base\nRUN echo twelve-bytes\n", "name": "again"});
    world.admin.built(&second).await;
    world.client(None).get("/api/v1/whoami").await.is(401);
    world.client(None).get("/no/such/place").await.is(404);
    let refused = world.admin.post("/api/v1/builds", &json!({"image": ""})).await.is(400);
    assert_eq!(refused.json()["field"], "image");
    let metrics = world.client(None).get("/metrics").await.is(200);
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = metrics.text();
    for line in [
        "ashlar_builds{state=\"succeeded\"} 2\n",
        "ashlar_builds{state=\"queued\"} 0\n",
        "ashlar_worker_slots 8\n",
        "ashlar_worker_slots_busy 0\n",
        "ashlar_attempts_started_total 2\n",
        "ashlar_attempts_ended_total{state=\"succeeded\"} 2\n",
        "ashlar_attempts_ended_total{state=\"failed\"} 0\n",
        "ashlar_build_duration_seconds_count{state=\"succeeded\"} 2\n",
        "ashlar_build_queue_duration_seconds_count 2\n",
        "ashlar_cache_results_total{cache=\"final_artifact\",result=\"hit\"} 1\n",
        "ashlar_http_requests_total{method=\"GET\",route=\"/api/v1/whoami\",status=\"401\"} 1\n",
        "ashlar_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1\n",
        "ashlar_http_requests_total{method=\"POST\",route=\"/api/v1/builds\",status=\"201\"} 2\n",
        "ashlar_store_duration_seconds_count{operation=\"submit\"} 2\n",
    ] {
        assert!(text.contains(line), "{line} is missing in:\n{text}");
    }
    let log = text.lines().find_map(|l| l.strip_prefix("ashlar_log_bytes_total "));
    assert!(log.unwrap().parse::<u64>().unwrap() >= 13, "{text}");
    // Each name is described once, before its first value.
    for line in text.lines().filter(|l| l.starts_with("# TYPE ")) {
        assert_eq!(text.matches(line).count(), 1, "{line}");
    }
}

/// A server without workers that can be stopped.
struct Stoppable {
    service: Arc<Service>,
    address: String,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
    _data: TempDir,
}

impl Stoppable {
    async fn new(grace: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let data = tempfile::tempdir().unwrap();
        let mut config = config(data.path());
        config.slots = 0;
        let service = Service::open(config).await.unwrap();
        let router = app(&service, ApiOptions::default()).unwrap();
        let served = tokio::spawn(serve(listener, router, async { drop(stopped.await) }, grace));
        Self { service, address, stop, served, _data: data }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_are_sent_away_with_a_hint_when_the_server_stops() {
    let server = Stoppable::new(Duration::from_secs(30)).await;
    let client = Client::new(&format!("http://{}", server.address), Some(ADMIN));
    let build = client.submit(&json!({"image": "base"})).await;
    for path in ["events?follow=true", "logs?format=sse"] {
        let path = format!("/api/v1/builds/{build}/{path}");
        let response = client.request(reqwest::Method::GET, &path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut bytes = response.bytes_stream();
        let drain = server.service.drain();
        let (_, text) = tokio::join!(drain, async {
            let mut text = Vec::new();
            while let Some(chunk) = bytes.next().await {
                text.extend_from_slice(&chunk.unwrap());
            }
            String::from_utf8(text).unwrap()
        });
        assert!(text.contains("retry: 2000\n"), "{path}: {text}");
    }
    server.stop().await;
}

/// Text has no place for a hint: that it is not whole is all that can be said.
#[tokio::test(flavor = "multi_thread")]
async fn logs_that_the_servers_stop_cuts_off_do_not_end_as_if_that_were_all() {
    let server = Stoppable::new(Duration::from_secs(30)).await;
    let client = Client::new(&format!("http://{}", server.address), Some(ADMIN));
    let build = client.submit(&json!({"image": "base"})).await;
    let mut followed = Vec::new();
    for form in ["text", "raw", "html"] {
        let path = format!("/api/v1/builds/{build}/logs?format={form}&follow=true");
        let response = client.request(reqwest::Method::GET, &path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        followed.push(response);
    }
    server.service.drain().await;
    for response in followed {
        assert!(response.bytes().await.is_err());
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_end_is_closed_after_its_time() {
    let server = Stoppable::new(Duration::from_millis(200)).await;
    let address = server.address.clone();
    let mut stuck = TcpStream::connect(&address).await.unwrap();
    // A request whose body never comes.
    let head = "POST /api/v1/blobs/missing HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\
                authorization: Bearer admin-token-of-the-tests\r\n\
                content-type: application/json\r\n\r\n{";
    stuck.write_all(head.as_bytes()).await.unwrap();
    let mut idle = TcpStream::connect(&address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    server.stop().await;
    let mut rest = Vec::new();
    // Both are closed, the stuck one without an answer.
    let _ = stuck.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(&address).await.is_err());
}
