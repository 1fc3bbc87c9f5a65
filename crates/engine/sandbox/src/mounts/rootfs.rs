//! Mounts the root of a sandbox on the staging directory of its own mount namespace.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::MountAttrFlags;

use super::api::{NODEV, Overlay, RDONLY, attach, bind_path};
use crate::error::During;
use crate::{Rootfs, SandboxError};

/// Directories of the engine that every sandbox mounts over in its own namespace.
#[derive(Debug, Clone)]
pub(crate) struct Staging {
    /// Becomes `/` of the sandbox.
    pub(crate) root: PathBuf,
    /// Holds a mount for a moment while a part of it is bound elsewhere.
    pub(crate) scratch: PathBuf,
    /// Holds the small files of the sandbox.
    pub(crate) files: PathBuf,
    /// Stays empty and hides other directories.
    pub(crate) empty: PathBuf,
}

impl Staging {
    /// Makes the directories below `state`.
    pub(crate) fn new(state: &Path) -> Result<Self, SandboxError> {
        let make = |name: &str| {
            let path = state.join(name);
            std::fs::create_dir_all(&path).during("making the state directory")?;
            std::path::absolute(path).during("finding the state directory")
        };
        Ok(Self {
            root: make("root")?,
            scratch: make("scratch")?,
            files: make("files")?,
            empty: make("empty")?,
        })
    }
}

/// Mounts the root and returns its root directory.
pub(crate) fn mount(rootfs: &Rootfs, staging: &Staging) -> Result<OwnedFd, SandboxError> {
    let root = match rootfs {
        Rootfs::Overlay { lowers, upper, work, volatile } => {
            if *volatile {
                allow_second_use(work)?;
            }
            // An overlay needs a lower layer; the first step of `FROM scratch` has none.
            let mut layers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
            if layers.is_empty() {
                layers.push(&staging.empty);
            }
            let overlay =
                Overlay { lowers: layers, upper: Some((upper, work)), volatile: *volatile };
            overlay
                .mount(MountAttrFlags::MOUNT_ATTR_NODEV)
                .during("mounting the layers of the root file system")?
        }
        Rootfs::Directory { path, readonly } => {
            let attributes = NODEV | if *readonly { RDONLY } else { 0 };
            bind_path(path, attributes).during("mounting the root directory")?
        }
    };
    let target = openat(CWD, &staging.root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .during("opening the staging directory")?;
    attach(&root, &target).during("attaching the root file system")?;
    Ok(root)
}

/// The kernel refuses an upper directory that was once mounted `volatile`, since it may not have been written out
/// before a crash. The store vouches for that: it throws away the layers of steps that it did not see end.
fn allow_second_use(work: &Path) -> Result<(), SandboxError> {
    match std::fs::remove_dir_all(work.join("work/incompat/volatile")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).during("clearing the mark of a volatile overlay")
        }
        _ => Ok(()),
    }
}
