//! Builds as clients see them: the record and what the dialect knows beyond it.

use ashlar_core::Timestamp;
use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::state::State;
use ashlar_service::Record;

use crate::documents::{Attempt, FileCounts};
use crate::failure::Failed;
use crate::ids;
use crate::templates::Found;
use crate::wire::{
    Availability, BuildSummary, CacheSummary, FailureDetail, Promotability, TemplateBuild,
};

/// Returns the word for where a build is. Clients see it go forward only: one that waits again,
/// because its worker was lost, is still being built.
pub(crate) const fn status_of(record: &Record) -> &'static str {
    match record.state {
        State::Queued if record.attempt == 0 => "waiting",
        State::Queued | State::Preparing | State::Running | State::Exporting => "building",
        State::Succeeded => "ready",
        State::Failed => "error",
        State::Cancelled | State::Skipped => "cancelled",
    }
}

/// What the store says of a build's artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Whether it is there.
    pub(crate) available: bool,
    /// When it may go.
    pub(crate) expires_at: Option<Timestamp>,
}

/// Returns the counters of a build that ran in one attempt: what its record counts, and its files.
pub(crate) fn cache_of(record: &Record, files: FileCounts) -> CacheSummary {
    let get = |cache, status| record.cache.get(cache, status);
    let (last, layer) = (CacheKind::FinalArtifact, CacheKind::Layer);
    CacheSummary {
        final_artifact_hits: get(last, CacheStatus::Hit),
        final_artifact_misses: get(last, CacheStatus::Miss),
        final_artifact_bypasses: get(last, CacheStatus::Bypass),
        final_artifact_stores: get(last, CacheStatus::Store),
        layer_hits: get(layer, CacheStatus::Hit),
        layer_misses: get(layer, CacheStatus::Miss),
        layer_bypasses: get(layer, CacheStatus::Bypass),
        layer_stores: get(layer, CacheStatus::Store),
        file_blob_hits: files.known,
        file_blob_misses: files.new,
        file_blob_bypasses: files.forced,
        file_blob_stores: files.new + files.forced,
    }
}

/// Returns a row of the history.
pub(crate) fn summary(
    found: &Found,
    record: &Record,
    attempt: &Attempt,
    cache: CacheSummary,
    kept: Kept,
) -> BuildSummary {
    let s = &record.submission;
    let begun = match record.state {
        State::Queued if record.attempt > 0 => Some(record.queued_at),
        _ => record.started_at,
    };
    let cancel = record.cancellation.as_ref();
    BuildSummary {
        build_id: ids::build(s.build),
        template_id: ids::template(found.id),
        name: found.template.name.clone(),
        tags: attempt.tags.clone(),
        status: status_of(record),
        build_backend: s.backend.clone().unwrap_or_else(|| "native".into()),
        source_type: s.source.clone(),
        created_at: record.created_at,
        updated_at: record.updated_at,
        queued_at: record.created_at,
        started_at: begun,
        finished_at: record.finished_at,
        duration_ms: record
            .finished_at
            .zip(begun)
            .map(|(end, at)| end.since(at).as_millis() as u64),
        source_digest: Some(attempt.source_digest.clone()),
        context_digest: attempt.context_digest.clone(),
        dockerfile_digest: attempt.dockerfile_digest.clone(),
        triggered_by: attempt.triggered_by.clone(),
        build_config: attempt.build_config.clone(),
        failure_phase: Failed::of(record, attempt).map(|f| f.phase().to_owned()),
        cache_summary: cache,
        artifact_availability: availability(record, kept.available),
        promotability: promotability(record, kept.available),
        retention_expires_at: kept.expires_at,
        artifact_ids: match record.state {
            State::Succeeded => vec![ids::artifact(s.build)],
            _ => Vec::new(),
        },
        runtime_defaults: attempt.runtime_defaults.clone(),
        oci_metadata: attempt.oci_metadata.clone(),
        retry_of_build_id: s.retry_of.map(ids::build),
        original_build_id: attempt.original.map(ids::build),
        cancel_requested_at: cancel.map(|c| c.at),
        cancel_requested_by: cancel.map(|c| c.by.clone()),
        cancellation_reason: cancel.and_then(|c| c.reason.clone()),
    }
}

/// Returns a build with all that its owner sees.
pub(crate) fn build(
    found: &Found,
    record: &Record,
    attempt: &Attempt,
    (cache, kept, detail): (CacheSummary, Kept, Option<FailureDetail>),
) -> TemplateBuild {
    TemplateBuild {
        summary: summary(found, record, attempt, cache, kept),
        canonical_ref: found.canonical_ref(),
        namespace_slug: found.namespace.clone(),
        visibility: found.visibility(),
        error: detail.as_ref().map(|d| d.message.clone()),
        error_detail: detail,
    }
}

fn availability(record: &Record, available: bool) -> Availability {
    let (status, reason) = match record.state {
        State::Succeeded if available => ("available", None),
        State::Succeeded => ("unavailable", Some("the artifact is no longer kept")),
        State::Failed => ("failed", Some("build failed")),
        State::Cancelled | State::Skipped => ("unavailable", Some("build cancelled")),
        State::Exporting => ("publishing", None),
        State::Queued | State::Preparing | State::Running => {
            ("unavailable", Some("build not finished"))
        }
    };
    Availability { status, reason }
}

fn promotability(record: &Record, available: bool) -> Promotability {
    let (status, reason) = match record.state {
        State::Succeeded if available => ("promotable", None),
        State::Succeeded => ("purged", Some("the artifact is no longer kept")),
        State::Failed => ("unavailable", Some("build failed")),
        State::Cancelled | State::Skipped => ("unavailable", Some("build cancelled")),
        State::Queued | State::Preparing | State::Running | State::Exporting => {
            ("not_ready", Some("build not finished"))
        }
    };
    Promotability { status, promotable: status == "promotable", reason }
}
