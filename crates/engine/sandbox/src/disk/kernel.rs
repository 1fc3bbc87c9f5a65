//! The kernel's calls about project quotas: quotactl_fd(2), `FS_IOC_FSGETXATTR` and `FS_IOC_FSSETXATTR`.
//!
//! The generic commands serve every file system with project quotas; xfs answers them too.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};

use crate::native::sys::check;

/// The quota type of projects (`PRJQUOTA`).
pub(super) const PROJECT: u32 = 2;
/// Bytes in the kernel's unit of limits.
const LIMIT_UNIT: u64 = 1024;

const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const Q_XGETQSTATV: u32 = ((b'X' as u32) << 8) + 8;
/// Says that the block limits of a [`Dqblk`] are meant.
const QIF_BLIMITS: u32 = 1;
/// Version of [`State`].
const FS_QSTATV_VERSION1: i8 = 1;
/// Project limits are enforced, not only counted.
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;

const FS_IOC_FSGETXATTR: libc::Ioctl = 0x801C_581F_u32 as libc::Ioctl;
const FS_IOC_FSSETXATTR: libc::Ioctl = 0x401C_5820_u32 as libc::Ioctl;
/// New entries of a directory get its project.
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

/// `struct if_dqblk`: what one project may use and uses.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Dqblk {
    block_hard: u64,
    block_soft: u64,
    space: u64,
    inode_hard: u64,
    inode_soft: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// `struct fs_quota_statv`, of which only the flags are read.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct State {
    version: i8,
    pad: u8,
    flags: u16,
    incore: u32,
    files: [u64; 9],
    times: [i32; 3],
    warnings: [u16; 4],
    pad_2: u32,
    pad_3: [u64; 7],
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

// The kernel's sizes.
const _: () = assert!(size_of::<Dqblk>() == 72);
const _: () = assert!(size_of::<State>() == 160);
const _: () = assert!(size_of::<Attributes>() == 28);

/// What a project uses and may use, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
    /// 0 for no limit.
    pub(super) limit: u64,
}

/// Tells whether the file system of an open directory enforces project limits.
pub(super) fn is_enforced(directory: impl AsFd) -> bool {
    let mut state = State { version: FS_QSTATV_VERSION1, ..State::default() };
    quotactl(directory, Q_XGETQSTATV, 0, &mut state).is_ok() && state.flags & FS_QUOTA_PDQ_ENFD != 0
}

/// Reads what a project uses; one that nobody has used yet uses nothing.
pub(super) fn usage(directory: impl AsFd, project: u32) -> Result<Usage> {
    let mut block = Dqblk::default();
    match quotactl(directory, Q_GETQUOTA, project, &mut block) {
        // The answer of xfs.
        Err(Errno::NOENT) => Ok(Usage::default()),
        result => result.map(|()| Usage {
            bytes: block.space,
            inodes: block.inodes,
            limit: block.block_hard.saturating_mul(LIMIT_UNIT),
        }),
    }
}

/// Sets the hard limit of a project in bytes, rounded up to 1024; 0 lifts it.
pub(super) fn set_limit(directory: impl AsFd, project: u32, bytes: u64) -> Result<()> {
    let block_hard = bytes.div_ceil(LIMIT_UNIT);
    let mut block = Dqblk { block_hard, valid: QIF_BLIMITS, ..Dqblk::default() };
    quotactl(directory, Q_SETQUOTA, project, &mut block)
}

/// Gives a directory to a project and lets new entries inherit it, or with `None` takes both back.
pub(super) fn set_project(directory: impl AsFd, project: Option<u32>) -> Result<()> {
    let mut attributes = Attributes::default();
    ioctl(&directory, FS_IOC_FSGETXATTR, &mut attributes)?;
    match project {
        Some(_) => attributes.flags |= FS_XFLAG_PROJINHERIT,
        None => attributes.flags &= !FS_XFLAG_PROJINHERIT,
    }
    attributes.project = project.unwrap_or(0);
    ioctl(&directory, FS_IOC_FSSETXATTR, &mut attributes)
}

fn quotactl<T>(directory: impl AsFd, command: u32, id: u32, value: &mut T) -> Result<()> {
    // SAFETY: only called with the structures above, which have the size of the command's own.
    #[expect(unsafe_code, reason = "not in rustix")]
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            directory.as_fd().as_raw_fd(),
            (command << 8) | PROJECT,
            id,
            std::ptr::from_mut(value),
        )
    };
    check(result).map(drop)
}

fn ioctl(directory: impl AsFd, request: libc::Ioctl, value: &mut Attributes) -> Result<()> {
    // SAFETY: both requests take exactly this structure, which is alive during the call.
    #[expect(unsafe_code, reason = "not in rustix")]
    let result =
        unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), request, std::ptr::from_mut(value)) };
    check(result.into()).map(drop)
}
