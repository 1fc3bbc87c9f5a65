//! What is printed of a build: field names that stay.

use std::collections::BTreeMap;

use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::failure::Failure;
use ashlar_core::journal::{ArtifactRecord, Record, StepCounts};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Timestamp};
use serde::Serialize;

/// A build for programs.
#[derive(Debug, Serialize)]
pub(super) struct BuildView<'a> {
    id: BuildId,
    name: &'a str,
    state: State,
    source: &'a str,
    backend: Option<&'a str>,
    executor: Option<&'a str>,
    retry_of: Option<BuildId>,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    seconds: Option<f64>,
    steps: StepCounts,
    cache: BTreeMap<&'static str, CacheView>,
    labels: &'a BTreeMap<String, String>,
    artifacts: &'a [ArtifactRecord],
    failure: Option<&'a Failure>,
    pinned: bool,
}

#[derive(Debug, Serialize)]
struct CacheView {
    hits: u32,
    misses: u32,
    bypasses: u32,
    stores: u32,
}

impl<'a> BuildView<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        let kinds = [
            ("layer", CacheKind::Layer),
            ("file_blob", CacheKind::FileBlob),
            ("final_artifact", CacheKind::FinalArtifact),
        ];
        let counts = |kind| CacheView {
            hits: record.cache.get(kind, CacheStatus::Hit),
            misses: record.cache.get(kind, CacheStatus::Miss),
            bypasses: record.cache.get(kind, CacheStatus::Bypass),
            stores: record.cache.get(kind, CacheStatus::Store),
        };
        Self {
            id: record.submission.build,
            name: &record.name,
            state: record.state,
            source: &record.submission.source,
            backend: record.submission.backend.as_deref(),
            executor: record.executor.as_deref(),
            retry_of: record.submission.retry_of,
            created_at: record.created_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            seconds: record.duration().map(|d| d.as_secs_f64()),
            steps: record.steps,
            cache: kinds.map(|(name, kind)| (name, counts(kind))).into(),
            labels: &record.labels,
            artifacts: &record.artifacts,
            failure: record.failure.as_ref(),
            pinned: record.pinned,
        }
    }
}
