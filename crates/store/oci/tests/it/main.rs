//! Tests against a registry that does what a test tells it to, a real one, and skopeo.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archives;
mod auth;
mod ecr;
mod egress;
mod local_images;
mod private;
mod pull;
mod push;
mod real;
mod references;
mod support;
