//! What can be done to one build.

use std::collections::BTreeMap;

use ashlar_service::{RegistryCredential, RetryRequest};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use super::secret::{self, SecretValue};
use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::{Body, IdempotencyKey, Optional, Path};
use crate::retention::ExpiryView;
use crate::view::BuildView;
use crate::{Problem, params};

pub(crate) async fn show(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(build): Path<String>,
) -> Result<Json<BuildView>, Problem> {
    // The beginning of an id is enough where a person types it.
    let build = shared.service.find(&actor, &build).await?;
    let record = shared.service.show(&actor, build).await?;
    let expiry = shared.service.expiry(&record).await?;
    let mut view = BuildView::whole(&record);
    view.expiry = Some(ExpiryView::new(&expiry));
    Ok(Json(view))
}

/// Why a build is cancelled.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cancel {
    reason: Option<String>,
}

pub(crate) async fn cancel(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(build): Path<String>,
    Optional(asked): Optional<Cancel>,
) -> Result<(StatusCode, Json<BuildView>), Problem> {
    let build = params::build(&build)?;
    let record = shared.service.cancel(&actor, build, asked.reason.as_deref()).await?;
    Ok((StatusCode::ACCEPTED, Json(BuildView::row(&record))))
}

/// How a build is repeated.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    #[serde(default)]
    newest: bool,
    #[serde(default)]
    no_cache: bool,
    tags: Option<Vec<String>>,
    #[serde(default)]
    secrets: BTreeMap<String, SecretValue>,
    #[serde(default)]
    credentials: BTreeMap<String, RegistryCredential>,
    idempotency_key: Option<String>,
}

pub(crate) async fn retry(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(build): Path<String>,
    key: IdempotencyKey,
    Optional(asked): Optional<Retry>,
) -> Result<(StatusCode, Json<BuildView>), Problem> {
    let build = params::build(&build)?;
    let request = RetryRequest {
        newest: asked.newest,
        no_cache: asked.no_cache,
        tags: asked.tags,
        secrets: secret::values(asked.secrets)?,
        credentials: asked.credentials.into_iter().collect(),
        idempotency_key: key.or(asked.idempotency_key),
        ..RetryRequest::default()
    };
    let accepted = shared.service.retry(&actor, build, request).await?;
    let status = if accepted.repeated { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(BuildView::whole(&accepted.record))))
}

/// Which tags shall lead to the build.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Promote {
    tags: Vec<String>,
}

pub(crate) async fn promote(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(build): Path<String>,
    asked: Result<Body<Promote>, Problem>,
) -> Result<Json<BuildView>, Problem> {
    let record = shared.service.promote(&actor, params::build(&build)?, &asked?.0.tags).await?;
    Ok(Json(BuildView::row(&record)))
}

/// What shall change about a build's record.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    name: Option<String>,
    pinned: Option<bool>,
    bookmarked: Option<bool>,
    #[serde(default)]
    labels: BTreeMap<String, Option<String>>,
}

pub(crate) async fn change(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(build): Path<String>,
    asked: Result<Body<Change>, Problem>,
) -> Result<Json<BuildView>, Problem> {
    let (build, asked) = (params::build(&build)?, asked?.0);
    let service = &shared.service;
    let mut record = service.row(&actor, build).await?;
    if !asked.labels.is_empty() {
        record = service.set_labels(&actor, build, asked.labels).await?;
    }
    if let Some(name) = asked.name {
        record = service.rename(&actor, build, &name).await?;
    }
    if let Some(pinned) = asked.pinned {
        record = service.pin(&actor, build, pinned).await?;
    }
    if let Some(bookmarked) = asked.bookmarked {
        record = service.bookmark(&actor, build, bookmarked).await?;
    }
    Ok(Json(BuildView::row(&record)))
}

pub(crate) async fn delete(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(build): Path<String>,
) -> Result<StatusCode, Problem> {
    shared.service.delete(&actor, params::build(&build)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
