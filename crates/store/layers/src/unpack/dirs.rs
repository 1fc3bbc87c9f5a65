//! Finds and makes the directories that members go into, inside the root.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{DEPTH_MAX, NAME_BYTES_MAX, UnpackMode};
use crate::archive::Member;
use crate::error::{LayerError, Result};
use crate::walk::join;
use crate::write::split;
use crate::xattr::OPAQUE;

/// Open directories kept; more would only hold file descriptors.
const OPEN_DIRS_MAX: usize = 64;
/// The kernel gives up resolving `..` in a link while others rename directories; asking again helps.
const RESOLVE_TRIES: usize = 128;

/// A directory that members can be put into.
#[derive(Clone)]
pub(super) struct Dir {
    fd: Rc<OwnedFd>,
    /// Whether a symbolic link led here, so that its path is not where it is.
    pub(super) through_link: bool,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The directories of the tree that is being filled.
pub(super) struct Dirs<'a> {
    root: BorrowedFd<'a>,
    owner: Option<(u32, u32)>,
    mode: UnpackMode,
    open: HashMap<Vec<u8>, Dir>,
    /// Directories made only because something is in them.
    implicit: BTreeSet<Vec<u8>>,
}

impl<'a> Dirs<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, owner: Option<(u32, u32)>, mode: UnpackMode) -> Self {
        Self { root, owner, mode, open: HashMap::new(), implicit: BTreeSet::new() }
    }

    /// Returns the directory at `path`, making it and its parents where they are missing.
    pub(super) fn open(&mut self, path: &[u8]) -> Result<Dir> {
        if let Some(dir) = self.open.get(path) {
            return Ok(dir.clone());
        }
        let dir = match self.resolve(path) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) if !path.is_empty() => self.make(path)?,
            Err(Errno::LOOP) => {
                return Err(LayerError::refused(path, "symbolic links go round in a circle there"));
            }
            Err(Errno::NAMETOOLONG) => {
                return Err(LayerError::refused(path, "a link on the way is too long to follow"));
            }
            Err(error) => return Err(LayerError::io("open the directory", path, error)),
        };
        if self.open.len() >= OPEN_DIRS_MAX {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), dir.clone());
        Ok(dir)
    }

    /// Must be called when something that may be on the way to a directory is removed.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    fn resolve(&self, path: &[u8]) -> rustix::io::Result<Dir> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |resolve| rustix::fs::openat2(self.root, path, flags, Mode::empty(), resolve);
        let strict = open(ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS);
        let (fd, through_link) = match strict {
            Err(Errno::LOOP) => {
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                let mut fd = open(resolve);
                for _ in 0..RESOLVE_TRIES {
                    if !matches!(fd, Err(Errno::AGAIN)) {
                        break;
                    }
                    fd = open(resolve);
                }
                (fd?, true)
            }
            strict => (strict?, false),
        };
        Ok(Dir { fd: Rc::new(fd), through_link })
    }

    /// Makes the last component of `path`, and before it its parents.
    fn make(&mut self, path: &[u8]) -> Result<Dir> {
        let (parent_path, name) = split(path);
        let parent = self.open(parent_path)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.is_whiteout(&parent, name) => {
                return self.replace_whiteout(&parent, name, path);
            }
            Err(Errno::EXIST) => {
                let target = dangling_target(&parent, parent_path, name);
                let refused = || LayerError::refused(path, "its parent is no directory");
                self.open(&target.ok_or_else(refused)?)?;
                return self.resolve(path).map_err(|_| refused());
            }
            Err(error) => return Err(LayerError::io("make the directory", path, error)),
        }
        // The umask and a setgid parent have had their say.
        let dir = self.resolve(path).map_err(|e| LayerError::io("open", path, e))?;
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        chown(&parent, name, uid, gid, path)?;
        chmod(&parent, name, 0o755, path)?;
        if !dir.through_link {
            self.implicit.insert(path.to_vec());
        }
        Ok(dir)
    }

    /// Notes that the archive says itself what is at `path`.
    pub(super) fn is_explicit(&mut self, path: &[u8]) {
        self.implicit.remove(path);
    }

    pub(super) fn into_implicit(self) -> Vec<Vec<u8>> {
        self.implicit.into_iter().collect()
    }

    pub(super) fn is_whiteout(&self, parent: &Dir, name: &[u8]) -> bool {
        self.mode == UnpackMode::Layer
            && rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                    && stat.st_rdev == 0
            })
    }

    /// The layer removes a path and makes a directory there: nothing below may shine through.
    fn replace_whiteout(&mut self, parent: &Dir, name: &[u8], path: &[u8]) -> Result<Dir> {
        rustix::fs::unlinkat(parent, name, AtFlags::empty())
            .map_err(|e| LayerError::io("remove", path, e))?;
        let dir = self.make(path)?;
        set_opaque(&dir, path)?;
        Ok(dir)
    }

    /// Hides what the layers below have in `path`.
    pub(super) fn make_opaque(&mut self, path: &[u8]) -> Result<()> {
        let dir = self.open(path)?;
        set_opaque(&dir, path)
    }

    /// Hides what the layers below have at `name`, unless this layer has something there itself.
    pub(super) fn hide(&mut self, parent_path: &[u8], name: &[u8]) -> Result<()> {
        let parent = self.open(parent_path)?;
        let path = join(parent_path, name);
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                self.make_opaque(&path)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => make_whiteout(&parent, name)
                .map_err(|e| LayerError::io("make the whiteout of", &path, e)),
            Err(error) => Err(LayerError::io("examine", &path, error)),
        }
    }

    /// Gives the root directory the attributes of a layer's `./`.
    pub(super) fn set_root(&mut self, member: &Member) -> Result<()> {
        let root = self.open(b"")?;
        super::place::set_dir_attributes(&root, member, self.owner, b"")
    }

    /// Sets the time of a directory that was unpacked, if it still is one.
    pub(super) fn set_dir_time(&mut self, path: &[u8], mtime: i64) -> Result<()> {
        let (parent, name) = split(path);
        let Ok(parent) = self.resolve(parent) else { return Ok(()) };
        let is_dir = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if is_dir { set_time(&parent, name, mtime, path) } else { Ok(()) }
    }
}

