//! Makes the node of one member.

use std::ffi::CString;
use std::fs::File;
use std::io::{BufRead, Write as _};
use std::os::fd::AsRawFd as _;

use ashlar_core::Hasher;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::dirs::{self, Dir};
use super::{UnpackMode, Unpacker, components};
use crate::archive::{Archive, Kind, Member};
use crate::error::{LayerError, Result};
use crate::stop::Stop;
use crate::walk::join;
use crate::write::split;

const ZEROS: &[u8] = &[0; 64 * 1024];

impl<R: BufRead> Unpacker<'_, R> {
    /// Makes `member` at `path`, in place of whatever was there.
    pub(super) fn node(&mut self, member: &Member, path: &[u8]) -> Result<()> {
        let (parent_path, name) = split(path);
        let parent = self.dirs.open(parent_path)?;
        if parent.through_link {
            // The digest of some other path is stale now, and which one is not worth finding out.
            self.done.known = crate::KnownFiles::new();
        }
        match member.kind {
            Kind::File => self.file(member, path, &parent, name),
            Kind::HardLink => self.hard_link(member, path, &parent, name),
            Kind::Directory => self.directory(member, path, &parent, name),
            Kind::Symlink => {
                if member.link.is_empty() || member.link.contains(&0) {
                    return Err(LayerError::refused(path, "a link must have a target"));
                }
                self.create(path, &parent, name, |parent| {
                    rustix::fs::symlinkat(member.link.as_slice(), parent, name)
                })?;
                let (uid, gid) = self.owner(member);
                dirs::chown(&parent, name, uid, gid, path)?;
                dirs::set_time(&parent, name, member.mtime, path)
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                self.special(member, path, &parent, name)
            }
        }
    }

    fn owner(&self, member: &Member) -> (u32, u32) {
        self.options.owner.unwrap_or((member.uid, member.gid))
    }

    /// Runs `make`, once more if something is in the way and after removing that.
    fn create<T>(
        &mut self,
        path: &[u8],
        parent: &Dir,
        name: &[u8],
        make: impl Fn(&Dir) -> rustix::io::Result<T>,
    ) -> Result<T> {
        let made = match make(parent) {
            Err(Errno::EXIST) => {
                self.remove(path, parent, name)?;
                make(parent)
            }
            made => made,
        };
        made.map_err(|e| LayerError::io("make", path, e))
    }

    fn remove(&mut self, path: &[u8], parent: &Dir, name: &[u8]) -> Result<()> {
        self.done.known.remove(path);
        self.dirs.forget();
        let removed = match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                use std::os::fd::AsFd as _;
                use std::os::unix::ffi::OsStrExt as _;
                let dir = format!("/proc/self/fd/{}", parent.as_fd().as_raw_fd());
                let dir = std::path::Path::new(&dir).join(std::ffi::OsStr::from_bytes(name));
                std::fs::remove_dir_all(dir)
            }
            unlinked => unlinked.map_err(Into::into),
        };
        removed.map_err(|e| LayerError::io("replace", path, e))
    }

    fn file(&mut self, member: &Member, path: &[u8], parent: &Dir, name: &[u8]) -> Result<()> {
        let limit = self.options.limits.content_bytes;
        self.done.content_bytes = self.done.content_bytes.saturating_add(member.size);
        if self.done.content_bytes > limit {
            return Err(LayerError::limit("content bytes", limit, path));
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let fd = self
            .create(path, parent, name, |parent| rustix::fs::openat(parent, name, flags, mode))?;
        let mut content =
            Content { file: File::from(fd), hasher: Hasher::new(), path, stop: &self.options.stop };
        match &member.segments {
            None => content.copy(&mut self.archive, member.size)?,
            Some(segments) => content.copy_sparse(&mut self.archive, segments, member.size)?,
        }
        let Content { file, hasher, .. } = content;
        let (uid, gid) = self.owner(member);
        set_file_attributes(&file, member, uid, gid)
            .map_err(|e| LayerError::io("set the attributes of", path, e))?;
        if !parent.through_link {
            self.done.known.insert(path, hasher.finish());
        }
        Ok(())
    }

    fn hard_link(&mut self, member: &Member, path: &[u8], parent: &Dir, name: &[u8]) -> Result<()> {
        let target = join(&self.dest, &components(&member.link)?);
        if target == path {
            return Err(LayerError::refused(path, "it is a hard link to itself"));
        }
        let (target_parent, target_name) = split(&target);
        let from = self.dirs.open(target_parent)?;
        let link =
            |parent: &Dir| rustix::fs::linkat(&from, target_name, parent, name, AtFlags::empty());
        match rustix::fs::statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(LayerError::refused(path, "it is a hard link to a directory"));
            }
            Ok(_) => {}
            Err(_) => {
                return Err(LayerError::refused(path, "its hard link's target is not there"));
            }
        }
        self.create(path, parent, name, link)?;
        self.done.known.remove(path);
        if let Some(digest) = self.done.known.get(&target)
            && !from.through_link
            && !parent.through_link
        {
            self.done.known.insert(path, digest);
        }
        Ok(())
    }

    fn directory(&mut self, member: &Member, path: &[u8], parent: &Dir, name: &[u8]) -> Result<()> {
        let is_dir = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if !is_dir {
            let was_hidden = self.dirs.is_whiteout(parent, name);
            self.create(path, parent, name, |parent| {
                rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))
            })?;
            if was_hidden {
                self.dirs.make_opaque(path)?;
            }
        }
        self.dirs.is_explicit(path);
        let dir = self.dirs.open(path)?;
        set_dir_attributes(&dir, member, self.options.owner, path)?;
        self.dir_times.push((path.to_vec(), member.mtime));
        Ok(())
    }

    fn special(&mut self, member: &Member, path: &[u8], parent: &Dir, name: &[u8]) -> Result<()> {
        let (major, minor) = member.device;
        let (kind, device) = match member.kind {
            Kind::Fifo => (FileType::Fifo, 0),
            // Some tools write overlayfs's own whiteouts into layers.
            Kind::CharDevice
                if (major, minor) == (0, 0) && self.options.mode == UnpackMode::Layer =>
            {
                let (parent_path, _) = split(path);
                return self.dirs.hide(parent_path, name);
            }
            _ if !self.options.devices => {
                return Err(LayerError::refused(path, "device nodes are not allowed here"));
            }
            // The kernel would take it for the mark of a removed file.
            Kind::CharDevice if (major, minor) == (0, 0) => {
                return Err(LayerError::refused(path, "a device 0:0 stands for a removed file"));
            }
            Kind::CharDevice => (FileType::CharacterDevice, rustix::fs::makedev(major, minor)),
            _ => (FileType::BlockDevice, rustix::fs::makedev(major, minor)),
        };
        self.create(path, parent, name, |parent| {
            rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)
        })?;
        let (uid, gid) = self.owner(member);
        dirs::chown(parent, name, uid, gid, path)?;
        dirs::chmod(parent, name, member.mode, path)?;
        dirs::set_time(parent, name, member.mtime, path)
    }
}

