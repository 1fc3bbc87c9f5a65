//! Limits how much a step writes.
//!
//! Two ways, and both hold at once:
//!
//! - [`quota`]: where the file system of the step's upper directory enforces project quotas (ext4 or xfs mounted with
//!   `prjquota`), the kernel itself refuses the first write beyond the limit. A fresh upper directory costs nothing there.
//! - [`watch`]: everything else (other file systems, writable caches, the floor under the free space) is measured again
//!   and again, with a stated overshoot.

mod kernel;
mod quota;
mod refusals;
mod watch;

pub(crate) use quota::Quota;
pub(crate) use watch::Watch;
pub use watch::{POLL_MIN, WALK_SHARE};
