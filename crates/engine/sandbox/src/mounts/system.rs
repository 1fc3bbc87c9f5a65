//! `/proc`, `/sys`, `/dev` and what belongs to them.
//!
//! `/proc` shows the pid namespace of whoever mounts it, so the last part runs in the new process itself; everything it
//! needs is prepared here, since it must not allocate.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::{Errno, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::api::{INERT, NODEV, RDONLY, attach, bind, bind_path, new_mount};
use super::resolve::Tree;
use super::rootfs::Staging;
use crate::security::paths::{
    DEVICES, PROC_MASKED_DIRS, PROC_MASKED_FILES, PROC_READONLY, SYS_MASKED_DIRS,
};

/// Links in `/dev`, as in every container.
const DEVICE_LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// Mounts `/dev` and returns it and its devpts.
pub(crate) fn dev(tree: &mut Tree<'_>, shm_bytes: u64) -> Result<(OwnedFd, OwnedFd)> {
    let target = tree.system_directory("dev")?;
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let dev = new_mount("tmpfs", &[("mode", "755"), ("size", "65536k")], quiet)?;
    attach(&dev, target)?;
    for name in DEVICES {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&dev, name, flags, Mode::from_raw_mode(0o644))?;
        // The only mounts that let a device be opened.
        attach(bind_path(&Path::new("/dev").join(name), 0)?, file)?;
    }
    for (to, name) in DEVICE_LINKS {
        symlinkat(to, &dev, name)?;
    }
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let no_exec = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts = new_mount("devpts", &options, no_exec)?;
    attach(&pts, directory(&dev, "pts")?)?;
    let size = shm_bytes.to_string();
    let shm = new_mount("tmpfs", &[("mode", "1777"), ("size", &size)], INERT)?;
    attach(shm, directory(&dev, "shm")?)?;
    let mqueue = new_mount("mqueue", &[], INERT)?;
    attach(mqueue, directory(&dev, "mqueue")?)?;
    Ok((dev, pts))
}

fn directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd> {
    mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    openat(parent, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Mounts `/sys` of the current network namespace, read only and with its firmware tables hidden unless insecure, and
/// returns it.
pub(crate) fn sys(tree: &mut Tree<'_>, staging: &Staging, insecure: bool) -> Result<OwnedFd> {
    let target = tree.system_directory("sys")?;
    let readonly =
        if insecure { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    let sys = new_mount("sysfs", &[], INERT | readonly)?;
    attach(&sys, target)?;
    if insecure {
        return Ok(sys);
    }
    for name in SYS_MASKED_DIRS {
        match openat(&sys, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(target) => attach(bind_path(&staging.empty, NODEV | RDONLY)?, target)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sys)
}

/// What the new process needs to mount its own `/proc`.
pub(crate) struct Proc {
    target: OwnedFd,
    /// One detached mount of `/dev/null` for each file to hide.
    nulls: Vec<OwnedFd>,
    /// One detached mount of an empty directory for each directory to hide.
    empties: Vec<OwnedFd>,
    masked: bool,
}

impl Proc {
    /// Prepares the mount; `insecure` sandboxes see all of `/proc`, writable.
    pub(crate) fn prepare(tree: &mut Tree<'_>, staging: &Staging, insecure: bool) -> Result<Self> {
        let target = tree.system_directory("proc")?;
        let (mut nulls, mut empties) = (Vec::new(), Vec::new());
        if !insecure {
            for name in PROC_MASKED_FILES {
                if exists(name) {
                    nulls.push(bind_path(Path::new("/dev/null"), 0)?);
                }
            }
            for name in PROC_MASKED_DIRS {
                if exists(name) {
                    empties.push(bind_path(&staging.empty, NODEV | RDONLY)?);
                }
            }
        }
        Ok(Self { target, nulls, empties, masked: !insecure })
    }

    /// Mounts `/proc`. Runs in the new process: does not allocate.
    pub(crate) fn mount(&self) -> Result<()> {
        let context = fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let proc = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, INERT)?;
        attach(&proc, &self.target)?;
        if !self.masked {
            return Ok(());
        }
        for name in PROC_READONLY {
            if let Some(target) = open_if_there(proc.as_fd(), name)? {
                attach(bind(&target, RDONLY)?, &target)?;
            }
        }
        hide(proc.as_fd(), &PROC_MASKED_FILES, &self.nulls)?;
        hide(proc.as_fd(), &PROC_MASKED_DIRS, &self.empties)
    }
}

/// Puts a prepared mount on each name that exists; running out of them means that one would stay visible.
fn hide(proc: BorrowedFd<'_>, names: &[&std::ffi::CStr], covers: &[OwnedFd]) -> Result<()> {
    let mut covers = covers.iter();
    for name in names {
        if let Some(target) = open_if_there(proc, name)? {
            attach(covers.next().ok_or(Errno::OVERFLOW)?, target)?;
        }
    }
    Ok(())
}

fn open_if_there(proc: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<Option<OwnedFd>> {
    match openat(proc, name, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn exists(name: &std::ffi::CStr) -> bool {
    name.to_str().is_ok_and(|name| Path::new("/proc").join(name).exists())
}
