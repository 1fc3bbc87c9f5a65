//! `GET /api/v1/builds`.

use ashlar_service::{Error, Query, QueryError};
use axum::extract::State;
use axum::extract::rejection::QueryRejection;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use crate::app::Shared;
use crate::auth::Caller;
use crate::{Problem, params};

pub(crate) async fn list(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    query: Result<axum::extract::Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let mut asked = Asked::default();
    for (key, value) in query?.0 {
        asked.take(&key, value)?;
    }
    let page =
        params::page(asked.limit, asked.cursor.as_deref(), asked.page, asked.order.as_deref())?;
    let mut filter = asked.query.filter;
    filter.tenant = Some(actor.tenant.id);
    if asked.all_tenants && actor.role == ashlar_service::Role::Admin {
        filter.tenant = None;
    }
    let listed = shared.service.list(&actor, &filter, &page).await?;
    let page = shared.written.page(&listed).map_err(Error::internal)?;
    Ok(([(CONTENT_TYPE, "application/json")], page).into_response())
}

#[derive(Default)]
struct Asked {
    query: Query,
    limit: Option<u32>,
    cursor: Option<String>,
    page: Option<u64>,
    order: Option<String>,
    all_tenants: bool,
}

impl Asked {
    /// Takes one parameter: `q` in the grammar of queries, or one of its keys by itself.
    fn take(&mut self, key: &str, value: String) -> Result<(), Problem> {
        let number = |e: std::num::ParseIntError| Problem::invalid(key, e);
        let wrong = |e: QueryError| Problem::invalid(key, e.why);
        match key {
            "q" => {
                let asked = Query::parse(&value).map_err(|e| Problem::invalid("q", e))?;
                self.query = merged(std::mem::take(&mut self.query), asked);
            }
            "limit" => self.limit = Some(value.parse().map_err(number)?),
            "page" => self.page = Some(value.parse().map_err(number)?),
            "cursor" => self.cursor = Some(value),
            "order" => self.order = Some(value),
            "tenant" if value == "*" => self.all_tenants = true,
            _ => {
                if !self.query.set(key, &value, &value).map_err(wrong)? {
                    return Err(Problem::invalid(key, "is not a parameter of lists"));
                }
            }
        }
        Ok(())
    }
}

/// Joins what the query says to what parameters have said before.
fn merged(before: Query, asked: Query) -> Query {
    let (b, mut f) = (before.filter, asked.filter);
    f.labels.extend(b.labels);
    f.scope = f.scope.or(b.scope);
    f.dialect = f.dialect.or(b.dialect);
    f.state = f.state.or(b.state);
    f.source = f.source.or(b.source);
    f.backend = f.backend.or(b.backend);
    f.executor = f.executor.or(b.executor);
    f.kind = f.kind.or(b.kind);
    f.parent = f.parent.or(b.parent);
    f.created_from = f.created_from.or(b.created_from);
    f.created_until = f.created_until.or(b.created_until);
    Query { filter: f }
}