/// Returns where the link at `name` leads, as a path from the root, when that can be told from its
/// text alone: other unpackers make the directory that it lacks.
fn dangling_target(parent: &Dir, parent_path: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    if parent.through_link {
        return None;
    }
    let target = rustix::fs::readlinkat(parent, name, Vec::new()).ok()?;
    let target = target.as_bytes();
    let absolute = target.starts_with(b"/");
    let mut parts: Vec<&[u8]> = match absolute {
        true => Vec::new(),
        false => parent_path.split(|&b| b == b'/').filter(|p| !p.is_empty()).collect(),
    };
    let mut down = false;
    for part in target.split(|&b| b == b'/').filter(|p| !matches!(*p, b"" | b".")) {
        match part {
            // What is above a name depends on whether that is a link.
            b".." if down => return None,
            b".." => drop(parts.pop()),
            part => {
                down = true;
                parts.push(part);
            }
        }
    }
    if parts.len() > DEPTH_MAX || parts.iter().any(|part| part.len() > NAME_BYTES_MAX) {
        return None;
    }
    let target = parts.join(&b'/');
    (target != join(parent_path, name)).then_some(target)
}

fn set_opaque(dir: &Dir, path: &[u8]) -> Result<()> {
    set_xattr(dir, OPAQUE, b"y", path)
}

/// Sets an attribute of a directory that is open as a path only.
pub(super) fn set_xattr(dir: &Dir, name: &std::ffi::CStr, value: &[u8], path: &[u8]) -> Result<()> {
    let link = format!("/proc/self/fd/{}", dir.fd.as_raw_fd());
    rustix::fs::setxattr(link, name, value, rustix::fs::XattrFlags::empty())
        .map_err(|e| LayerError::io("set an attribute of", path, e))
}

pub(super) fn make_whiteout(parent: &Dir, name: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
}

pub(super) fn chown(parent: &Dir, name: &[u8], uid: u32, gid: u32, path: &[u8]) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| LayerError::io("give away", path, e))
}

/// `name` must not be a symbolic link.
pub(super) fn chmod(parent: &Dir, name: &[u8], mode: u32, path: &[u8]) -> Result<()> {
    rustix::fs::chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())
        .map_err(|e| LayerError::io("set the mode of", path, e))
}

pub(super) fn set_time(parent: &Dir, name: &[u8], mtime: i64, path: &[u8]) -> Result<()> {
    rustix::fs::utimensat(parent, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| LayerError::io("set the time of", path, e))
}

pub(super) fn times(mtime: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime, tv_nsec: 0 },
    }
}
