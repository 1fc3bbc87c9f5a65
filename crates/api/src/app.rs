//! All routes together.

use std::sync::Arc;

use ashlar_service::Service;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Request};
use axum::routing::{any, delete, get, post, put};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;

use crate::rate::Rates;
use crate::{
    artifacts, blobs, builds, contexts, health, openapi, problem, registry, tags, tenants, tokens,
    web,
};

/// The largest body of a request that is read into memory, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 20 << 20;
/// Settings of the routes.
#[derive(Default)]
pub struct ApiOptions {
    /// Requests per second and tenant; no bound when absent.
    pub requests_per_second: Option<u32>,
    /// Dialects by the word under which they lie.
    pub dialects: Vec<(&'static str, Router)>,
}

/// What all handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) service: Arc<Service>,
    pub(crate) rates: Arc<Rates>,
}

/// Returns the routes of one listener.
pub fn app(service: Arc<Service>, options: ApiOptions) -> Router {
    let rates = Arc::new(Rates::new(options.requests_per_second));
    let shared = Shared { service, rates };
    let mut router = Router::new()
        .nest("/api/v1", native())
        .route("/api/openapi.json", get(openapi::show))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/v2", get(registry::hello))
        .route("/v2/", get(registry::hello))
        .route("/v2/token", get(registry::token))
        .route("/v2/{*path}", any(registry::read))
        .merge(web::router())
        .with_state(shared);
    for (word, dialect) in options.dialects {
        router = router.nest(&format!("/{word}"), dialect);
    }
    around(router.fallback(problem::no_route))
}

/// Puts around a router what every listener needs: request ids, traces, a net under panics.
pub(crate) fn around(router: Router) -> Router {
    let id = HeaderName::from_static("x-request-id");
    let nosniff = HeaderValue::from_static("nosniff");
    let options = HeaderName::from_static("x-content-type-options");
    let span = |request: &Request<axum::body::Body>| {
        let id = request.headers().get("x-request-id").and_then(|v| v.to_str().ok());
        // The path only: queries may hold what logs must not.
        let (method, path) = (request.method(), request.uri().path());
        tracing::info_span!("request", %method, path, id)
    };
    router
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(SetResponseHeaderLayer::if_not_present(options, nosniff))
        .layer(TraceLayer::new_for_http().make_span_with(span))
        .layer(PropagateRequestIdLayer::new(id.clone()))
        .layer(SetRequestIdLayer::new(id, MakeRequestUuid))
}

fn native() -> Router<Shared> {
    Router::new()
        .route("/builds/{build}", get(builds::show).patch(builds::change).delete(builds::delete))
        .route("/builds/{build}/events", get(builds::events))
        .route("/builds/{build}/logs", get(builds::logs))
        .route("/builds/{build}/cancel", post(builds::cancel))
        .route("/builds/{build}/retry", post(builds::retry))
        .route("/builds/{build}/promote", post(builds::promote))
        .route("/builds/{build}/artifacts", get(artifacts::list))
        .route(
            "/builds/{build}/artifacts/{name}",
            get(artifacts::download).delete(artifacts::remove),
        )
        .route("/builds/{build}/image", get(artifacts::image))
        .route("/blobs/missing", post(blobs::missing))
        .route("/uploads/{digest}", get(blobs::progress))
        .route("/tags", get(tags::list))
        .route("/tags/{*tag}", delete(tags::remove))
        .route("/whoami", get(tokens::whoami))
        .route("/tokens", get(tokens::list).post(tokens::make))
        .route("/tokens/{token}", delete(tokens::revoke))
        .route("/principals", get(tenants::principals))
        .route("/tenants", get(tenants::list).post(tenants::add))
        .route("/scopes/{scope}/policy", put(tenants::policy))
        .route("/audit", get(tenants::audit))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .merge(uploads())
}

/// Routes whose handlers read their bodies piece by piece and bound them themselves.
fn uploads() -> Router<Shared> {
    Router::new()
        .route("/builds", get(builds::list).post(builds::submit))
        .route("/blobs/{digest}", get(blobs::read).put(blobs::upload))
        .route("/contexts", post(contexts::put))
        .layer(DefaultBodyLimit::disable())
}
