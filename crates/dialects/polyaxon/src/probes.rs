//! What clients ask before anything else: versions, where to send crash reports, the cluster.

use std::num::NonZeroUsize;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::error::{Answer, Refusal, reply};
use crate::model::derived;

/// The newest release of the original whose API is served.
const LATEST: &str = "0.6.1";
/// A client below this would ask for an upgrade and stop; so it is below all.
const OLDEST: &str = "0.0.1";
/// The memory of a node when it cannot be read: clients insist on a number.
const MEMORY_UNKNOWN: u64 = 0;

pub(crate) fn versions() -> Answer {
    Ok(reply(StatusCode::OK, &json!({ "latest_version": LATEST, "min_version": OLDEST })))
}

pub(crate) fn chart_version() -> Answer {
    Ok(reply(StatusCode::OK, &json!({ "version": LATEST })))
}

/// The `dsn` is always null: another one would make every later run of the CLI send its crashes
/// there.
pub(crate) fn log_handler() -> Answer {
    let body = json!({ "dsn": null, "environment": "production", "tags": {} });
    Ok(reply(StatusCode::OK, &body))
}

/// Shows this server as a cluster of one node.
pub(crate) fn cluster() -> Answer {
    let body = json!({
        "uuid": derived(&[b"cluster"]).simple().to_string(),
        "version_api": { "major": "0", "minor": "6", "gitVersion": LATEST, "platform": "ashlar" },
        "created_at": null,
        "updated_at": null,
        "nodes": [node_in_short()],
    });
    Ok(reply(StatusCode::OK, &body))
}

pub(crate) fn node(sequence: u64) -> Answer {
    if sequence != 1 {
        return Err(Refusal::NotFound);
    }
    let mut body = crate::wire::object(node_in_short());
    body.extend(crate::wire::object(json!({
        "docker_version": null,
        "kubelet_version": null,
        "os_image": null,
        "kernel_version": null,
        "schedulable_taints": false,
        "schedulable_state": true,
        "is_current": true,
        "gpus": [],
    })));
    Ok(reply(StatusCode::OK, &Value::Object(body)))
}

fn node_in_short() -> Value {
    let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    json!({
        "uuid": derived(&[b"node"]).simple().to_string(),
        "sequence": 1,
        "name": "ashlar",
        "hostname": "ashlar",
        "role": "master",
        "memory": memory_bytes().unwrap_or(MEMORY_UNKNOWN),
        "cpu": cpus as f64,
        "n_gpus": 0,
    })
}

fn memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}
