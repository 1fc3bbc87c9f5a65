//! What goes over the wire. A key without a value is left out: the vendor's generated client
//! breaks on `null`.

mod build;
mod log;
mod plan;
mod template;

pub(crate) use build::{
    Availability, BuildList, BuildSummary, CacheSummary, Healthcheck, OciMetadata, Promotability,
    RuntimeDefaults, StatusSnapshot, TemplateBuild,
};
pub(crate) use log::{Level, LogEntry, LogKind, ResultMetadata};
pub(crate) use plan::{
    BuildPlan, ContextSummary, IgnoredInstruction, PlanResponse, PreflightAnswer, PreflightFile,
    ValidationProblem, ValidationResponse,
};
pub(crate) use template::{AliasInfo, NameClaim, NamespaceInfo, TagInfo, TemplateInfo};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ErrorBody {
    pub(crate) error: String,
    pub(crate) code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_detail: Option<Box<FailureDetail>>,
    pub(crate) request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) build_id: Option<String>,
}

/// Why a build or an upload failed. The client takes exactly these keys.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct FailureDetail {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) phase: String,
    pub(crate) retryable: bool,
    pub(crate) suggested_action: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) step_index: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cache_subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) build_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<Value>,
}
