//! Tags of the caller's tenant.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::Problem;
use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::Path;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

#[derive(Serialize)]
pub(crate) struct Tags {
    tags: Vec<Tag>,
}

#[derive(Serialize)]
struct Tag {
    tag: String,
    build: String,
}

pub(crate) async fn list(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Tags>, Problem> {
    let asked = asked?.0;
    let limit = asked.limit.unwrap_or(100);
    let tags = shared.service.tags(&actor, &asked.prefix, &asked.after, limit).await?;
    let tags = tags.into_iter().map(|(tag, build)| Tag { tag, build: build.to_string() });
    Ok(Json(Tags { tags: tags.collect() }))
}

pub(crate) async fn remove(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(tag): Path<String>,
) -> Result<StatusCode, Problem> {
    shared.service.remove_tag(&actor, &tag).await?;
    Ok(StatusCode::NO_CONTENT)
}
