//! All routes together.

use std::sync::Arc;

use ashlar_http::TrustedProxies;
use ashlar_service::{Error, Service};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, delete, get, post};

use crate::around::Around;
use crate::builds::Written;
use crate::{
    artifacts, blobs, builds, contexts, health, openapi, problem, registry, retention, tags,
    tenants, tokens, web, workflows,
};

/// The largest body of a request that is read into memory, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 20 << 20;
/// Settings of the routes.
#[derive(Default)]
pub struct ApiOptions {
    /// Dialects by the word under which they lie.
    pub dialects: Vec<(&'static str, Router)>,
    /// Whose forwarded headers count.
    pub proxies: TrustedProxies,
}

/// The routes, one router for each listener.
pub struct Apps {
    /// All doors under one listener.
    pub main: Router,
    /// Dialects at the root of listeners of their own.
    pub dialects: Vec<(&'static str, Router)>,
}

/// What all handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) service: Arc<Service>,
    pub(crate) written: Arc<Written>,
}

impl Shared {
    fn new(service: &Arc<Service>) -> Self {
        Self { service: service.clone(), written: Arc::default() }
    }
}

/// Returns the routes.
///
/// # Errors
/// When this was called for the service before: its numbers are counted once.
pub fn apps(service: &Arc<Service>, options: ApiOptions) -> Result<Apps, Error> {
    let doors = options.dialects.iter().map(|(word, _)| *word).collect();
    let around = Around::new(service, options.proxies, doors)?;
    let mut main = routes(Shared::new(service));
    for (word, dialect) in &options.dialects {
        main = main.nest(&format!("/{word}"), dialect.clone());
    }
    let exposed = |(word, dialect): (&'static str, Router)| (word, around.door(word, dialect));
    let dialects = options.dialects.into_iter().map(exposed).collect();
    Ok(Apps { main: around.all(main.fallback(problem::no_route)), dialects })
}

/// Returns the routes of a process that has no doors: `/healthz`, `/readyz` and `/metrics`.
///
/// # Errors
/// As [`apps`].
pub fn health_app(service: &Arc<Service>, proxies: TrustedProxies) -> Result<Router, Error> {
    let around = Around::new(service, proxies, Vec::new())?;
    let shared = Shared::new(service);
    let router = watched().fallback(problem::no_route);
    let router = router.method_not_allowed_fallback(problem::no_method).with_state(shared);
    Ok(around.all(router))
}

/// What whoever watches a process asks for.
fn watched() -> Router<Shared> {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
}

/// Returns the routes of the main listener alone.
///
/// # Errors
/// As [`apps`].
pub fn app(service: &Arc<Service>, options: ApiOptions) -> Result<Router, Error> {
    apps(service, options).map(|apps| apps.main)
}

fn routes(shared: Shared) -> Router {
    Router::new()
        .nest("/api/v1", native())
        .route("/api/openapi.json", get(openapi::show))
        .merge(watched())
        .merge(images())
        .merge(web::router())
        .method_not_allowed_fallback(problem::no_method)
        .with_state(shared)
}

/// The registry, with its own words for what it does not do.
fn images() -> Router<Shared> {
    Router::new()
        .route("/v2", get(registry::hello))
        .route("/v2/", get(registry::hello))
        .route("/v2/token", get(registry::token))
        .route("/v2/{*path}", any(registry::read))
        .method_not_allowed_fallback(registry::no_method)
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
        .route("/builds/{build}/artifacts/rootfs.ext4", get(crate::rootfs::ext4))
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
        .route("/scopes/{scope}/policy", get(tenants::scope_policy).put(tenants::policy))
        .route("/scopes/{scope}/retention", get(retention::of_scope).put(retention::set_scope))
        .route("/retention", get(retention::list).put(retention::set))
        .route("/workflows", post(workflows::submit))
        .route("/builds/{build}/nodes", get(workflows::nodes))
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
