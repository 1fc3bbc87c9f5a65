//! Tests against a registry that does what a test tells it to, a real one, and skopeo.

mod archives;
mod auth;
mod local_images;
mod pull;
mod push;
mod real;
mod references;
mod support;
