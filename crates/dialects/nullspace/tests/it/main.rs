//! The dialect over a real service: every route in process, and the vendor's own client.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod builds;
mod client;
mod failures;
mod history;
mod hostile;
mod logs;
mod manage;
mod registries;
mod retention;
mod rootfs;
mod support;
