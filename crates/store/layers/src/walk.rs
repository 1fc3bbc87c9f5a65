//! Walks a directory tree on a few threads, without following anything.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, PoisonError};

use ashlar_core::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::entry::{Entry, Node};
use crate::error::{LayerError, Result};
use crate::scan::{PATH_BYTES_MAX, SCAN_THREADS, ScanOptions, is_plain_root};
use crate::xattr;

/// One path as the walk saw it; contents and hard links are filled in later.
pub(crate) struct Found {
    pub(crate) entry: Entry,
    pub(crate) inode: u64,
    pub(crate) links: u32,
    /// In units of 512 bytes.
    pub(crate) blocks: u64,
}

const DIRENT_BUFFER_BYTES: usize = 32 * 1024;

/// Directories that wait for a thread, and how many threads are busy filling the list.
struct Queue {
    dirs: Vec<Vec<u8>>,
    busy: usize,
    entries: u64,
    failed: bool,
}

/// Returns every path below `root` in no order, and the root itself if it is not plain.
pub(crate) fn walk(root: BorrowedFd<'_>, options: &ScanOptions) -> Result<Vec<Found>> {
    let queue = Mutex::new(Queue { dirs: vec![Vec::new()], busy: 0, entries: 0, failed: false });
    let wake = Condvar::new();
    let mut found = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..SCAN_THREADS).map(|_| scope.spawn(|| work(root, options, &queue, &wake))).collect();
        for worker in workers {
            let part = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            found.extend(part);
        }
        Ok(())
    })?;
    let top = rustix::fs::statx(root, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    let top = top.map_err(|e| LayerError::io("examine", b"/", e))?;
    found.extend(describe(root, c".", Vec::new(), &top)?);
    Ok(found)
}

fn work(
    root: BorrowedFd<'_>,
    options: &ScanOptions,
    queue: &Mutex<Queue>,
    wake: &Condvar,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut buffer = Vec::with_capacity(DIRENT_BUFFER_BYTES);
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    let mut state = lock();
    loop {
        if state.failed || (state.dirs.is_empty() && state.busy == 0) {
            wake.notify_all();
            return Ok(found);
        }
        let Some(dir) = state.dirs.pop() else {
            state = wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.busy += 1;
        drop(state);
        let before = found.len();
        let result =
            options.stop.check().and_then(|()| read_dir(root, &dir, &mut buffer, &mut found));
        state = lock();
        state.busy -= 1;
        state.entries += (found.len() - before) as u64;
        let over = state.entries > options.entries_max;
        let result = result.and_then(|subdirs| {
            let error = || LayerError::limit("paths", options.entries_max, &dir);
            if over { Err(error()) } else { Ok(subdirs) }
        });
        match result {
            Ok(subdirs) => state.dirs.extend(subdirs),
            Err(error) => {
                state.failed = true;
                wake.notify_all();
                return Err(error);
            }
        }
        wake.notify_all();
    }
}

/// Opens a directory beneath `root` with no symbolic link on the way.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let path_or_dot = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path_or_dot, flags, Mode::empty(), resolve)
        .map_err(|e| LayerError::io("open the directory", path, e))
}

/// Appends what is in `dir` and returns the paths of its directories.
fn read_dir(
    root: BorrowedFd<'_>,
    dir: &[u8],
    buffer: &mut Vec<u8>,
    found: &mut Vec<Found>,
) -> Result<Vec<Vec<u8>>> {
    let fd = open_dir(root, dir)?;
    let mut subdirs = Vec::new();
    buffer.clear();
    let mut names = RawDir::new(&fd, buffer.spare_capacity_mut());
    while let Some(name) = names.next() {
        let name = name.map_err(|e| LayerError::io("list", dir, e))?;
        let name = name.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let path = join(dir, name.to_bytes());
        if path.len() > PATH_BYTES_MAX {
            return Err(LayerError::limit("bytes of a path", PATH_BYTES_MAX as u64, &path));
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statx(&fd, name, flags, StatxFlags::BASIC_STATS)
            .map_err(|e| LayerError::io("examine", &path, e))?;
        if let Some(item) = describe(fd.as_fd(), name, path, &stat)? {
            if item.entry.node.is_dir() {
                subdirs.push(item.entry.path.clone());
            }
            found.push(item);
        }
    }
    Ok(subdirs)
}

pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// Makes the entry of `name` in `dir`; none for a socket and a plain root.
fn describe(
    dir: BorrowedFd<'_>,
    name: &CStr,
    path: Vec<u8>,
    stat: &Statx,
) -> Result<Option<Found>> {
    let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
    let mut xattrs = Vec::new();
    let node = match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
        FileType::RegularFile => {
            xattrs = read_xattrs(dir, name, &path)?.kept;
            Node::File { size: stat.stx_size, content: Digest::from_bytes([0; 32]) }
        }
        FileType::Directory => {
            let all = read_xattrs(dir, name, &path)?;
            xattrs = all.kept;
            Node::Directory { opaque: all.opaque }
        }
        FileType::Symlink => Node::Symlink { target: read_link(dir, name, &path)? },
        FileType::CharacterDevice if (major, minor) == (0, 0) => Node::Whiteout,
        FileType::CharacterDevice => Node::CharDevice { major, minor },
        FileType::BlockDevice => Node::BlockDevice { major, minor },
        FileType::Fifo => Node::Fifo,
        _ => return Ok(None),
    };
    let mode = u32::from(stat.stx_mode) & 0o7777;
    let (uid, gid, mtime) = (stat.stx_uid, stat.stx_gid, stat.stx_mtime.tv_sec);
    let entry = Entry { path, node, mode, uid, gid, mtime, xattrs };
    if entry.path.is_empty() && is_plain_root(&entry) {
        return Ok(None);
    }
    let (inode, links, blocks) = (stat.stx_ino, stat.stx_nlink, stat.stx_blocks);
    Ok(Some(Found { entry, inode, links, blocks }))
}

fn read_link(dir: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<Vec<u8>> {
    rustix::fs::readlinkat(dir, name, Vec::new())
        .map(std::ffi::CString::into_bytes)
        .map_err(|e| LayerError::io("read the link", path, e))
}

/// There is no `listxattrat` before Linux 6.13, so the directory is reached through `/proc`.
fn read_xattrs(dir: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<xattr::Listed> {
    use std::io::Write as _;
    let mut buffer = [0_u8; 300];
    let mut rest = &mut buffer[..];
    let written = write!(rest, "/proc/self/fd/{}/", dir.as_raw_fd())
        .and_then(|()| rest.write_all(name.to_bytes_with_nul()));
    written.map_err(|e| LayerError::io("name", path, e))?;
    let unused = rest.len();
    let used = buffer.len() - unused;
    let full = CStr::from_bytes_with_nul(&buffer[..used])
        .map_err(|_| LayerError::io("name", path, Errno::INVAL))?;
    xattr::read(full).map_err(|e| LayerError::io("read the attributes of", path, e))
}
