//! Tests of the frontend from outside.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;
mod conformance;
mod expansion;
mod graph;
mod hostile;
mod ignore;
mod malformed;
mod questions;
mod steps;
mod warnings;