/// Sets owner, mode, attributes and time, in the order in which they don't undo each other: a change
/// of owner clears setuid bits and file capabilities.
fn set_file_attributes(file: &File, member: &Member, uid: u32, gid: u32) -> rustix::io::Result<()> {
    rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(member.mode))?;
    for (name, value) in &member.xattrs {
        let name = CString::new(name.as_slice()).map_err(|_| Errno::INVAL)?;
        rustix::fs::fsetxattr(file, &name, value, XattrFlags::empty())?;
    }
    rustix::fs::futimens(file, &dirs::times(member.mtime))
}

/// Sets owner, mode and attributes of a directory; its time comes last of all.
pub(super) fn set_dir_attributes(
    dir: &Dir,
    member: &Member,
    owner: Option<(u32, u32)>,
    path: &[u8],
) -> Result<()> {
    let (uid, gid) = owner.unwrap_or((member.uid, member.gid));
    dirs::chown(dir, b".", uid, gid, path)?;
    dirs::chmod(dir, b".", member.mode, path)?;
    for (name, value) in &member.xattrs {
        let name = CString::new(name.as_slice())
            .map_err(|_| LayerError::refused(path, "an attribute's name contains a NUL"))?;
        dirs::set_xattr(dir, &name, value, path)?;
    }
    Ok(())
}

/// A file being written and hashed in one go.
struct Content<'a> {
    file: File,
    hasher: Hasher,
    path: &'a [u8],
    stop: &'a Stop,
}

impl Content<'_> {
    fn copy<R: BufRead>(&mut self, archive: &mut Archive<R>, size: u64) -> Result<()> {
        let mut left = size;
        while left > 0 {
            self.stop.check()?;
            let data = archive.data()?;
            let len = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.hasher.update(&data[..len]);
            let written = self.file.write_all(&data[..len]);
            written.map_err(|e| LayerError::io("write", self.path, e))?;
            archive.consume(len);
            left -= len as u64;
        }
        Ok(())
    }

    /// Leaves holes as holes, and hashes them as the zeros that a reader sees.
    fn copy_sparse<R: BufRead>(
        &mut self,
        archive: &mut Archive<R>,
        segments: &[(u64, u64)],
        size: u64,
    ) -> Result<()> {
        use std::io::{Seek as _, SeekFrom};
        let mut at = 0;
        for &(offset, len) in segments {
            self.hash_zeros(offset - at)?;
            let sought = self.file.seek(SeekFrom::Start(offset));
            sought.map_err(|e| LayerError::io("write", self.path, e))?;
            self.copy(archive, len)?;
            at = offset + len;
        }
        self.hash_zeros(size - at)?;
        self.file.set_len(size).map_err(|e| LayerError::io("extend", self.path, e))
    }

    fn hash_zeros(&mut self, mut left: u64) -> Result<()> {
        while left > 0 {
            self.stop.check()?;
            let len = ZEROS.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.hasher.update(&ZEROS[..len]);
            left -= len as u64;
        }
        Ok(())
    }
}
