//! Logging in: the token in a cookie that scripts and other sites cannot use.

use ashlar_service::{Actor, Error};
use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;

use crate::app::Shared;

const COOKIE: &str = "ashlar_token";
/// How long a browser stays logged in, in seconds.
const COOKIE_SECONDS: u32 = 12 * 3600;

/// The actor of a browser that is logged in; others are led to the form.
pub(super) struct Visitor(pub(super) Actor);

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Response> {
        let login = || Redirect::to("/login").into_response();
        let token = cookie(&parts.headers).ok_or_else(login)?;
        match shared.service.authenticate(&token).await {
            Ok(actor) => Ok(Self(actor)),
            Err(Error::Unauthorized(_)) => Err(login()),
            Err(error) => Err(failed(error)),
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
    wrong: bool,
}

pub(super) async fn form() -> Response {
    page(StatusCode::OK, &Login { wrong: false })
}

#[derive(Deserialize)]
pub(super) struct Credentials {
    token: String,
}

pub(super) async fn login(
    State(shared): State<Shared>,
    credentials: Result<Form<Credentials>, FormRejection>,
) -> Response {
    let Ok(Form(Credentials { token })) = credentials else {
        return page(StatusCode::BAD_REQUEST, &Login { wrong: true });
    };
    let token = token.trim();
    // What stands in a cookie must not hold its separators.
    let plain = token.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b';' | b',' | b'"'));
    match shared.service.authenticate(token).await {
        Ok(_) if plain => {
            let cookie = format!(
                "{COOKIE}={token}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Strict"
            );
            with_cookie(Redirect::to("/"), &cookie)
        }
        Ok(_) | Err(Error::Unauthorized(_)) => {
            page(StatusCode::UNAUTHORIZED, &Login { wrong: true })
        }
        Err(error) => failed(error),
    }
}

pub(super) async fn logout() -> Response {
    let cookie = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    with_cookie(Redirect::to("/login"), &cookie)
}

fn with_cookie(redirect: Redirect, cookie: &str) -> Response {
    let mut response = redirect.into_response();
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

#[derive(Template)]
#[template(path = "error.html")]
struct Broken {
    title: String,
    text: String,
}

/// Shows an error as a page.
pub(super) fn failed(error: Error) -> Response {
    let problem = crate::Problem::from(error);
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
    page(status, &Broken { title: problem.title.to_owned(), text: problem.detail })
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
