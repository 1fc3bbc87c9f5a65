//! Ashlar's own words: builds, their journal and state machine, graphs, digests and ids.
//!
//! Nothing here does I/O, reads a clock or is async: every other crate may depend on this one, and
//! this one depends on none of them. Start with [`graph`] (what is to be done) and [`journal`]
//! (what happened).

pub mod cache;
pub mod digest;
pub mod failure;
pub mod frontend;
pub mod graph;
pub mod id;
pub mod identity;
pub mod image;
pub mod journal;
pub mod platform;
pub mod state;
pub mod terminal;
pub mod time;

pub use digest::{Digest, Hasher};
pub use id::{BuildId, PrincipalId, TenantId, WorkerId};
pub use platform::Platform;
pub use time::Timestamp;
