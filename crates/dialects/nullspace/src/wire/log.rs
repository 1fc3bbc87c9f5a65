//! Log entries.

use ashlar_core::Timestamp;
use serde::Serialize;

use super::{FailureDetail, OciMetadata, RuntimeDefaults, TemplateInfo};

/// One entry of a build's log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct LogEntry {
    pub(crate) build_id: String,
    pub(crate) template_id: String,
    pub(crate) offset: u64,
    pub(crate) timestamp: Timestamp,
    pub(crate) kind: LogKind,
    pub(crate) level: Level,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) total_steps: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cache_subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_detail: Option<FailureDetail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<TemplateInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) result_metadata: Option<ResultMetadata>,
}

/// What an entry is. `error` ends a build for the client: it is never used for output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogKind {
    Start,
    Message,
    Cache,
    Retry,
    Warning,
    Error,
    Cancelled,
    End,
}

impl LogKind {
    /// Says whether it is the last entry of its log.
    pub(crate) const fn is_terminal(self) -> bool {
        matches!(self, Self::Error | Self::Cancelled | Self::End)
    }
}

/// How much an entry matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// What the last entry of a good build says of the artifact.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ResultMetadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runtime_defaults: Option<RuntimeDefaults>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oci_metadata: Option<OciMetadata>,
}
