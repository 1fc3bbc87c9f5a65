//! One cgroup for each sandbox: limits on memory, pids and processor time, and what was used.
//!
//! Guarantee: the process is in its cgroup before any code of the step runs. On v2 it is born there
//! (`CLONE_INTO_CGROUP`); on v1 it moves itself there first thing, by descriptors opened beforehand.
//! Layouts: v1 controllers where they are mounted, else v2, controller by controller (hybrid machines have both).

mod group;
mod janitor;
mod layout;

pub(crate) use group::{Cgroup, Usage};
pub(crate) use janitor::{Janitor, is_running};
pub(crate) use layout::{COMMON, Hierarchy, Layout, PARENT, RUNTIME_PARENT};
