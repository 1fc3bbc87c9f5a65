//! The Nullspace API for templates, as `nullspace-sdk` 1.0.3 and its CLI speak it.
//!
//! [`router`] is the door; hang it under `/nullspace`. A request goes through `routes` (which route
//! is meant), `serve` (key, body, answer) and one file a resource. What the wire says lies in
//! `wire`; what the dialect keeps beyond the service's builds, in `documents`. There is no SQL here
//! and nothing of the engine: builds, their journals, lists and blobs are the service's.
//!
//! - A template is a document; its names are aliases that lead to it. A build has a note
//!   (`documents::Attempt`) that comes and goes with its record.
//! - A log is a projection of the build's journal (`project`), so its offsets never change.
//! - Tags move when a build has succeeded; that is found out when somebody looks (`settle`). What
//!   they point at is kept from the moment at which the build succeeded on (`names`).

mod app;
mod blobs;
mod builds;
mod claims;
mod context;
mod credentials;
mod delete;
mod documents;
mod errors;
mod failure;
mod fields;
mod history;
mod ids;
mod kept;
mod logs;
mod manage;
mod names;
mod plan;
mod prepare;
mod project;
mod readiness;
mod refs;
mod request;
mod routes;
mod serve;
mod settle;
mod snapshot;
mod stream;
mod templates;
mod views;
mod wire;

use std::sync::Arc;

use ashlar_service::Service;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};

use crate::app::App;

/// The dialect's name in records, and its root.
pub const DIALECT: &str = "nullspace";

/// Returns the routes of the dialect, without a prefix, and goes on with deletions that were cut off
/// when a server stopped.
///
/// # Panics
/// Outside of a Tokio runtime.
pub fn router(service: Arc<Service>) -> Router {
    let app = Arc::new(App::new(service));
    let resuming = Arc::clone(&app);
    tokio::spawn(async move { resuming.resume_deletions().await });
    // References hold slashes of their own: the paths are read here and not by the router.
    Router::new()
        .fallback(move |request: Request| serve::handle(Arc::clone(&app), request))
        .layer(DefaultBodyLimit::disable())
}
