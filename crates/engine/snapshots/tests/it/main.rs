//! The store against a real file system and real overlays.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

mod crash;
mod import;
mod store;
mod support;
mod view;
