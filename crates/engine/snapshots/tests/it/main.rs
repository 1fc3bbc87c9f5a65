//! The store against a real file system and real overlays.

mod store;
mod support;
