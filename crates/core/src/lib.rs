//! Ashlar's own words: builds, their journal and state machine, graphs, digests and ids.
//!
//! Nothing here does I/O, reads a clock or is async: every other crate may depend on this one, and
//! this one depends on none of them. Start with [`graph`] (what is to be done) and [`journal`]
//! (what happened).

pub mod digest;

pub use digest::{Digest, Hasher};
