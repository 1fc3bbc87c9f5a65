//! A directory that paths are looked up in as if it were `/`, with no way out.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::path;

/// The most symbolic links that are followed in one path, as in BuildKit.
const LINKS_MAX: usize = 255;

/// How often a look-up is tried anew when the kernel says that the tree changed meanwhile.
const TRIES_MAX: usize = 100;

/// Fields of [`Statx`] that this crate uses.
pub(crate) const STAT_FIELDS: StatxFlags = StatxFlags::BASIC_STATS;

/// A tree's root directory.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    place: PathBuf,
}

/// What a path stands for once its links are followed.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Clean, relative to the root, without links in it.
    pub(crate) path: Vec<u8>,
    /// What is there; `None` when nothing is.
    pub(crate) stat: Option<Statx>,
    /// The links that were followed, by their own clean paths.
    pub(crate) links: Vec<Vec<u8>>,
}

impl Root {
    /// Opens a directory.
    ///
    /// # Errors
    /// When it does not exist or is not a directory.
    pub fn open(place: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, place, flags, Mode::empty())?;
        Ok(Self { fd, place: place.to_owned() })
    }

    /// Takes a directory that is open already, such as a detached mount; `place` is for messages.
    pub fn from_fd(fd: OwnedFd, place: PathBuf) -> Self {
        Self { fd, place }
    }

    /// Returns where the directory is, for messages.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Opens a clean path that has no links in it; one that is there now fails with `ELOOP`.
    pub(crate) fn open_plain(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        for _ in 0..TRIES_MAX {
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens a directory for use as a base of relative calls and for listing.
    pub(crate) fn open_dir(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        self.open_plain(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// Returns what is at a clean path without links above it; the last component is not followed.
    pub(crate) fn stat(&self, path: &[u8]) -> rustix::io::Result<Statx> {
        // With O_PATH and O_NOFOLLOW the link itself is opened, so NO_SYMLINKS must not see it: the
        // directory above is opened plainly, and the name is looked at from there.
        match path::parent(path) {
            None => stat_fd(self.as_fd()),
            Some(b"") => stat_at(self.as_fd(), path),
            Some(above) => {
                let dir = self.open_plain(above, OFlags::PATH | OFlags::DIRECTORY)?;
                stat_at(dir.as_fd(), path::base(path))
            }
        }
    }

    /// Follows all links of `path`, the last one too, as a process with this root would. What does
    /// not exist is taken as it is written.
    ///
    /// # Errors
    /// `ELOOP` after 255 links; any other trouble but that something is missing.
    pub(crate) fn resolve(&self, path: &[u8]) -> rustix::io::Result<Resolved> {
        resolve_in(|_| self, path)
    }

    fn stat_if_any(&self, path: &[u8]) -> rustix::io::Result<Option<Statx>> {
        match self.stat(path) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Returns the text of the link at a clean path.
    pub(crate) fn read_link(&self, path: &[u8]) -> rustix::io::Result<Vec<u8>> {
        let above = path::parent(path).unwrap_or(b"");
        let dir = self.open_plain(above, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(rustix::fs::readlinkat(&dir, path::base(path), Vec::new())?.into_bytes())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Does what [`Root::resolve`] does in a tree that is seen through several roots: `pick` says by
/// which one a path is to be looked at.
pub(crate) fn resolve_in<'a>(
    pick: impl Fn(&[u8]) -> &'a Root,
    path: &[u8],
) -> rustix::io::Result<Resolved> {
    let mut rest: Vec<Vec<u8>> = components(path);
    let mut at = Vec::new();
    let mut stat = Some(stat_fd(pick(b"").as_fd())?);
    let mut links = Vec::new();
    while let Some(name) = rest.pop() {
        path::push_component(&mut at, &name);
        if at.len() > path::PATH_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        stat = pick(&at).stat_if_any(&at)?;
        if stat.as_ref().is_some_and(is_link) {
            if links.len() >= LINKS_MAX {
                return Err(Errno::LOOP);
            }
            let target = pick(&at).read_link(&at)?;
            links.push(at.clone());
            let keep = if target.first() == Some(&b'/') { 0 } else { parent_len(&at) };
            at.truncate(keep);
            rest.extend(components(&target));
            stat = pick(&at).stat_if_any(&at)?;
        }
    }
    Ok(Resolved { path: at, stat, links })
}

/// Returns the components in the order in which they are popped.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|&b| b == b'/').filter(|c| !c.is_empty() && *c != b".");
    parts.rev().map(<[u8]>::to_vec).collect()
}

fn parent_len(path: &[u8]) -> usize {
    path::parent(path).map_or(0, <[u8]>::len)
}

/// Returns what `name` in `dir` is, without following a link.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Statx> {
    rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, STAT_FIELDS)
}

/// Returns what is open.
pub(crate) fn stat_fd(fd: BorrowedFd<'_>) -> rustix::io::Result<Statx> {
    rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, STAT_FIELDS)
}

/// Returns the type bits of a mode.
pub(crate) fn file_type(stat: &Statx) -> rustix::fs::FileType {
    rustix::fs::FileType::from_raw_mode(u32::from(stat.stx_mode))
}

/// Whether a directory is there.
pub(crate) fn is_dir(stat: &Statx) -> bool {
    file_type(stat) == rustix::fs::FileType::Directory
}

fn is_link(stat: &Statx) -> bool {
    file_type(stat) == rustix::fs::FileType::Symlink
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn tree() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/b/f"), "x").unwrap();
        symlink("/a/b", dir.path().join("abs")).unwrap();
        symlink("../../../../a", dir.path().join("up")).unwrap();
        symlink("b/f", dir.path().join("a/rel")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        symlink("/gone/x", dir.path().join("dangling")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn links_stay_within_the_root() {
        let (_dir, root) = tree();
        let table = [
            ("abs/f", "a/b/f", true),
            ("up/b", "a/b", true),
            ("a/rel", "a/b/f", true),
            ("../../a", "a", true),
            ("dangling", "gone/x", false),
            ("dangling/../y", "gone/y", false),
            ("a/b/f/x", "a/b/f/x", false),
            ("", "", true),
        ];
        for (path, want, there) in table {
            let got = root.resolve(path.as_bytes()).unwrap();
            assert_eq!(got.path, want.as_bytes(), "{path}");
            assert_eq!(got.stat.is_some(), there, "{path}");
        }
        assert_eq!(root.resolve(b"loop").unwrap_err(), Errno::LOOP);
        assert_eq!(root.open_plain(b"abs/f", OFlags::RDONLY).unwrap_err(), Errno::LOOP);
        assert_eq!(root.open_plain(b"../x", OFlags::RDONLY).unwrap_err(), Errno::XDEV);
    }

    proptest! {
        #[test]
        fn nothing_resolves_outside(parts in proptest::collection::vec("a|b|abs|up|\\.\\.|\\.|rel|dangling|", 0..10)) {
            let (_dir, root) = tree();
            let got = root.resolve(parts.join("/").as_bytes()).unwrap();
            prop_assert_eq!(path::clean(&got.path), got.path.clone());
            prop_assert!(got.stat.is_none() || root.stat(&got.path).is_ok());
        }
    }
}
