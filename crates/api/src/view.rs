//! Builds as the native API shows them.

use std::collections::BTreeMap;

use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::failure::Failure;
use ashlar_core::journal::{CacheCounters, OnLost, Record};
use serde::Serialize;
use serde_json::Value;

use crate::retention::ExpiryView;

/// A build.
#[derive(Debug, Serialize)]
pub(crate) struct BuildView {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) scope: String,
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) dialect: String,
    pub(crate) kind: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requested_backend: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) executor: Option<String>,
    pub(crate) principal: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) priority: i32,
    /// What happens when its worker is lost.
    pub(crate) on_lost: OnLost,
    pub(crate) attempt: u32,
    pub(crate) created_at: String,
    pub(crate) queued_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) finished_at: Option<String>,
    pub(crate) updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration_ms: Option<u64>,
    pub(crate) steps: Steps,
    pub(crate) cache: BTreeMap<&'static str, BTreeMap<&'static str, u32>>,
    pub(crate) artifacts: Vec<Artifact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cancellation: Option<Cancellation>,
    pub(crate) pinned: bool,
    /// Ids of the principals who marked it.
    pub(crate) bookmarked_by: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expiry: Option<ExpiryView>,
    pub(crate) definition_digest: String,
    /// Number of the journal's next entry.
    pub(crate) next: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) definition: Option<Value>,
}

/// Step counts of the current attempt.
#[derive(Debug, Serialize)]
pub(crate) struct Steps {
    pub(crate) total: u32,
    pub(crate) ended: u32,
    pub(crate) cached: u32,
}

/// Something that a build made.
#[derive(Debug, Serialize)]
pub(crate) struct Artifact {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// Names under which it is elsewhere: where an image was pushed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) references: Vec<String>,
}

/// A wish to stop.
#[derive(Debug, Serialize)]
pub(crate) struct Cancellation {
    pub(crate) at: String,
    pub(crate) by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl BuildView {
    /// Shows a row.
    pub(crate) fn row(record: &Record) -> Self {
        let s = &record.submission;
        Self {
            id: s.build.to_string(),
            tenant: s.tenant.to_string(),
            scope: s.scope.clone(),
            name: record.name.clone(),
            state: record.state.as_str(),
            dialect: s.dialect.clone(),
            kind: match s.kind {
                ashlar_service::BuildKind::Build => "build",
                ashlar_service::BuildKind::Workflow => "workflow",
            },
            mode: match s.mode {
                ashlar_service::Mode::Managed => "managed",
                ashlar_service::Mode::External => "external",
            },
            source: s.source.clone(),
            parent: s.parent.map(|b| b.to_string()),
            retry_of: s.retry_of.map(|b| b.to_string()),
            requested_backend: s.backend.clone(),
            executor: record.executor.clone(),
            principal: s.principal.to_string(),
            labels: record.labels.clone(),
            priority: s.priority,
            on_lost: s.on_lost,
            attempt: record.attempt,
            created_at: record.created_at.rfc3339(),
            queued_at: record.queued_at.rfc3339(),
            started_at: record.started_at.map(|t| t.rfc3339()),
            finished_at: record.finished_at.map(|t| t.rfc3339()),
            updated_at: record.updated_at.rfc3339(),
            duration_ms: record
                .duration()
                .map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
            steps: Steps {
                total: record.steps.total,
                ended: record.steps.ended,
                cached: record.steps.cached,
            },
            cache: cache(&record.cache),
            artifacts: artifacts(record),
            failure: record.failure.clone(),
            cancellation: record.cancellation.as_ref().map(|c| Cancellation {
                at: c.at.rfc3339(),
                by: c.by.clone(),
                reason: c.reason.clone(),
            }),
            pinned: record.pinned,
            bookmarked_by: record.bookmarks.iter().map(ToString::to_string).collect(),
            expiry: None,
            definition_digest: s.definition_digest.to_string(),
            next: record.next_number,
            definition: None,
        }
    }

    /// Shows a record with its definition.
    pub(crate) fn whole(record: &Record) -> Self {
        Self { definition: Some(record.submission.definition.clone()), ..Self::row(record) }
    }
}

/// Shows what a build made.
pub(crate) fn artifacts(record: &Record) -> Vec<Artifact> {
    let view = |a: &ashlar_core::journal::ArtifactRecord| Artifact {
        name: a.name.clone(),
        kind: a.kind.clone(),
        digest: a.digest.to_string(),
        bytes: a.bytes,
        references: a.references.clone(),
    };
    record.artifacts.iter().map(view).collect()
}

fn cache(counters: &CacheCounters) -> BTreeMap<&'static str, BTreeMap<&'static str, u32>> {
    const KINDS: [(&str, CacheKind); 3] = [
        ("layer", CacheKind::Layer),
        ("file_blob", CacheKind::FileBlob),
        ("final_artifact", CacheKind::FinalArtifact),
    ];
    const STATUSES: [(&str, CacheStatus); 4] = [
        ("hits", CacheStatus::Hit),
        ("misses", CacheStatus::Miss),
        ("bypasses", CacheStatus::Bypass),
        ("stores", CacheStatus::Store),
    ];
    let of = |kind| STATUSES.iter().map(|(word, s)| (*word, counters.get(kind, *s))).collect();
    KINDS.iter().map(|(word, kind)| (*word, of(*kind))).collect()
}
