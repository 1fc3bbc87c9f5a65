//! Removes the empty mount points that a step left in its upper directory, so that they stay out of the layer.

use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, Timespec, Timestamps, UTIME_OMIT,
    futimens, openat, openat2, statx, unlinkat,
};
use rustix::io::Errno;

use crate::CreatedMountpoint;

/// Removes what is still there and still empty, and sets the parents' times back.
///
/// The tree is hostile: nothing is followed through a symbolic link, and what the step made its own stays.
///
/// # Errors
/// When `upper` can't be read or written.
pub fn remove_leftovers(upper: &Path, created: &[CreatedMountpoint]) -> std::io::Result<()> {
    let root =
        openat(CWD, upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for mountpoint in created.iter().rev() {
        let Some(name) = mountpoint.path.file_name() else { continue };
        let parent = mountpoint.path.parent().unwrap_or(Path::new(""));
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let parent = match openat2(&root, parent, flags, Mode::empty(), resolve) {
            Ok(parent) => parent,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(error.into()),
        };
        if mountpoint.directory {
            match unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOENT | Errno::NOTEMPTY | Errno::NOTDIR) => continue,
                result => result?,
            }
        } else {
            let wanted = StatxFlags::TYPE | StatxFlags::SIZE;
            match statx(&parent, name, AtFlags::SYMLINK_NOFOLLOW, wanted) {
                Ok(stat) if stat.stx_size == 0 && is_file(stat.stx_mode) => {
                    unlinkat(&parent, name, AtFlags::empty())?;
                }
                Ok(_) | Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            }
        }
        let (seconds, nanos) = mountpoint.parent_mtime;
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
            last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
        };
        futimens(&parent, &times)?;
    }
    Ok(())
}

fn is_file(mode: u16) -> bool {
    rustix::fs::FileType::from_raw_mode(mode.into()).is_file()
}
