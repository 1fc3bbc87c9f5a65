//! Logging in: the token in a cookie that scripts and other sites cannot use.

use ashlar_core::BuildId;
use ashlar_http::Origin;
use ashlar_service::{Actor, Error};
use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;

use crate::app::Shared;
use crate::extract::Path;
use crate::params;

const COOKIE: &str = "ashlar_token";
/// How long a browser stays logged in, in seconds.
const COOKIE_SECONDS: u32 = 12 * 3600;

/// The actor of a browser that is logged in; others are led to the form.
pub(super) struct Visitor(pub(super) Actor);

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Response> {
        let origin = Origin::of(parts);
        let login = || Redirect::to(&origin.path("/login")).into_response();
        let token = cookie(&parts.headers).ok_or_else(login)?;
        match shared.service.authenticate(&token).await {
            Ok(actor) => Ok(Self(actor)),
            Err(Error::Unauthorized(_)) => Err(login()),
            Err(error) => Err(failed(&origin, error)),
        }
    }
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = cookies.flat_map(|c| c.split(';')).filter_map(|p| p.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned())
}

#[derive(Template)]
#[template(path = "login.html")]
struct Login {
    prefix: String,
    wrong: bool,
}

impl Login {
    fn wrong(origin: Origin) -> Self {
        Self { prefix: origin.prefix, wrong: true }
    }
}

pub(super) async fn form(origin: Origin) -> Response {
    page(StatusCode::OK, &Login { prefix: origin.prefix, wrong: false })
}

#[derive(Deserialize)]
pub(super) struct Credentials {
    token: String,
}

pub(super) async fn login(
    State(shared): State<Shared>,
    origin: Origin,
    credentials: Result<Form<Credentials>, FormRejection>,
) -> Response {
    let Ok(Form(Credentials { token })) = credentials else {
        return page(StatusCode::BAD_REQUEST, &Login::wrong(origin));
    };
    let token = token.trim();
    // What stands in a cookie must not hold its separators.
    let plain = token.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b';' | b',' | b'"'));
    match shared.service.authenticate(token).await {
        Ok(_) if plain => with_cookie(&origin, "/", token, COOKIE_SECONDS),
        Ok(_) | Err(Error::Unauthorized(_)) => {
            page(StatusCode::UNAUTHORIZED, &Login::wrong(origin))
        }
        Err(error) => failed(&origin, error),
    }
}

pub(super) async fn logout(origin: Origin) -> Response {
    with_cookie(&origin, "/login", "", 0)
}

/// Leads to a page and sets the cookie for so many seconds.
fn with_cookie(origin: &Origin, page: &str, token: &str, seconds: u32) -> Response {
    let mut response = Redirect::to(&origin.path(page)).into_response();
    // Never over a connection in the clear once it was given over an encrypted one.
    let secure = if origin.is_secure() { "; Secure" } else { "" };
    let path = origin.path("/");
    let cookie = format!(
        "{COOKIE}={token}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    );
    if let Ok(value) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

#[derive(Template)]
#[template(path = "error.html")]
struct Broken {
    prefix: String,
    title: String,
    text: String,
}

/// Shows an error as a page.
pub(super) fn failed(origin: &Origin, error: Error) -> Response {
    refused(origin, crate::Problem::from(error))
}

/// Shows a problem as a page.
pub(super) fn refused(origin: &Origin, problem: crate::Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
    let (prefix, title) = (origin.prefix.clone(), problem.title.to_owned());
    let retry_after = problem.retry_after();
    let mut response = page(status, &Broken { prefix, title, text: problem.detail });
    if let Some(after) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, after);
    }
    response
}

/// The build that a page is about. After [`Visitor`]: who is not logged in hears nothing of it.
pub(super) struct BuildPath(pub(super) BuildId);

impl FromRequestParts<Shared> for BuildPath {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Response> {
        let path = Path::<String>::from_request_parts(parts, shared).await;
        let build = path.and_then(|Path(text)| params::build(&text));
        build.map(Self).map_err(|problem| refused(&Origin::of(parts), problem))
    }
}

/// Shows a template.
pub(super) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
