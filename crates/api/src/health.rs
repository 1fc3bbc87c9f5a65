//! For whoever watches the server: alive, ready, numbers.

use std::fmt::Write as _;

use ashlar_service::Metrics;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::Problem;
use crate::app::Shared;

/// The process answers.
pub(crate) async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The process can take builds: the database answers and no drain is under way.
pub(crate) async fn ready(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    shared.service.check_ready().await?;
    Ok(Json(json!({ "status": "ok" })))
}

/// Numbers in Prometheus' text format 0.0.4.
pub(crate) async fn metrics(State(shared): State<Shared>) -> Result<Response, Problem> {
    let metrics = shared.service.metrics().await?;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text(&metrics)).into_response())
}

fn text(m: &Metrics) -> String {
    let mut out = String::new();
    let mut put = |name: &str, kind: &str, help: &str, lines: &[(String, f64)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP ashlar_{name} {help}\n# TYPE ashlar_{name} {kind}");
        for (labels, value) in lines {
            let _ = writeln!(out, "ashlar_{name}{labels} {value}");
        }
    };
    let one = |value: f64| [(String::new(), value)];
    put("builds_waiting", "gauge", "Builds that wait for a worker.", &one(m.waiting as f64));
    put("builds_running", "gauge", "Builds that run in this process.", &one(m.running as f64));
    put("slots", "gauge", "Builds that may run in this process at once.", &one(m.slots as f64));
    put("builds_started_total", "counter", "Attempts that began.", &one(m.started as f64));
    let ended = m.ended.iter().map(|(s, n)| (format!("{{state=\"{s}\"}}"), *n as f64));
    let ended: Vec<_> = ended.collect();
    put("attempts_ended_total", "counter", "Attempts that ended, by the state after.", &ended);
    let (waited, ran) = (one(m.waited_seconds), one(m.ran_seconds));
    put("build_wait_seconds_total", "counter", "Time that started builds had waited.", &waited);
    put("build_run_seconds_total", "counter", "Time that ended attempts had run.", &ran);
    out
}
