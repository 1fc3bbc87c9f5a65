//! The native executor: from a definition to a tree of layers, in a sandbox, from cache.
//!
//! [`Engine::build`] lowers the definition ([`prepare`]), asks the final-artifact cache, and lets
//! the solver work through the graph: [`scheduler`] are the threads around it, [`job`] what they
//! do. [`cache`] holds what earlier builds came to, [`mounts`] the named cache directories.
//!
//! Nothing here knows of queues, tenants' rights or wire formats.

pub mod cache;
pub mod export;
pub mod gc;
pub mod local;
pub mod log;
pub mod mounts;

mod build;
mod cancel;
mod checkout;
mod clock;
mod debug;
mod detect;
mod dir;
mod engine;
mod error;
mod final_key;
mod git;
mod http;
mod images;
mod job;
mod keyfile;
mod output;
mod prepare;
mod repair;
mod request;
mod scheduler;
mod user;
mod watch;

pub use cancel::while_waiting;
pub use checkout::Checkout;
pub use debug::{FailedRoot, KeptMount, Shown};
pub use dir::DataDir;
pub use engine::{DISK_FREE_BYTES_DEFAULT, Engine, EngineConfig};
pub use error::failure_of;
pub use request::{BuildLimits, BuildRequest, Built, RegistryLogin};
