//! What a scan finds at one path.

use ashlar_core::Digest;
use rustix::fs::{FileType, Statx};

use crate::root::file_type;

/// One path of a scanned tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the top of its source, clean; empty for the top itself.
    pub path: Vec<u8>,
    /// What is there.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky (`07777`).
    pub mode: u32,
    /// Owner; 0 in contexts, whose owners mean nothing in an image.
    pub uid: u32,
    /// Group; 0 in contexts.
    pub gid: u32,
    /// Which file it was, and its times.
    pub stamp: Stamp,
    /// Number of names that the file has.
    pub links: u32,
    /// Whether the directory is there only since something below it was selected.
    pub implied: bool,
    /// Whether the content's digest was known from an earlier build.
    pub reused: bool,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// SHA-256 of the content; known for contexts, not for trees.
        content: Option<Digest>,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Its text.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket: it is copied as an empty file, as BuildKit does.
    Socket,
    /// A device.
    Device {
        /// Whether it is a block device, not a character device.
        block: bool,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// The identity of a file at one moment: any change of its content changes the stamp, as long as
/// the clock of the file system ticks between two changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time.
    pub modified: Time,
    /// Time of the last change of the inode.
    pub changed: Time,
}

/// A time of a file: whole seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds.
    pub nanoseconds: u32,
}

impl Stamp {
    /// Takes the stamp from what the kernel says.
    pub(crate) fn of(stat: &Statx) -> Self {
        let time =
            |t: rustix::fs::StatxTimestamp| Time { seconds: t.tv_sec, nanoseconds: t.tv_nsec };
        Self {
            device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
            inode: stat.stx_ino,
            size: stat.stx_size,
            modified: time(stat.stx_mtime),
            changed: time(stat.stx_ctime),
        }
    }
}

impl Entry {
    /// Makes an entry of what the kernel says; `target` reads the text of a link.
    pub(crate) fn of<E>(
        path: Vec<u8>,
        stat: &Statx,
        target: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let device =
            |block| Kind::Device { block, major: stat.stx_rdev_major, minor: stat.stx_rdev_minor };
        let kind = match file_type(stat) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink { target: target()? },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => device(false),
            FileType::BlockDevice => device(true),
            FileType::RegularFile | FileType::Unknown => Kind::File { content: None },
        };
        Ok(Self {
            path,
            kind,
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            stamp: Stamp::of(stat),
            links: stat.stx_nlink,
            implied: false,
            reused: false,
        })
    }

    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Returns the content's digest, for files of contexts.
    pub fn content(&self) -> Option<Digest> {
        match self.kind {
            Kind::File { content } => content,
            _ => None,
        }
    }
}
