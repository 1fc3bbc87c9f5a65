//! The web UI: pages made on the server, no scripts, a strict content security policy.

mod log;
mod pages;
mod session;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::app::Shared;

/// Nothing but the own style sheet, forms to the own server, no frames.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";
const STYLE: &str = include_str!("../../templates/style.css");

/// The pages.
pub(crate) fn router() -> Router<Shared> {
    let policy = HeaderValue::from_static(POLICY);
    let referrer = HeaderValue::from_static("same-origin");
    let no_store = HeaderValue::from_static("no-store");
    Router::new()
        .route("/", get(pages::builds))
        .route("/builds/{build}", get(pages::build))
        .route("/builds/{build}/log", get(log::page))
        .route("/login", get(session::form).post(session::login))
        .route("/logout", post(session::logout))
        .layer(SetResponseHeaderLayer::overriding(header::CONTENT_SECURITY_POLICY, policy))
        .layer(SetResponseHeaderLayer::overriding(header::REFERRER_POLICY, referrer))
        .layer(SetResponseHeaderLayer::overriding(header::CACHE_CONTROL, no_store))
        .route("/assets/style.css", get(style))
}

async fn style() -> impl IntoResponse {
    let kind = (header::CONTENT_TYPE, "text/css; charset=utf-8");
    ([kind, (header::CACHE_CONTROL, "max-age=3600")], STYLE)
}
