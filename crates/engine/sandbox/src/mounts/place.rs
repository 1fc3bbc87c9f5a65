//! Makes the mounts that the step asked for.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Result;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};

use super::api::{NODEV, Overlay, RDONLY, attach, bind, new_mount};
use super::files::Files;
use super::resolve::{Kind, Tree, is_directory, open_inside};
use super::rootfs::Staging;
use crate::{Mount, MountKind, SandboxError};

/// Makes one mount in the tree.
pub(crate) fn mount(
    tree: &mut Tree<'_>,
    files: &mut Files,
    staging: &Staging,
    mount: &Mount,
) -> std::result::Result<(), SandboxError> {
    let failed = |reason| {
        move |errno: rustix::io::Errno| SandboxError::Mount {
            target: mount.target.clone(),
            reason,
            source: errno.into(),
        }
    };
    let detached = make(&mount.kind, files, staging).map_err(failed("its source can't be used"))?;
    let kind = if is_directory(&detached).map_err(failed("its source can't be read"))? {
        Kind::Directory
    } else {
        Kind::File
    };
    let target = tree
        .mountpoint(&mount.target, kind)
        .map_err(failed("the path can't be made inside the root file system"))?;
    attach(&detached, &target).map_err(failed("the kernel refused"))
}

/// Makes the detached mount.
fn make(kind: &MountKind, files: &mut Files, staging: &Staging) -> Result<OwnedFd> {
    match kind {
        MountKind::Bind { source, subpath, readonly } => {
            let attributes = NODEV | if *readonly { RDONLY } else { 0 };
            let source = openat(CWD, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            if subpath.as_os_str().is_empty() {
                return bind(source, attributes);
            }
            bind(open_inside(source, subpath, OFlags::empty())?, attributes)
        }
        MountKind::Layers { lowers, subpath, scratch } => {
            layers(lowers, subpath, scratch.as_deref(), staging)
        }
        MountKind::Tmpfs { size_bytes, mode } => {
            let mode = format!("{mode:o}");
            let size = size_bytes.map(|bytes| bytes.to_string());
            let mut options = vec![("mode", mode.as_str())];
            options.extend(size.as_deref().map(|size| ("size", size)));
            let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
            new_mount("tmpfs", &options, attributes)
        }
        MountKind::Content { bytes, mode, uid, gid } => {
            files.add(&bytes.0, *mode, (*uid, *gid), true)
        }
        MountKind::Socket { source } => {
            let source = openat(CWD, source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            bind(source, NODEV)
        }
    }
}

/// Mounts layers as one tree, or a part of that tree.
fn layers(
    lowers: &[PathBuf],
    subpath: &Path,
    scratch: Option<&Path>,
    staging: &Staging,
) -> Result<OwnedFd> {
    let mut layers: Vec<&Path> = lowers.iter().map(PathBuf::as_path).collect();
    // Without an upper directory an overlay needs two lower ones.
    if layers.len() < 2 {
        layers.push(&staging.empty);
    }
    let own = scratch.map(|scratch| (scratch.join("upper"), scratch.join("work")));
    if let Some((upper, work)) = &own {
        for path in [upper, work] {
            rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))?;
        }
    }
    let upper = own.as_ref().map(|(upper, work)| (upper.as_path(), work.as_path()));
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    if upper.is_none() {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let whole = Overlay { lowers: layers, upper, volatile: upper.is_some() }.mount(attributes)?;
    if subpath.as_os_str().is_empty() {
        return Ok(whole);
    }
    // A part can be bound only from a mount that is attached somewhere (before Linux 6.15).
    let target = openat(CWD, &staging.scratch, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    attach(&whole, target)?;
    let part = open_inside(whole.as_fd(), subpath, OFlags::empty())
        .and_then(|inside| bind(inside, NODEV | if scratch.is_none() { RDONLY } else { 0 }));
    unmount(&staging.scratch, UnmountFlags::DETACH)?;
    part
}
