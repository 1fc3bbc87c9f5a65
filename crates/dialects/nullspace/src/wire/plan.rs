//! Validations, plans and preflights.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// Whether a request would be accepted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ValidationResponse {
    pub(crate) valid: bool,
    pub(crate) errors: Vec<ValidationProblem>,
    pub(crate) warnings: Vec<String>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ValidationProblem {
    pub(crate) code: String,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<String>,
}

/// What a request would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PlanResponse {
    pub(crate) build_backend: &'static str,
    pub(crate) source_type: &'static str,
    pub(crate) build_plan: BuildPlan,
    pub(crate) warnings: Vec<String>,
    pub(crate) requires_base_image_auth: bool,
    pub(crate) source_digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dockerfile_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context_manifest: Option<ContextSummary>,
}

/// The steps of a plan.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct BuildPlan {
    pub(crate) base_template: String,
    pub(crate) run_steps: Vec<String>,
    pub(crate) build_steps: Vec<Value>,
    pub(crate) build_envs: BTreeMap<String, String>,
    pub(crate) env_assignments: Vec<(String, String)>,
    pub(crate) ignored_instructions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start_cmd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_workdir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) readiness: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ignored_instruction_warnings: Vec<IgnoredInstruction>,
}

/// An instruction that does nothing here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct IgnoredInstruction {
    pub(crate) instruction: String,
    pub(crate) line: u32,
}

/// A context in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ContextSummary {
    pub(crate) context_manifest_id: String,
    pub(crate) context_digest: String,
    pub(crate) file_count: u64,
}

/// What has to be uploaded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PreflightAnswer {
    pub(crate) files: Vec<PreflightFile>,
}

/// One entry of a context, and whether its content has to be uploaded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PreflightFile {
    pub(crate) path: String,
    pub(crate) entry_type: &'static str,
    pub(crate) missing: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) blob_id: Option<String>,
}
