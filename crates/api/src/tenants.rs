//! Tenants, principals, policies of scopes, the audit log.

use ashlar_core::identity::{Principal, Tenant};
use ashlar_service::Policy;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Problem;
use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::{Body, Path};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

impl Page {
    fn limit(&self) -> u32 {
        self.limit.unwrap_or(100)
    }
}

#[derive(Serialize)]
pub(crate) struct Tenants {
    tenants: Vec<Tenant>,
}

pub(crate) async fn list(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Tenants>, Problem> {
    let page = page?.0;
    let tenants = shared.service.tenants(&actor, &page.after, page.limit()).await?;
    Ok(Json(Tenants { tenants }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct New {
    name: String,
}

pub(crate) async fn add(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    new: Result<Body<New>, Problem>,
) -> Result<(StatusCode, Json<Tenant>), Problem> {
    let tenant = shared.service.add_tenant(&actor, &new?.0.name).await?;
    Ok((StatusCode::CREATED, Json(tenant)))
}

#[derive(Serialize)]
pub(crate) struct Principals {
    principals: Vec<Principal>,
}

pub(crate) async fn principals(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Principals>, Problem> {
    let page = page?.0;
    let principals = shared.service.principals(&actor, &page.after, page.limit()).await?;
    Ok(Json(Principals { principals }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPolicy {
    policy: String,
    active_max: Option<u32>,
}

pub(crate) async fn policy(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(scope): Path<String>,
    new: Result<Body<NewPolicy>, Problem>,
) -> Result<StatusCode, Problem> {
    let new = new?.0;
    let words = "must be allow, queue, forbid, replace_pending or replace_running";
    let policy = Policy::parse(&new.policy).ok_or_else(|| Problem::invalid("policy", words))?;
    shared.service.set_scope_policy(&actor, &scope, policy, new.active_max).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize)]
pub(crate) struct PolicyView {
    policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    active_max: Option<u32>,
}

pub(crate) async fn scope_policy(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(scope): Path<String>,
) -> Result<Json<PolicyView>, Problem> {
    let (policy, active_max) = shared.service.scope_policy(&actor, &scope).await?;
    Ok(Json(PolicyView { policy: policy.as_str(), active_max }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditPage {
    before: Option<i64>,
    limit: Option<u32>,
}

#[derive(Serialize)]
pub(crate) struct Audit {
    entries: Vec<AuditView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<i64>,
}

#[derive(Serialize)]
struct AuditView {
    at: String,
    principal: Option<String>,
    action: String,
    subject: String,
    detail: Value,
}

pub(crate) async fn audit(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    page: Result<Query<AuditPage>, QueryRejection>,
) -> Result<Json<Audit>, Problem> {
    let page = page?.0;
    let limit = page.limit.unwrap_or(100);
    let found = shared.service.audit_log(&actor, page.before, limit).await?;
    let full = found.len() as u64 >= u64::from(limit);
    let next = found.last().map(|(at, _)| *at).filter(|_| full);
    let view = |(_, e): (i64, ashlar_service::AuditEntry)| AuditView {
        at: e.at.rfc3339(),
        principal: e.principal.map(|p| p.to_string()),
        action: e.action,
        subject: e.subject,
        detail: e.detail,
    };
    Ok(Json(Audit { entries: found.into_iter().map(view).collect(), next }))
}
