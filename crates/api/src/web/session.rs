//! Logging in: a session in a cookie that scripts and other sites cannot use.

use ashlar_core::BuildId;
use ashlar_http::Origin;
use ashlar_service::{Actor, Error, SESSION_MAX};
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

const COOKIE: &str = "ashlar_session";
/// What a browser says of where a request comes from, seen from where it goes to.
const FETCH_SITE: &str = "sec-fetch-site";

/// The actor of a browser that is logged in; others are led to the form.
pub(super) struct Visitor(pub(super) Actor);

impl FromRequestParts<Shared> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Response> {
        let origin = Origin::of(parts);
        let login = || Redirect::to(&origin.path("/login")).into_response();
        let session = cookie(&parts.headers).ok_or_else(login)?;
        match shared.service.session(&session).await {
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
    _: OwnForm,
    credentials: Result<Form<Credentials>, FormRejection>,
) -> Response {
    let Ok(Form(Credentials { token })) = credentials else {
        return page(StatusCode::BAD_REQUEST, &Login::wrong(origin));
    };
    match shared.service.log_in(token.trim()).await {
        Ok(session) => with_cookie(&origin, "/", session.expose(), SESSION_MAX.as_secs()),
        Err(Error::Unauthorized(_)) => page(StatusCode::UNAUTHORIZED, &Login::wrong(origin)),
        Err(error) => failed(&origin, error),
    }
}

pub(super) async fn logout(
    State(shared): State<Shared>,
    origin: Origin,
    _: OwnForm,
    headers: HeaderMap,
) -> Response {
    if let Some(session) = cookie(&headers)
        && let Err(error) = shared.service.log_out(&session).await
    {
        return failed(&origin, error);
    }
    with_cookie(&origin, "/login", "", 0)
}

/// A form that was sent from a page of this server: another site must not log a browser in as
/// somebody else, nor out.
pub(super) struct OwnForm;

impl FromRequestParts<Shared> for OwnForm {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Response> {
        let origin = Origin::of(parts);
        let public = shared.service.public_link("");
        if is_own(&parts.headers, &origin.host, public.as_deref()) {
            return Ok(Self);
        }
        let text = "the form was sent from another site; open this server's own page";
        Err(failed(&origin, Error::Forbidden(text.into())))
    }
}

/// Says whether a request comes from a page of this server, or from no page at all. The scheme is not
/// compared: whoever ends the encryption in front of us need not be trusted with more than that.
fn is_own(headers: &HeaderMap, host: &str, public: Option<&str>) -> bool {
    let said = |name: &str| headers.get(name).map(|v| v.to_str().unwrap_or_default());
    match (said(FETCH_SITE), said(header::ORIGIN.as_str())) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, None) => true,
        (None, Some(origin)) => {
            let authority = |url: &str| {
                let rest = url.split_once("://").map(|(_, rest)| rest.to_ascii_lowercase());
                rest.map(|rest| rest.split('/').next().unwrap_or_default().to_owned())
            };
            let from = authority(origin);
            from.as_deref() == Some(host.to_ascii_lowercase().as_str())
                || (from.is_some() && from == public.and_then(authority))
        }
    }
}

/// Leads to a page and sets the cookie for so many seconds.
fn with_cookie(origin: &Origin, page: &str, session: &str, seconds: u64) -> Response {
    let mut response = Redirect::to(&origin.path(page)).into_response();
    // Never over a connection in the clear once it was given over an encrypted one.
    let secure = if origin.is_secure() { "; Secure" } else { "" };
    let path = origin.path("/");
    let cookie = format!(
        "{COOKIE}={session}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_other_sites_are_refused() {
        let own = |site: Option<&str>, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            let mut put = |name: &'static str, value: Option<&str>| {
                headers.extend(value.map(|v| {
                    (header::HeaderName::from_static(name), HeaderValue::from_str(v).unwrap())
                }));
            };
            put(FETCH_SITE, site);
            put("origin", origin);
            is_own(&headers, "Build.example:7070", Some("https://ci.example/ashlar"))
        };
        assert!(own(None, None), "no browser");
        assert!(own(None, Some("http://build.example:7070")));
        assert!(own(None, Some("https://ci.example")), "the operator's own name for it");
        assert!(own(Some("same-origin"), Some("https://elsewhere.example")), "a proxy's Host");
        for foreign in ["https://evil.example", "null", "", "http://build.example", "x://"] {
            assert!(!own(None, Some(foreign)), "{foreign}");
        }
        for site in ["cross-site", "same-site", ""] {
            assert!(!own(Some(site), Some("http://build.example:7070")), "{site}");
        }
    }
}
