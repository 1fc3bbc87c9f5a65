//! How long builds are kept: what is said for the tenant and its scopes, and what holds.

use ashlar_service::{Due, Exempt, Expiry, Retention};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::Problem;
use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::{Body, Path};

/// Scopes that one answer lists when the client does not say.
const LIMIT_DEFAULT: u32 = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    after: Option<String>,
    limit: Option<u32>,
}

/// What a tenant says.
#[derive(Serialize)]
pub(crate) struct Listing {
    retentions: Vec<Said>,
}

/// What is said for a scope; without one for the whole tenant.
#[derive(Serialize)]
struct Said {
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    retention: Retention,
}

pub(crate) async fn list(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Listing>, Problem> {
    let page = page?.0;
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT);
    let said = shared.service.retentions(&actor, page.after.as_deref(), limit).await?;
    let view = |(scope, retention)| Said { scope, retention };
    Ok(Json(Listing { retentions: said.into_iter().map(view).collect() }))
}

pub(crate) async fn set(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    said: Result<Body<Retention>, Problem>,
) -> Result<StatusCode, Problem> {
    shared.service.set_retention(&actor, None, said?.0).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    dialect: Option<String>,
}

pub(crate) async fn of_scope(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(scope): Path<String>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Retention>, Problem> {
    let dialect = which?.0.dialect.unwrap_or_else(|| "native".into());
    Ok(Json(shared.service.retention(&actor, &scope, &dialect).await?))
}

pub(crate) async fn set_scope(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(scope): Path<String>,
    said: Result<Body<Retention>, Problem>,
) -> Result<StatusCode, Problem> {
    shared.service.set_retention(&actor, Some(&scope), said?.0).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// When the things of a build go, as far as is known now.
#[derive(Debug, Serialize)]
pub(crate) struct ExpiryView {
    #[serde(skip_serializing_if = "Option::is_none")]
    exempt: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<DueView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<DueView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifacts: Option<DueView>,
}

#[derive(Debug, Serialize)]
struct DueView {
    at: String,
    why: &'static str,
}

impl ExpiryView {
    pub(crate) fn new(expiry: &Expiry) -> Self {
        let view = |due: Due| DueView { at: due.at.rfc3339(), why: due.why.as_str() };
        let word = |exempt| match exempt {
            Exempt::Pinned => "pinned",
            Exempt::Promoted => "promoted",
            Exempt::Needed => "needed",
            Exempt::LastGood => "last_good",
        };
        Self {
            exempt: expiry.exempt.map(word),
            record: expiry.record.map(view),
            log: expiry.log.map(view),
            artifacts: expiry.artifacts.map(view),
        }
    }
}
