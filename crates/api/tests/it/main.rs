//! The native API over real connections, with real sandboxed builds.
//!
//! Needs root and Debian's packages `busybox-static`, `skopeo` and `postgresql-15` (any version
//! from 14 on).
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod bases;
mod builds;
mod crash;
mod limits;
mod logs;
mod openapi;
mod operations;
#[path = "../../../store/records/tests/suite/postgres.rs"]
mod postgres;
mod proxy;
mod queue;
mod refusals;
mod registry;
mod support;
mod uploads;
mod web;
