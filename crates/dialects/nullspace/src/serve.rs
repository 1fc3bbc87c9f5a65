//! From a request to its answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use ashlar_service::{Actor, ClientInfo};
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::App;
use crate::errors::{Answer, ApiError, code};
use crate::history::HistoryQuery;
use crate::manage::{read_fields, select};
use crate::refs::TemplateRef;
use crate::routes::{Action, Route, route};
use crate::snapshot::status;
use crate::stream::stream;
use crate::templates::{Found, refuse_system};

/// The largest JSON body, in bytes: contexts may come inline.
const BODY_BYTES_MAX: usize = 256 << 20;
/// Where every answer says which request it belongs to.
const REQUEST_ID: &str = "x-request-id";
/// The longest request id that is taken over, in bytes.
const REQUEST_ID_MAX: usize = 128;

/// Query parameters; the last of a name counts.
type Query = BTreeMap<String, String>;

/// Answers any request. What was begun is brought to its end even if the client goes away.
pub(crate) async fn handle(app: Arc<App>, request: Request) -> Response {
    let id = request_id(request.headers());
    let client = ClientInfo::current();
    let answer = tokio::spawn(client.scope(answer(app, request))).await;
    let answer = answer.unwrap_or_else(|panic| Err(ApiError::internal(panic)));
    let mut response = answer.unwrap_or_else(|error| refusal(&error, &id));
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Returns the id that the server around the dialect has given the request: it has replaced what is
/// none, so that the log, the header and the body all say the same. Without a server around it one
/// is made here.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |id: &&str| {
        (1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
    };
    let given = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok()).filter(plain);
    given.map_or_else(|| format!("req_{}", Uuid::now_v7().simple()), str::to_owned)
}

fn refusal(error: &ApiError, request_id: &str) -> Response {
    let mut response = json_answer(error.status, &error.body(request_id))
        .unwrap_or_else(|_| Response::new(Body::empty()));
    if let Some(seconds) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

async fn answer(app: Arc<App>, request: Request) -> Answer<Response> {
    let (parts, body) = request.into_parts();
    let route = route(&parts.method, parts.uri.path());
    if route == Route::Health {
        return ok(&json!({ "status": "ok" }));
    }
    let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let actor = app.authenticate(authorization).await?;
    let query = read_query(parts.uri.query().unwrap_or_default());
    match route {
        Route::Upload(id) => {
            app.upload(&actor, &id, body).await?;
            Ok(empty())
        }
        Route::Logs(id) => {
            let from = log_offset(&query, &parts.headers)?;
            let follow = flag(&query, "follow")?;
            let owned = app.owned(&actor, &id).await?;
            Ok(stream(app, actor, owned, from, follow))
        }
        Route::BuildStream => {
            let owned = app.accept(&actor, &read_json(body).await?).await?;
            Ok(stream(app, actor, owned, 0, true))
        }
        Route::Status(id) => {
            let offset = number(&query, "offset")?.unwrap_or(0);
            status(app, actor, &id, offset).await
        }
        Route::Template(readings) => {
            let reading = app.reading(&actor, readings).await?;
            template(&app, &actor, reading, &query, body).await
        }
        route => plain(&app, &actor, route, &query, body).await,
    }
}

async fn plain(
    app: &Arc<App>,
    actor: &Actor,
    route: Route,
    query: &Query,
    body: Body,
) -> Answer<Response> {
    match route {
        Route::Machines => ok(&json!([])),
        Route::List => {
            let fields = read_fields(query)?;
            let infos = app.list(actor).await?;
            let shown = infos.iter().map(|info| select(info, fields.as_deref()));
            ok(&shown.collect::<Answer<Vec<Value>>>()?)
        }
        Route::Create => {
            let info = app.create(actor, &read_json(body).await?).await?;
            json_answer(StatusCode::CREATED, &info)
        }
        Route::BuildBackground => {
            let owned = app.accept(actor, &read_json(body).await?).await?;
            json_answer(StatusCode::ACCEPTED, &app.view(actor, &owned).await?)
        }
        Route::Cancel(id) => ok(&app.cancel(actor, &id, &read_json(body).await?).await?),
        Route::Retry(id) => {
            actor.needs(ashlar_service::Role::Developer)?;
            let owned = app.retry(actor, &id, &read_json(body).await?).await?;
            json_answer(StatusCode::ACCEPTED, &app.view(actor, &owned).await?)
        }
        Route::Promote(id) => ok(&app.promote(actor, &id, &read_json(body).await?).await?),
        Route::Validate => match read_json(body).await {
            Ok(body) => ok(&app.validate(actor, &body).await?),
            Err(error) => ok(&crate::wire::ValidationResponse {
                valid: false,
                errors: error.problems(),
                warnings: Vec::new(),
            }),
        },
        Route::Plan => ok(&app.plan(actor, &read_json(body).await?).await?),
        Route::Preflight => ok(&app.preflight(actor, &read_json(body).await?).await?),
        Route::Claim => {
            let claim = app.claim(actor, &read_json(body).await?).await?;
            json_answer(StatusCode::CREATED, &claim)
        }
        Route::Release(token) => app.release(actor, &token).await.map(|()| empty()),
        Route::Namespace(slug) => ok(&App::namespace(actor, &slug)?),
        Route::NotOffered => {
            let message = "warm pools are not offered by this server";
            Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, code::NOT_IMPLEMENTED, message))
        }
        _ => Err(ApiError::not_found("there is no such route")),
    }
}

