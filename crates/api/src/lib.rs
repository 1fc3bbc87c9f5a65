//! The native HTTP API under `/api/v1`, the read-only OCI registry under `/v2`, health and
//! metrics, and the web UI. Start with [`app`].
//!
//! Nothing here decides anything about builds: every handler reads a request, calls one use case
//! of [`ashlar_service::Service`] and writes the answer down. [`routes::ROUTES`] lists all of them
//! once; the OpenAPI document and the test of access rights are made from it.

mod app;
mod around;
mod artifacts;
mod auth;
mod blobs;
mod builds;
mod contexts;
mod extract;
mod files;
mod health;
mod openapi;
mod params;
mod problem;
mod registry;
mod retention;
mod rootfs;
pub mod routes;
mod strict;
mod tags;
mod tenants;
mod tokens;
mod view;
mod web;
mod workflows;

pub use app::{ApiOptions, Apps, app, apps, health_app};
pub use ashlar_http::{Patience, PublicUrl, TrustedProxies, serve, serve_with};
pub use openapi::document;
pub use problem::Problem;
