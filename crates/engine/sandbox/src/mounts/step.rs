//! The mounts that belong to one step, in their order: the files of the network, the CA bundle, then the step's wishes.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Result;

use super::api::{NODEV, RDONLY, attach, bind_path};
use super::files::{Files, hosts, resolv_conf};
use super::place;
use super::resolve::{Kind, Tree};
use super::rootfs::Staging;
use crate::error::During;
use crate::network::Attachment;
use crate::{SandboxError, Spec};

/// Makes all of them; the CA bundle only in a `/dev` of ours.
pub(crate) fn mount_all(
    tree: &mut Tree<'_>,
    dev: Option<&OwnedFd>,
    spec: &Spec,
    staging: &Staging,
    network: &Attachment,
) -> std::result::Result<(), SandboxError> {
    let mut files = Files::new(&staging.files).during("making the files of the sandbox")?;
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolv = resolv_conf(&spec.dns, spec.network, &host, network.resolvers());
    for (path, text) in [("etc/resolv.conf", resolv), ("etc/hosts", hosts(spec))] {
        network_file(tree, &mut files, path, &text).map_err(|errno| SandboxError::Mount {
            target: Path::new("/").join(path),
            reason: "the file can't be shown inside the root file system",
            source: errno.into(),
        })?;
    }
    if let (Some(dev), Some(bundle)) = (dev, &spec.ca_bundle) {
        ca_bundle(dev, bundle).during("mounting the CA bundle")?;
    }
    for mount in &spec.mounts {
        place::mount(tree, &mut files, staging, mount)?;
    }
    Ok(())
}

fn network_file(tree: &mut Tree<'_>, files: &mut Files, path: &str, text: &str) -> Result<()> {
    let file = files.add(text.as_bytes(), 0o644, (0, 0), true)?;
    let target = tree.mountpoint(Path::new(path), Kind::File)?;
    attach(file, target)
}

fn ca_bundle(dev: &OwnedFd, bundle: &Path) -> Result<()> {
    mkdirat(dev, "ashlar", Mode::from_raw_mode(0o755))?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let target = openat(dev.as_fd(), "ashlar/ca-bundle.crt", flags, Mode::from_raw_mode(0o644))?;
    attach(bind_path(bundle, NODEV | RDONLY)?, target)
}
