//! Runs one step in namespaces, cgroups and a seccomp profile of its own.
//!
//! | guarantee | where it is enforced |
//! |---|---|
//! | a step sees only its own processes, mounts, network, ipc, host name | `native::keeper`, `native::child` |
//! | no path of the hostile root leads out of it | `mounts::resolve` |
//! | no device but the six harmless ones | `nodev` everywhere (`mounts`), v1 device rules (`cgroup::layout`) |
//! | Docker's capabilities and system calls and no more | `security`, `native::child` |
//! | limits hold, and name themselves | `cgroup`, `disk`, `native::supervise` |
//! | nothing of a sandbox outlives it | pid namespace, `native::supervise`, `cgroup::janitor` |
//! | the host and other sandboxes can't be reached | `network` |
//!
//! `tests/escape.rs` tries to break each of them.

mod api;
mod cancel;
mod cgroup;
pub mod disk;
mod error;
mod mounts;
mod native;
mod netns;
mod network;
mod runtime;
mod security;
mod spec;

pub use api::{
    CreatedMountpoint, Exit, Io, LimitHit, News, Sandbox, Session, Stdin, Stream, Terminal,
};
pub use cancel::{Cancel, OnCancel};
pub use error::SandboxError;
pub use mounts::{CA_BUNDLE_PATH, leftovers::remove_leftovers};
pub use native::{NativeConfig, NativeSandbox};
pub use netns::connect_in;
pub use network::NetworkConfig;
pub use runtime::{RuntimeConfig, RuntimeSandbox};
pub use spec::*;
