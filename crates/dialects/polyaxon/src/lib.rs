//! The Polyaxon dialect: the build part of the v0 platform API as its server (0.2.0 to 0.6.1), its
//! Python client and its CLI speak it.
//!
//! [`router`] is the door. A request goes through [`path`] (which route is it), [`auth`] (who asks),
//! a look-up of project and build, and the handler of its resource; `builds`, `projects` and so on
//! hold those. The parts that know no HTTP are apart: [`query`] (the query language), [`spec`] and
//! [`dockerfile`] (from a specification to a Dockerfile), [`statuses`] (a build's journal in the
//! dialect's words), [`log`] (its lines).
//!
//! Three generations of bodies are served at once: `config` nested, `config` flat, `content`. Where
//! they differ the answer is the superset; clients drop keys that they do not know.

mod auth;
mod body;
mod bookmarks;
mod builds;
mod code;
mod create;
mod dispatch;
mod dockerfile;
mod erase;
mod error;
mod list;
mod listing;
mod log;
mod model;
mod patch;
mod path;
mod probes;
mod projects;
mod query;
mod spec;
mod status_rows;
mod statuses;
mod stream;
mod upload;
mod users;
mod wire;

use std::sync::Arc;

use ashlar_service::Service;
use axum::Router;
use axum::extract::DefaultBodyLimit;

/// The dialect's name in records.
pub const DIALECT: &str = "polyaxon";

/// Returns the dialect's routes. Its clients know no path prefix: serve it at the root of an address
/// of its own, or below a prefix for those who call it by hand. What was deleted and could not be
/// erased by an earlier process is erased from now on.
///
/// # Panics
/// Outside a Tokio runtime.
pub fn router(service: Arc<Service>) -> Router {
    tokio::spawn(erase::resume(Arc::clone(&service)));
    // Handlers bound the bodies that they read.
    Router::new().fallback(dispatch::serve).layer(DefaultBodyLimit::disable()).with_state(service)
}
