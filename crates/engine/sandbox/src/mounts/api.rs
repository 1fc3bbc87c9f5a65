//! The mount calls that the rest of the module is written in.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// Longest value that `fsconfig` takes.
const VALUE_MAX: usize = 255;

/// Attributes of file systems that hold no devices and no programs.
pub(crate) const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A mount attribute for `mount_setattr`.
pub(crate) const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
/// A mount attribute for `mount_setattr`.
pub(crate) const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;

/// Makes a detached mount of a new file system instance.
pub(crate) fn new_mount(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// What an overlay mount is made of.
pub(crate) struct Overlay<'a> {
    /// Read-only layers, topmost first.
    pub(crate) lowers: Vec<&'a Path>,
    /// Upper and work directory of a writable mount.
    pub(crate) upper: Option<(&'a Path, &'a Path)>,
    /// Skips syncs of the upper layer.
    pub(crate) volatile: bool,
}

impl Overlay<'_> {
    /// Makes a detached overlay mount.
    ///
    /// Copied-up files are whole and renamed directories are copies (no metacopy, no redirects), so that the upper
    /// directory alone tells what changed.
    pub(crate) fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        // Descriptors behind /proc/self/fd paths stay open until the mount exists.
        let mut open = Vec::new();
        for lower in &self.lowers {
            set_path(&context, "lowerdir+", lower, &mut open)?;
        }
        if let Some((upper, work)) = self.upper {
            set_path(&context, "upperdir", upper, &mut open)?;
            set_path(&context, "workdir", work, &mut open)?;
            for (key, value) in
                [("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow")]
            {
                fsconfig_set_string(&context, key, value)?;
            }
            if self.volatile {
                fsconfig_set_flag(&context, "volatile")?;
            }
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }
}

fn set_path(context: &OwnedFd, key: &str, path: &Path, open: &mut Vec<OwnedFd>) -> Result<()> {
    if path.as_os_str().len() <= VALUE_MAX && path.is_absolute() {
        return fsconfig_set_string(context, key, path);
    }
    let directory = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    fsconfig_set_string(context, key, format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
    open.push(directory);
    Ok(())
}

/// Makes a detached bind mount of what a descriptor refers to, without what is mounted below it. Does not allocate.
pub(crate) fn bind(source: impl AsFd, attributes: u64) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(source, c"", flags)?;
    if attributes != 0 {
        crate::native::sys::mount_setattr(&mount, attributes, false)?;
    }
    Ok(mount)
}

/// Makes a detached bind mount of a trusted host path.
pub(crate) fn bind_path(source: &Path, attributes: u64) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, source, flags)?;
    if attributes != 0 {
        crate::native::sys::mount_setattr(&mount, attributes, false)?;
    }
    Ok(mount)
}

/// Attaches a detached mount to a mount point, both by descriptor. Does not allocate.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags)
}
