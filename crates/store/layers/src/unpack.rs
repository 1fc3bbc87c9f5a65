//! Unpacks an archive below a directory, whatever the archive tries.
//!
//! Members never leave the root: parents are resolved by the kernel inside it (`openat2` with
//! `RESOLVE_IN_ROOT`), the last component is never followed, and what is in the way is removed
//! instead of being written through. Start at [`unpack_tar`]; `dirs` finds parents, `place` makes
//! nodes.

mod dirs;
mod place;

use std::io::BufRead;
use std::os::fd::BorrowedFd;

use crate::archive::{Archive, Kind, Member};
use crate::error::{LayerError, Result};
use crate::known::KnownFiles;
use crate::scan::{CONTENT_BYTES_MAX, PATH_BYTES_MAX};
use crate::stop::Stop;
use crate::write::{OPAQUE_NAME, WHITEOUT_PREFIX};

/// Names that AUFS kept its own data under; they mean nothing elsewhere.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// The most members of an archive.
const MEMBERS_MAX: u64 = 2_000_000;
/// The most directories above a member.
const DEPTH_MAX: usize = 512;
/// The longest name of a file, in bytes (Linux, `NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;

/// What the members of an archive mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnpackMode {
    /// An image layer: `.wh.` names become overlayfs whiteouts; the root starts out empty.
    Layer,
    /// An archive that a build adds: every name is itself, and the destination's own attributes
    /// stay as they are.
    Archive,
}

/// When an archive is too much.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most members.
    pub members: u64,
    /// The most bytes of file content, holes counted.
    pub content_bytes: u64,
    /// The longest path, below the root and with the destination.
    pub path_bytes: usize,
    /// The most components of a path.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            members: MEMBERS_MAX,
            content_bytes: CONTENT_BYTES_MAX,
            path_bytes: PATH_BYTES_MAX,
            depth: DEPTH_MAX,
        }
    }
}

/// How an archive is unpacked.
#[derive(Debug, Clone)]
pub struct UnpackOptions {
    /// What members mean.
    pub mode: UnpackMode,
    /// Where members go, relative to the root; symbolic links in it are resolved inside the root.
    pub dest: Vec<u8>,
    /// Gives everything to this user and group instead of those in the archive.
    pub owner: Option<(u32, u32)>,
    /// Whether device nodes are made; else an archive with one is refused.
    pub devices: bool,
    /// When to give up.
    pub limits: Limits,
    /// Ends the work early.
    pub stop: Stop,
}

impl UnpackOptions {
    /// For an image layer into an empty directory.
    pub fn layer() -> Self {
        Self {
            mode: UnpackMode::Layer,
            dest: Vec::new(),
            owner: None,
            devices: true,
            limits: Limits::default(),
            stop: Stop::default(),
        }
    }

    /// For an archive that a build adds at `dest`.
    pub fn archive(dest: impl Into<Vec<u8>>) -> Self {
        Self { mode: UnpackMode::Archive, dest: dest.into(), devices: false, ..Self::layer() }
    }
}

/// What was unpacked.
#[derive(Debug, Default)]
pub struct Unpacked {
    /// Content digests of the files, by path below the root.
    pub known: KnownFiles,
    /// Members of the archive, those included that left nothing behind.
    pub members: u64,
    /// Bytes of file content, holes counted.
    pub content_bytes: u64,
    /// Bytes of the uncompressed archive, up to its very end.
    pub archive_bytes: u64,
    /// Directories that no member describes and that were made for what is in them, mode 0755 and
    /// owner 0:0. On top of other layers they should look as they do there.
    pub implicit_dirs: Vec<Vec<u8>>,
}

/// Unpacks the uncompressed tar `input` below the directory `root`.
///
/// Reads `input` to its end also past the archive's end mark. Needs root for owners, devices and
/// whiteouts. On an error what was unpacked so far stays there.
///
/// # Errors
/// When the archive is malformed, cut, refused ([`LayerError::Refused`]) or beyond a limit, when
/// the file system fails, or `options.stop` was set.
pub fn unpack_tar(
    input: impl BufRead,
    root: BorrowedFd<'_>,
    options: &UnpackOptions,
) -> Result<Unpacked> {
    let dest = components(&options.dest)?;
    let mut unpacker = Unpacker {
        archive: Archive::new(input),
        dirs: dirs::Dirs::new(root, options.owner, options.mode),
        dest,
        options,
        done: Unpacked::default(),
        dir_times: Vec::new(),
    };
    while let Some(member) = unpacker.archive.next()? {
        options.stop.check()?;
        unpacker.done.members += 1;
        if unpacker.done.members > options.limits.members {
            let limit = options.limits.members;
            return Err(LayerError::limit("members of the archive", limit, &member.path));
        }
        unpacker.member(&member)?;
    }
    unpacker.finish()
}