/// A path as it is meant.
struct Reading {
    reference: TemplateRef,
    action: Action,
    /// What the reference leads to, as it is stored.
    found: Option<Found>,
}

impl App {
    /// Returns the reading of a path whose template exists; the last one when none does.
    async fn reading(&self, actor: &Actor, readings: Vec<(String, Action)>) -> Answer<Reading> {
        let mut last = Err(ApiError::not_found("there is no such route"));
        for (text, action) in readings {
            match TemplateRef::parse(&text) {
                Ok(reference) => {
                    let found = self.look_up(actor, &reference).await?;
                    let known = found.is_some();
                    last = Ok(Reading { reference, action, found });
                    if known {
                        break;
                    }
                }
                Err(error) if last.is_err() => last = Err(ApiError::invalid(error.to_string())),
                Err(_) => {}
            }
        }
        last
    }
}

async fn template(
    app: &Arc<App>,
    actor: &Actor,
    reading: Reading,
    query: &Query,
    body: Body,
) -> Answer<Response> {
    let Reading { reference, action, found } = reading;
    match action {
        Action::Get => {
            let fields = read_fields(query)?;
            let found = app.current(&reference, found).await?;
            ok(&select(&app.info(&found).await?, fields.as_deref())?)
        }
        Action::Builds => {
            let query = HistoryQuery::read(query)?;
            let found = app.current(&reference, found).await?;
            ok(&app.history(actor, &found, &query).await?)
        }
        Action::Tags => {
            refuse_system(&reference)?;
            ok(&App::tags(&app.current(&reference, found).await?))
        }
        Action::Aliases => ok(&App::aliases(&app.current(&reference, found).await?)),
        action => {
            let found = app.current_own(actor, &reference, found).await?;
            change(app, actor, found, (&reference, action), body).await
        }
    }
}

async fn change(
    app: &Arc<App>,
    actor: &Actor,
    found: Found,
    (reference, action): (&TemplateRef, Action),
    body: Body,
) -> Answer<Response> {
    match action {
        Action::Delete => app.delete(actor, found).await.map(|()| empty()),
        Action::AssignTags => {
            let body = read_json(body).await?;
            ok(&app.assign_tags(actor, found, reference, &body).await?)
        }
        Action::RemoveTag(tag) => app.remove_tag(&found, &tag).await.map(|()| empty()),
        Action::RemoveAlias(alias) => app.remove_alias(&found, &alias).await.map(|()| empty()),
        Action::Rename => ok(&app.rename(actor, &found, &read_json(body).await?).await?),
        Action::SetVisibility => ok(&app.set_visibility(&found, &read_json(body).await?).await?),
        Action::Get | Action::Builds | Action::Tags | Action::Aliases => {
            Err(ApiError::not_found("there is no such route"))
        }
    }
}

fn ok(value: &impl Serialize) -> Answer<Response> {
    json_answer(StatusCode::OK, value)
}

fn json_answer(status: StatusCode, value: &impl Serialize) -> Answer<Response> {
    let bytes = serde_json::to_vec(value).map_err(ApiError::internal)?;
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

fn empty() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Reads a JSON body; an empty one is an empty object.
async fn read_json(body: Body) -> Answer<Value> {
    let bytes = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        let max = BODY_BYTES_MAX >> 20;
        ApiError::invalid(format!("the body broke off, or has more than {max} MiB"))
    })?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(json!({}));
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| ApiError::invalid(format!("the body is no JSON: {e}")))
}

fn read_query(text: &str) -> Query {
    let decode = |part: &str| decode_form(part);
    let pairs = text.split('&').filter(|p| !p.is_empty());
    pairs
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

/// Decodes `+` and percent signs; what is broken stays as it is.
fn decode_form(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digit = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (b'+', ..) => {
                out.push(b' ');
                at += 1;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn number(query: &Query, name: &str) -> Answer<Option<u64>> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    let wrong = || ApiError::invalid(format!("{name}: must be an integer of at least 0"));
    number.map(Some).ok_or_else(wrong)
}

fn flag(query: &Query, name: &str) -> Answer<bool> {
    match query.get(name).map(String::as_str) {
        None => Ok(false),
        Some("true" | "True" | "1") => Ok(true),
        Some("false" | "False" | "0") => Ok(false),
        Some(_) => Err(ApiError::invalid(format!("{name}: must be true or false"))),
    }
}

/// Returns the first offset to send: `offset` wins over `cursor`, which wins over where an event
/// source broke off.
fn log_offset(query: &Query, headers: &HeaderMap) -> Answer<u64> {
    if let Some(offset) = number(query, "offset")? {
        return Ok(offset);
    }
    if let Some(offset) = number(query, "cursor")? {
        return Ok(offset);
    }
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok());
    Ok(last.and_then(|text| text.parse::<u64>().ok()).map_or(0, |seen| seen.saturating_add(1)))
}
