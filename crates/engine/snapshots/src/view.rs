//! Looks into a tree without mounting it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Result, SnapshotError};
use crate::store::SnapshotStore;
use crate::{LayerId, Tree};

/// Links followed in one path, as in the kernel.
const LINKS_MAX: usize = 40;

/// Whether a symbolic link at the end of a path is followed; links on the way always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Follow {
    /// Gives what the link leads to.
    Yes,
    /// Gives the link.
    No,
}

/// What is at a path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path with all links resolved, without slashes around; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FoundKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// The topmost layer that has it; none for the root of an empty tree.
    pub layer: Option<LayerId>,
}

impl Found {
    /// Returns the last component of the path; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }
}

/// What a [`Found`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundKind {
    /// A regular file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link with this text.
    Symlink(Vec<u8>),
    /// A device or named pipe.
    Special,
}

/// One directory of the tree: the layers that show there, the topmost first.
#[derive(Clone)]
pub(crate) struct MergedDir {
    pub(crate) path: Vec<u8>,
    pub(crate) layers: Vec<usize>,
}

/// A child of a [`MergedDir`].
pub(crate) enum Child {
    Dir(MergedDir),
    /// Not a directory; in this layer.
    Other(usize),
}

/// The layers of a tree, opened where they were needed.
pub(crate) struct View {
    pub(crate) ids: Vec<LayerId>,
    roots: Vec<OwnedFd>,
}

impl View {
    pub(crate) fn open(store: &SnapshotStore, tree: &Tree) -> Result<Self> {
        let mut ids = store.visible(tree)?.0;
        ids.reverse();
        let open = |id: &LayerId| {
            let path = store.layer_fs(id);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, &path, flags, Mode::empty())
                .map_err(|e| SnapshotError::io("open", &path, e))
        };
        let roots = ids.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { ids, roots })
    }

    fn root(&self) -> MergedDir {
        MergedDir { path: Vec::new(), layers: (0..self.ids.len()).collect() }
    }

    fn stat(&self, layer: usize, path: &[u8]) -> Result<Option<Stat>> {
        let (path_or_dot, flags) = if path.is_empty() {
            (&b"."[..], AtFlags::empty())
        } else {
            (path, AtFlags::SYMLINK_NOFOLLOW)
        };
        match rustix::fs::statat(&self.roots[layer], path_or_dot, flags) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(layer_error("examine", path, error)),
        }
    }

    fn is_opaque(&self, layer: usize, path: &[u8]) -> Result<bool> {
        let dir = self.open_in(layer, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut value = [0; 8];
        match rustix::fs::fgetxattr(&dir, c"trusted.overlay.opaque", &mut value[..]) {
            Ok(len) => Ok(&value[..len] == b"y"),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
            Err(error) => Err(layer_error("examine", path, error)),
        }
    }

    fn open_in(&self, layer: usize, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let path_or_dot = if path.is_empty() { b"." } else { path };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.roots[layer], path_or_dot, flags, Mode::empty(), resolve)
            .map_err(|e| layer_error("open", path, e))
    }

    /// Returns what the tree shows at `name` in `dir`.
    pub(crate) fn child(&self, dir: &MergedDir, name: &[u8]) -> Result<Option<Child>> {
        let path = join(&dir.path, name);
        let mut layers = Vec::new();
        for &layer in &dir.layers {
            let Some(stat) = self.stat(layer, &path)? else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                layers.push(layer);
                if self.is_opaque(layer, &path)? {
                    break;
                }
            } else if layers.is_empty() && !is_whiteout(&stat) {
                return Ok(Some(Child::Other(layer)));
            } else {
                break;
            }
        }
        Ok((!layers.is_empty()).then_some(Child::Dir(MergedDir { path, layers })))
    }

    /// Follows `path` from the root; symbolic links stay inside the tree.
    pub(crate) fn resolve(&self, path: &[u8], follow: Follow) -> Result<Option<(Vec<u8>, Child)>> {
        let mut dirs = vec![self.root()];
        let mut todo = reversed_components(path);
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                if dirs.len() > 1 {
                    dirs.pop();
                }
                continue;
            }
            let Some(dir) = dirs.last() else { return Ok(None) };
            let layer = match self.child(dir, &part)? {
                None => return Ok(None),
                Some(Child::Dir(child)) => {
                    dirs.push(child);
                    continue;
                }
                Some(Child::Other(layer)) => layer,
            };
            let here = join(&dir.path, &part);
            let is_last = todo.is_empty();
            let target = match self.read_link(layer, &here)? {
                Some(target) if !is_last || follow == Follow::Yes => target,
                _ if is_last => return Ok(Some((here, Child::Other(layer)))),
                _ => return Ok(None),
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(SnapshotError::path(path, "has too many symbolic links"));
            }
            if target.starts_with(b"/") {
                dirs.truncate(1);
            }
            todo.extend(reversed_components(&target));
        }
        Ok(dirs.pop().map(|dir| (dir.path.clone(), Child::Dir(dir))))
    }

    fn read_link(&self, layer: usize, path: &[u8]) -> Result<Option<Vec<u8>>> {
        match rustix::fs::readlinkat(&self.roots[layer], path, Vec::new()) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(Errno::INVAL) => Ok(None),
            Err(error) => Err(layer_error("read the link", path, error)),
        }
    }

    fn describe(&self, path: Vec<u8>, child: &Child) -> Result<Option<Found>> {
        let layer = match child {
            Child::Dir(dir) => dir.layers.first().copied(),
            Child::Other(layer) => Some(*layer),
        };
        let Some(layer) = layer else {
            let kind = FoundKind::Directory;
            let root = Found { path, kind, mode: 0o755, uid: 0, gid: 0, mtime: 0, layer: None };
            return Ok(Some(root));
        };
        let Some(stat) = self.stat(layer, &path)? else { return Ok(None) };
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => FoundKind::Directory,
            FileType::RegularFile => FoundKind::File(stat.st_size.cast_unsigned()),
            FileType::Symlink => {
                FoundKind::Symlink(self.read_link(layer, &path)?.unwrap_or_default())
            }
            _ => FoundKind::Special,
        };
        let (uid, gid, mtime) = (stat.st_uid, stat.st_gid, stat.st_mtime);
        let layer = Some(self.ids[layer]);
        Ok(Some(Found { path, kind, mode: stat.st_mode & 0o7777, uid, gid, mtime, layer }))
    }

    fn children(&self, dir: &MergedDir) -> Result<BTreeMap<Vec<u8>, Child>> {
        let mut names = std::collections::BTreeSet::new();
        for &layer in &dir.layers {
            let fd = self.open_in(layer, &dir.path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let error = |e| layer_error("list", &dir.path, e);
            let mut entries = rustix::fs::Dir::read_from(fd.as_fd()).map_err(error)?;
            while let Some(entry) = entries.read() {
                names.insert(entry.map_err(error)?.file_name().to_bytes().to_vec());
            }
        }
        let mut children = BTreeMap::new();
        for name in names {
            if matches!(name.as_slice(), b"." | b"..") {
                continue;
            }
            if let Some(child) = self.child(dir, &name)? {
                children.insert(name, child);
            }
        }
        Ok(children)
    }
}