struct Unpacker<'a, R> {
    archive: Archive<R>,
    dirs: dirs::Dirs<'a>,
    dest: Vec<u8>,
    options: &'a UnpackOptions,
    done: Unpacked,
    /// Set last, since every file made in a directory changes its time.
    dir_times: Vec<(Vec<u8>, i64)>,
}

/// What the name of a layer's member stands for.
enum Meaning<'a> {
    Node,
    Opaque,
    Whiteout(&'a [u8]),
    Nothing,
}

impl<R: BufRead> Unpacker<'_, R> {
    fn member(&mut self, member: &Member) -> Result<()> {
        let relative = components(&member.path)?;
        let path = crate::walk::join(&self.dest, &relative);
        let path = path.strip_suffix(b"/").unwrap_or(&path);
        self.check_path(path)?;
        if relative.is_empty() {
            return self.root(member, path);
        }
        let (parent, name) = crate::write::split(path);
        match self.meaning(&relative, name)? {
            Meaning::Node => self.node(member, path),
            Meaning::Opaque => self.dirs.make_opaque(parent),
            Meaning::Whiteout(hidden) => self.dirs.hide(parent, hidden),
            Meaning::Nothing => Ok(()),
        }
    }

    fn meaning<'n>(&self, relative: &[u8], name: &'n [u8]) -> Result<Meaning<'n>> {
        if self.options.mode == UnpackMode::Archive {
            return Ok(Meaning::Node);
        }
        let (parent, _) = crate::write::split(relative);
        if parent.starts_with(AUFS_PREFIX) {
            return Ok(Meaning::Nothing);
        }
        if parent.split(|&b| b == b'/').any(|part| part.starts_with(WHITEOUT_PREFIX)) {
            return Err(LayerError::refused(relative, "it is inside of a removed path"));
        }
        Ok(match name.strip_prefix(WHITEOUT_PREFIX) {
            _ if name == OPAQUE_NAME => Meaning::Opaque,
            _ if name.starts_with(AUFS_PREFIX) => Meaning::Nothing,
            Some(b"" | b"." | b"..") => {
                return Err(LayerError::refused(relative, "it removes no path of its own"));
            }
            Some(hidden) => Meaning::Whiteout(hidden),
            None => Meaning::Node,
        })
    }

    fn check_path(&self, path: &[u8]) -> Result<()> {
        let limits = &self.options.limits;
        if path.len() > limits.path_bytes {
            return Err(LayerError::limit("bytes of a path", limits.path_bytes as u64, path));
        }
        if path.split(|&b| b == b'/').count() > limits.depth {
            return Err(LayerError::limit("components of a path", limits.depth as u64, path));
        }
        if path.split(|&b| b == b'/').any(|part| part.len() > NAME_BYTES_MAX) {
            return Err(LayerError::limit("bytes of a name", NAME_BYTES_MAX as u64, path));
        }
        Ok(())
    }

    /// A layer's own `./` gives the root directory its attributes; an archive's says nothing about
    /// the directory that it is added to.
    fn root(&mut self, member: &Member, path: &[u8]) -> Result<()> {
        match (member.kind, self.options.mode) {
            (Kind::Directory, UnpackMode::Layer) => self.dirs.set_root(member),
            (Kind::Directory, UnpackMode::Archive) => self.dirs.open(path).map(|_| ()),
            _ => Err(LayerError::refused(&member.path, "only a directory can be the root")),
        }
    }

    fn finish(mut self) -> Result<Unpacked> {
        for (path, mtime) in self.dir_times.into_iter().rev() {
            self.dirs.set_dir_time(&path, mtime)?;
        }
        self.done.implicit_dirs = self.dirs.into_implicit();
        self.done.archive_bytes = self.archive.drain()?;
        Ok(self.done)
    }
}

/// Returns the path without leading, doubled and trailing slashes and `.`; `..` is refused.
fn components(path: &[u8]) -> Result<Vec<u8>> {
    let mut clean = Vec::with_capacity(path.len());
    for part in path.split(|&b| b == b'/').filter(|part| !matches!(*part, b"" | b".")) {
        if part == b".." {
            return Err(LayerError::refused(path, "a path must not contain '..'"));
        }
        if part.contains(&0) {
            return Err(LayerError::refused(path, "a path must not contain a NUL"));
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(part);
    }
    Ok(clean)
}
