//! Shows a step its own cgroups at `/sys/fs/cgroup`, read only: language runtimes size themselves by what they find there.
//!
//! On v2 that is a bind of the step's group. On v1 it is one directory for each hierarchy, as in Docker, and only for steps
//! with a limit that can be seen there. In a hierarchy with nothing to limit they all share one group (`COMMON`): language
//! runtimes take no notice of any limit when one hierarchy is missing, or when its mount is not the group they are in.
//!
//! A bind starts at the group itself, so neither its parent nor a `release_agent` (which only the top of a hierarchy has)
//! is in it; all of it is read only, and a step lacks the capability to mount it again otherwise.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, Result};

use super::api::{NODEV, RDONLY, attach, bind_path};
use crate::SandboxError;
use crate::cgroup::{COMMON, Cgroup, Hierarchy, Layout};
use crate::error::During;

/// Attributes of all of these mounts.
const ATTRIBUTES: u64 = RDONLY | NODEV | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

/// What all steps are shown the same way.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// A directory with an empty one for each hierarchy, made once, so that a step needs no tmpfs.
    skeleton: PathBuf,
    hierarchies: Vec<Hierarchy>,
}

impl Cgroups {
    /// Makes the mount points below `state` and the common groups. Takes hierarchies that have none out of the layout.
    pub(crate) fn new(
        state: &Path,
        layout: &mut Layout,
    ) -> std::result::Result<Self, SandboxError> {
        let during = "making the mount points of the cgroups";
        let skeleton = std::path::absolute(state.join("cgroup")).during(during)?;
        layout.hierarchies.retain(|hierarchy| hierarchy.make_common().is_ok());
        let hierarchies = layout.hierarchies.clone();
        for hierarchy in &hierarchies {
            std::fs::create_dir_all(skeleton.join(&hierarchy.name)).during(during)?;
        }
        Ok(Self { skeleton, hierarchies })
    }

    /// Mounts a step's groups below its `/sys`.
    pub(crate) fn mount(&self, sys: BorrowedFd<'_>, cgroup: &Cgroup) -> Result<()> {
        if !self.hierarchies.is_empty() && !cgroup.shown {
            return Ok(());
        }
        let target = match open(sys, "fs/cgroup") {
            Err(Errno::NOENT) => return Ok(()),
            target => target?,
        };
        if self.hierarchies.is_empty() {
            let Some(group) = cgroup.directories.first() else { return Ok(()) };
            return attach(bind_path(group, ATTRIBUTES)?, target);
        }
        let base = bind_path(&self.skeleton, ATTRIBUTES)?;
        attach(&base, target)?;
        for hierarchy in &self.hierarchies {
            let own = cgroup.own_group(&hierarchy.parent);
            let common = || hierarchy.parent.join(COMMON);
            let group = own.map_or_else(common, Path::to_owned);
            let point = open(base.as_fd(), &hierarchy.name)?;
            attach(bind_path(&group, ATTRIBUTES)?, point)?;
        }
        Ok(())
    }
}

fn open(directory: BorrowedFd<'_>, name: &str) -> Result<std::os::fd::OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}
