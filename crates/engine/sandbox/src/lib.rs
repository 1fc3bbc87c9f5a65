//! Runs one step in namespaces, cgroups and a seccomp profile of its own.

mod api;
mod cancel;
mod error;
mod spec;

pub use api::{CreatedMountpoint, Exit, Io, LimitHit, Sandbox, Session, Stdin, Stream, Terminal};
pub use cancel::Cancel;
pub use error::SandboxError;
pub use spec::*;
