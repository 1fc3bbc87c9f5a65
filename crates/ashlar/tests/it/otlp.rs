//! Traces of builds, as a collector gets them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::serve::Server;
use crate::world::World;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector that takes whatever comes and hands it on.
fn collector() -> (String, Receiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = BufReader::new(connection.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            let mut head = String::new();
            while connection.read_line(&mut line).unwrap() > 2 {
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head += &std::mem::take(&mut line);
            }
            assert!(head.starts_with("POST /v1/traces "), "{head}");
            let mut body = vec![0; length];
            connection.read_exact(&mut body).unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n\
                          content-length: 0\r\nconnection: close\r\n\r\n";
            connection.get_mut().write_all(answer.as_bytes()).unwrap();
            if sender.send(ExportTraceServiceRequest::decode(&body[..]).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

/// Returns a span's attributes as texts.
fn attributes(span: &Span) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let value = |a: &opentelemetry_proto::tonic::common::v1::KeyValue| {
        text(a.value.as_ref().unwrap().value.as_ref().unwrap())
    };
    span.attributes.iter().map(|a| (a.key.as_str(), value(a))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn a_build_is_a_trace_below_its_submission_and_a_step_a_span() {
    let world = World::new();
    let (url, traces) = collector();
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*url), ("OTEL_SERVICE_NAME", "the-tests")];
    let server = Server::start(&world, &["--drain", "1s"], &env);
    let body = r#"{"name": "traced", "dockerfile": "FROM base\nRUN true\nRUN exit 7\n"}"#;
    let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let made = server.post("/api/v1/builds", &parent, body);
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    let request = traces.recv_timeout(Duration::from_secs(60)).unwrap();
    let resource = request.resource_spans[0].resource.as_ref().unwrap();
    assert!(format!("{resource:?}").contains("the-tests"), "{resource:?}");
    let spans = &request.resource_spans[0].scope_spans[0].spans;
    assert!(spans.iter().all(|s| hex(&s.trace_id) == TRACE));
    assert!(spans.iter().all(|s| s.end_time_unix_nano >= s.start_time_unix_nano));

    let build = spans.iter().find(|s| s.name == "build").unwrap();
    assert_eq!(hex(&build.parent_span_id), PARENT);
    let said = attributes(build);
    assert_eq!(said["cicd.pipeline.name"], "traced");
    assert_eq!(said["cicd.pipeline.result"], "failure");
    assert_eq!(said["error.type"], "step");
    assert!(made.contains(&said["cicd.pipeline.run.id"]), "{made}");
    assert!(spans.iter().all(|s| s.name == "build" || s.parent_span_id == build.span_id));
    assert!(spans.iter().any(|s| s.name == "queue"));

    let step = |part: &str| {
        let found = spans.iter().find(|s| s.name.contains(part));
        found.unwrap_or_else(|| panic!("no {part} in {spans:#?}"))
    };
    let (good, bad) = (step("RUN true"), step("RUN exit 7"));
    assert_eq!(attributes(good)["cicd.pipeline.task.run.result"], "success");
    assert_eq!(attributes(good)["process.exit.code"], "0");
    assert_eq!(attributes(good)["ashlar.cache.result"], "miss");
    assert_eq!(attributes(bad)["cicd.pipeline.task.run.result"], "failure");
    assert_eq!(attributes(bad)["process.exit.code"], "7");
    assert_ne!(good.span_id, bad.span_id);

    // The build without a parent has a trace of its own, which its id names.
    let body = r#"{"name": "again", "dockerfile": "FROM base\nRUN true\n"}"#;
    let made = server.post("/api/v1/builds", "traceparent: nonsense", body);
    let request = traces.recv_timeout(Duration::from_secs(60)).unwrap();
    let spans = &request.resource_spans[0].scope_spans[0].spans;
    let build = spans.iter().find(|s| s.name == "build").unwrap();
    assert!(build.parent_span_id.is_empty(), "{build:?}");
    let said = attributes(build);
    assert_eq!(said["cicd.pipeline.result"], "success");
    assert_eq!(hex(&build.trace_id), said["cicd.pipeline.run.id"].replace('-', ""));
    assert!(made.contains(&said["cicd.pipeline.run.id"]));
    let cached = spans.iter().find(|s| s.name.contains("RUN true")).unwrap();
    assert_eq!(attributes(cached)["ashlar.cache.result"], "hit");
}

#[test]
fn a_collector_that_is_away_holds_up_nothing() {
    let world = World::new();
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")];
    let server = Server::start(&world, &["--drain", "1s"], &env);
    let body = r#"{"dockerfile": "FROM base\nRUN true\n"}"#;
    let made = server.post("/api/v1/builds", "x-nothing: 1", body);
    let place = made.lines().find_map(|l| l.strip_prefix("location: ")).unwrap();
    let followed = server.get(&format!("{place}/events?follow=true"));
    assert!(followed.contains("\"succeeded\""), "{followed}");
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait().0, Some(0));
}
