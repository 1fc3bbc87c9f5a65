//! Builds a step's tree in a mount namespace of its own and starts the runtime there.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command};

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

use super::Shared;
use crate::error::During;
use crate::mounts::resolve::Tree;
use crate::mounts::{rootfs, step};
use crate::network::Attachment;
use crate::{CreatedMountpoint, SandboxError, Spec};

/// Mounts the tree and starts `command` with it in view. The namespace goes when the runtime has made its own copy.
pub(crate) fn spawn(
    shared: &Shared,
    spec: &Spec,
    network: &Attachment,
    mut command: Command,
) -> Result<(Child, Vec<CreatedMountpoint>), SandboxError> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let created = mount(shared, spec, network)?;
            // Started from this thread, so that it sees this thread's mounts.
            let child = command.spawn().during("starting the OCI runtime")?;
            Ok((child, created))
        });
        thread.join().map_err(|_| SandboxError::Invalid("the mount thread ended; a bug".into()))?
    })
}

fn mount(
    shared: &Shared,
    spec: &Spec,
    network: &Attachment,
) -> Result<Vec<CreatedMountpoint>, SandboxError> {
    // SAFETY: the flags don't include FILES, the one that can break descriptors of other threads.
    #[expect(unsafe_code, reason = "rustix marks every unshare unsafe for the sake of one flag")]
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }
        .during("making a mount namespace")?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", flags).during("making mounts private")?;
    let root = rootfs::mount(&spec.rootfs, &shared.staging)?;
    let mut tree = Tree::new(root.as_fd()).during("reading the root file system")?;
    for name in ["proc", "sys", "dev"] {
        // Made and checked here, so that it is reported and is no link that the runtime would follow.
        tree.system_directory(name).during("making /proc, /sys and /dev")?;
    }
    step::mount_all(&mut tree, None, spec, &shared.staging, network)?;
    Ok(tree.created)
}

/// Keeps a network namespace alive, and names it for the runtime.
pub(crate) fn namespace_path(network: &Attachment) -> Option<String> {
    use std::os::fd::AsRawFd as _;
    match network {
        Attachment::Prepared(fd, _) => {
            Some(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()))
        }
        _ => None,
    }
}

/// Writes a configuration file.
pub(crate) fn write_json(
    path: &std::path::Path,
    value: &serde_json::Value,
) -> Result<(), SandboxError> {
    let file = File::create(path).during("writing the bundle")?;
    serde_json::to_writer(file, value).map_err(std::io::Error::from).during("writing the bundle")
}
