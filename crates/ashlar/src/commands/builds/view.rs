//! What is printed of a build, wherever its record is: field names that stay.

use std::collections::BTreeMap;

use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::failure::Failure;
use ashlar_core::journal::{ArtifactRecord, Record, StepCounts};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Timestamp};
use serde::Serialize;

/// A build for people and for programs.
#[derive(Debug, Serialize)]
pub(super) struct BuildView {
    pub(super) id: BuildId,
    pub(super) name: String,
    pub(super) state: State,
    source: String,
    backend: Option<String>,
    executor: Option<String>,
    retry_of: Option<BuildId>,
    pub(super) created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    pub(super) seconds: Option<f64>,
    pub(super) steps: StepCounts,
    pub(super) cache: BTreeMap<&'static str, CacheView>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) artifacts: Vec<ArtifactRecord>,
    pub(super) failure: Option<Failure>,
    pinned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expiry: Option<ashlar_client::Expiry>,
}

/// Counters of one cache.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct CacheView {
    pub(super) hits: u32,
    pub(super) misses: u32,
    bypasses: u32,
    stores: u32,
}

/// The caches, with the words for them.
const CACHES: [(&str, CacheKind); 3] = [
    ("layer", CacheKind::Layer),
    ("file_blob", CacheKind::FileBlob),
    ("final_artifact", CacheKind::FinalArtifact),
];

impl From<&Record> for BuildView {
    fn from(record: &Record) -> Self {
        let counts = |kind| CacheView {
            hits: record.cache.get(kind, CacheStatus::Hit),
            misses: record.cache.get(kind, CacheStatus::Miss),
            bypasses: record.cache.get(kind, CacheStatus::Bypass),
            stores: record.cache.get(kind, CacheStatus::Store),
        };
        Self {
            id: record.submission.build,
            name: record.name.clone(),
            state: record.state,
            source: record.submission.source.clone(),
            backend: record.submission.backend.clone(),
            executor: record.executor.clone(),
            retry_of: record.submission.retry_of,
            created_at: record.created_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            seconds: record.duration().map(|d| d.as_secs_f64()),
            steps: record.steps,
            cache: CACHES.map(|(name, kind)| (name, counts(kind))).into(),
            labels: record.labels.clone(),
            artifacts: record.artifacts.clone(),
            failure: record.failure.clone(),
            pinned: record.pinned,
            expiry: None,
        }
    }
}

impl From<ashlar_client::Build> for BuildView {
    fn from(build: ashlar_client::Build) -> Self {
        let counts = |name: &str| {
            let count = |status: &str| {
                build.cache.get(name).and_then(|c| c.get(status)).copied().unwrap_or_default()
            };
            CacheView {
                hits: count("hits"),
                misses: count("misses"),
                bypasses: count("bypasses"),
                stores: count("stores"),
            }
        };
        let cache = CACHES.map(|(name, _)| (name, counts(name))).into();
        let artifact = |a: ashlar_client::Artifact| ArtifactRecord {
            name: a.name,
            kind: a.kind,
            digest: a.digest,
            bytes: a.bytes,
            references: a.references,
        };
        Self {
            id: build.id,
            name: build.name,
            state: build.state,
            source: build.source,
            backend: build.requested_backend,
            executor: build.executor,
            retry_of: build.retry_of,
            created_at: build.created_at,
            started_at: build.started_at,
            finished_at: build.finished_at,
            seconds: build.duration_ms.map(|ms| ms as f64 / 1000.0),
            steps: build.steps,
            cache,
            labels: build.labels,
            artifacts: build.artifacts.into_iter().map(artifact).collect(),
            failure: build.failure,
            pinned: build.pinned,
            expiry: build.expiry,
        }
    }
}
