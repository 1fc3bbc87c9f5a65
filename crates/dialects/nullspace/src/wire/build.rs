//! Builds as clients see them.

use std::collections::BTreeMap;

use ashlar_core::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FailureDetail, LogEntry};

/// One attempt at a template, without what only its owner's status call shows: a row of the history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct BuildSummary {
    pub(crate) build_id: String,
    pub(crate) template_id: String,
    pub(crate) name: String,
    pub(crate) tags: Vec<String>,
    pub(crate) status: &'static str,
    pub(crate) build_backend: String,
    pub(crate) source_type: String,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) queued_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) finished_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dockerfile_digest: Option<String>,
    pub(crate) triggered_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) build_config: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure_phase: Option<String>,
    pub(crate) cache_summary: CacheSummary,
    pub(crate) artifact_availability: Availability,
    pub(crate) promotability: Promotability,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retention_expires_at: Option<Timestamp>,
    pub(crate) artifact_ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runtime_defaults: Option<RuntimeDefaults>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oci_metadata: Option<OciMetadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_of_build_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) original_build_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cancel_requested_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cancel_requested_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cancellation_reason: Option<String>,
}

/// One attempt at a template.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TemplateBuild {
    #[serde(flatten)]
    pub(crate) summary: BuildSummary,
    pub(crate) canonical_ref: String,
    pub(crate) namespace_slug: String,
    pub(crate) visibility: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_detail: Option<FailureDetail>,
}

/// A build with its log from an offset on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StatusSnapshot {
    pub(crate) build: TemplateBuild,
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) next_offset: u64,
}

/// A page of the history.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct BuildList {
    pub(crate) builds: Vec<BuildSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_cursor: Option<String>,
}

/// The twelve counters: each is the number of log entries of its kind and status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct CacheSummary {
    pub(crate) final_artifact_hits: u32,
    pub(crate) final_artifact_misses: u32,
    pub(crate) final_artifact_bypasses: u32,
    pub(crate) final_artifact_stores: u32,
    pub(crate) layer_hits: u32,
    pub(crate) layer_misses: u32,
    pub(crate) layer_bypasses: u32,
    pub(crate) layer_stores: u32,
    pub(crate) file_blob_hits: u32,
    pub(crate) file_blob_misses: u32,
    pub(crate) file_blob_bypasses: u32,
    pub(crate) file_blob_stores: u32,
}

/// Whether the artifact can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Availability {
    pub(crate) status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
}

/// Whether tags may be moved to the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Promotability {
    pub(crate) status: &'static str,
    pub(crate) promotable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
}

/// How the artifact runs. Of variables only the names: values may be secret.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct RuntimeDefaults {
    pub(crate) default_env_keys: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start_cmd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default_workdir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) readiness: Option<Value>,
}

/// What the image says of itself and nobody acts on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct OciMetadata {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) exposed_ports: Vec<String>,
    pub(crate) volumes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) healthcheck: Option<Healthcheck>,
}

/// A health check, and the readiness probe that does the same.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Healthcheck {
    pub(crate) test: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interval_ns: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout_ns: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start_period_ns: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retries: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mapped_readiness: Option<Value>,
}