impl SnapshotStore {
    /// Returns what is at `path` in `tree`; links stay inside the tree.
    ///
    /// # Errors
    /// When a layer is missing, or the path goes through too many links.
    pub fn lookup(&self, tree: &Tree, path: &[u8], follow: Follow) -> Result<Option<Found>> {
        let view = View::open(self, tree)?;
        match view.resolve(path, follow)? {
            Some((path, child)) => view.describe(path, &child),
            None => Ok(None),
        }
    }

    /// Returns the content of the file at `path`, which may be `bytes_max` long; none when there is
    /// nothing.
    ///
    /// # Errors
    /// When it is no regular file or larger.
    pub fn read(&self, tree: &Tree, path: &[u8], bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let view = View::open(self, tree)?;
        let Some((resolved, child)) = view.resolve(path, Follow::Yes)? else { return Ok(None) };
        let (Child::Other(layer), Some(found)) = (&child, view.describe(resolved, &child)?) else {
            return Err(SnapshotError::path(path, "is a directory; a file is wanted"));
        };
        match found.kind {
            FoundKind::File(size) if size <= bytes_max => {}
            FoundKind::File(_) => return Err(SnapshotError::path(path, "is too large to be read")),
            _ => return Err(SnapshotError::path(path, "is no regular file")),
        }
        let fd = view.open_in(*layer, &found.path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let mut content = Vec::new();
        let read = File::from(fd).take(bytes_max).read_to_end(&mut content);
        read.map_err(|e| SnapshotError::io("read", &lossy(path), e))?;
        Ok(Some(content))
    }

    /// Returns the direct content of the directory at `path` by name, in byte order; none when there
    /// is no such path.
    ///
    /// # Errors
    /// When it is no directory.
    pub fn list(&self, tree: &Tree, path: &[u8]) -> Result<Option<Vec<Found>>> {
        let view = View::open(self, tree)?;
        let dir = match view.resolve(path, Follow::Yes)? {
            None => return Ok(None),
            Some((_, Child::Dir(dir))) => dir,
            Some(_) => return Err(SnapshotError::path(path, "is no directory")),
        };
        let mut listed = Vec::new();
        for (name, child) in view.children(&dir)? {
            if let Some(found) = view.describe(join(&dir.path, &name), &child)? {
                listed.push(found);
            }
        }
        Ok(Some(listed))
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn reversed_components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|&b| b == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.rev().map(<[u8]>::to_vec).collect()
}

pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

fn lossy(path: &[u8]) -> std::path::PathBuf {
    String::from_utf8_lossy(path).into_owned().into()
}

fn layer_error(action: &'static str, path: &[u8], error: Errno) -> SnapshotError {
    SnapshotError::io(action, &lossy(path), error)
}
