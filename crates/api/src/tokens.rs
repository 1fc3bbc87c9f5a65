//! Who the caller is, and tokens for others.

use ashlar_service::{Role, Token};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::app::Shared;
use crate::auth::Caller;
use crate::extract::{Body, Path};
use crate::{Problem, params};

#[derive(Serialize)]
pub(crate) struct Whoami {
    tenant: String,
    tenant_id: String,
    principal: String,
    email: String,
    role: Role,
}

pub(crate) async fn whoami(Caller(actor): Caller) -> Json<Whoami> {
    Json(Whoami {
        tenant: actor.tenant.name,
        tenant_id: actor.tenant.id.to_string(),
        principal: actor.principal.name,
        email: actor.principal.email,
        role: actor.role,
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    after: Option<Uuid>,
    limit: Option<u32>,
}

#[derive(Serialize)]
pub(crate) struct Tokens {
    tokens: Vec<TokenView>,
}

#[derive(Serialize)]
pub(crate) struct TokenView {
    id: String,
    principal: String,
    role: Role,
    name: String,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<String>,
    /// The token itself, once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl TokenView {
    fn of(token: &Token, text: Option<String>) -> Self {
        Self {
            id: token.id.to_string(),
            principal: token.principal.to_string(),
            role: token.role,
            name: token.name.clone(),
            created_at: token.created_at.rfc3339(),
            expires_at: token.expires_at.map(|t| t.rfc3339()),
            revoked_at: token.revoked_at.map(|t| t.rfc3339()),
            token: text,
        }
    }
}

pub(crate) async fn list(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Tokens>, Problem> {
    let page = page?.0;
    let (after, limit) = (page.after.unwrap_or(Uuid::nil()), page.limit.unwrap_or(100));
    let tokens = shared.service.tokens(&actor, after, limit).await?;
    Ok(Json(Tokens { tokens: tokens.iter().map(|t| TokenView::of(t, None)).collect() }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct New {
    /// Who acts with it; made when new.
    principal: String,
    role: Role,
    #[serde(default)]
    name: String,
    expires_at: Option<String>,
}

pub(crate) async fn make(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    new: Result<Body<New>, Problem>,
) -> Result<(StatusCode, Json<TokenView>), Problem> {
    let new = new?.0;
    let end = new.expires_at.map(|t| params::time("expires_at", &t)).transpose()?;
    let made = shared.service.make_token(&actor, &new.principal, new.role, &new.name, end).await?;
    let (token, text) = made;
    Ok((StatusCode::CREATED, Json(TokenView::of(&token, Some(text.expose().to_owned())))))
}

pub(crate) async fn revoke(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    Path(token): Path<String>,
) -> Result<StatusCode, Problem> {
    let missing = |_| ashlar_service::Error::not_found("token", &token);
    shared.service.revoke_token(&actor, token.parse().map_err(missing)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
