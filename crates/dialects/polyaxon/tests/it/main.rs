//! The dialect over a real service: every route in process, and both real clients against a server.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod builds;
mod clients;
mod code;
mod erase;
mod lists;
mod projects;
mod retention;
mod running;
mod support;
mod transport;
