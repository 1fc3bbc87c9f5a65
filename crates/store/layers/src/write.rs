//! Writes a layer as a tar: the same entries give the same bytes.
//!
//! POSIX ustar headers, PAX records only where ustar cannot say it, members in the order of
//! [`path_order`](crate::path_order), no user or group names, whole seconds. Whiteouts take the form
//! of the OCI image spec ("Whiteouts").

use std::borrow::Cow;
use std::io::{Read as _, Write};
use std::os::fd::BorrowedFd;

use crate::entries::Entries;
use crate::entry::{Entry, Node};
use crate::error::{LayerError, Result, lossy};
use crate::hash::{changed, open_file};
use crate::header::{
    BLOCK, DEV_MAJOR, DEV_MINOR, Field, GID, Header, LINK, MODE, MTIME, NAME, PREFIX, SIZE, UID,
    padding,
};
use crate::pax::put_record;
use crate::stop::Stop;

/// Prefix of a file that stands for a removed one (OCI image spec, "Whiteouts").
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// File that stands for "nothing of the layers below" ("Opaque Whiteout").
pub(crate) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

const PAX_NAME: &[u8] = b"PaxHeaders.0/entry";
const READ_BYTES: usize = 256 * 1024;

/// How a tar is written.
#[derive(Debug, Clone, Default)]
pub struct TarOptions {
    /// Later modification times become this one (`SOURCE_DATE_EPOCH`), in seconds since 1970.
    pub source_date_epoch: Option<i64>,
    /// Ends the writing early.
    pub stop: Stop,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TarStats {
    /// Members, PAX headers not counted.
    pub members: u64,
    /// Bytes of the whole archive.
    pub bytes: u64,
}

/// Writes the layer `entries`, whose files are below `root`.
///
/// # Errors
/// When a file cannot be read or has another size than recorded, a name cannot be stored (it begins
/// with `.wh.`), `out` fails, or `options.stop` was set.
pub fn write_tar(
    entries: &Entries,
    root: BorrowedFd<'_>,
    out: &mut impl Write,
    options: &TarOptions,
) -> Result<TarStats> {
    let stats = TarStats::default();
    let mut writer = Writer { root, out, options, stats, buffer: Vec::new() };
    for entry in entries.as_slice() {
        options.stop.check()?;
        writer.write_entry(entries, entry)?;
    }
    writer.put(&[0; 2 * BLOCK])?;
    Ok(writer.stats)
}

struct Writer<'a, W> {
    root: BorrowedFd<'a>,
    out: &'a mut W,
    options: &'a TarOptions,
    stats: TarStats,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<'_, W> {
    fn write_entry(&mut self, entries: &Entries, entry: &Entry) -> Result<()> {
        let (dir, name) = split(&entry.path);
        if name.starts_with(WHITEOUT_PREFIX) {
            let reason = "names that begin with .wh. mark removed files there";
            return Err(LayerError::Unrepresentable { path: lossy(&entry.path), reason });
        }
        match &entry.node {
            Node::Whiteout => self.write_marker(dir, &[WHITEOUT_PREFIX, name].concat()),
            Node::Directory { opaque } => {
                self.write_headers(entry, entry)?;
                if *opaque { self.write_marker(&entry.path, OPAQUE_NAME) } else { Ok(()) }
            }
            Node::HardLink { target } => {
                let error = LayerError::Record("a hard link has no target");
                let inode = entries.find(target).ok_or(error)?;
                self.write_headers(entry, inode)
            }
            Node::File { size, .. } => {
                self.write_headers(entry, entry)?;
                self.write_content(entry, *size)
            }
            _ => self.write_headers(entry, entry),
        }
    }

    /// Writes an empty file; its time is fixed since nobody reads it.
    fn write_marker(&mut self, dir: &[u8], name: &[u8]) -> Result<()> {
        let path = crate::walk::join(dir, name);
        let content = ashlar_core::Digest::from_bytes([0; 32]);
        let node = Node::File { size: 0, content };
        let marker = Entry { path, node, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() };
        self.write_headers(&marker, &marker)
    }

    /// Writes the header of `entry` with the metadata of `inode`, after a PAX header if needed.
    fn write_headers(&mut self, entry: &Entry, inode: &Entry) -> Result<()> {
        self.stats.members += 1;
        let mut pax = Vec::new();
        let mut header = Header::new(type_flag(&entry.node));
        let size = match entry.node {
            Node::File { size, .. } => size.cast_signed(),
            _ => 0,
        };
        let epoch = self.options.source_date_epoch;
        let mtime = epoch.map_or(inode.mtime, |epoch| inode.mtime.min(epoch));
        put_path(&mut header, &mut pax, &member_name(entry));
        if let Node::HardLink { target } | Node::Symlink { target } = &entry.node {
            put_link(&mut header, &mut pax, target);
        }
        header.set_number(MODE, i64::from(inode.mode));
        let mut number = |field: Field, key: &[u8], value: i64| {
            if !header.set_number(field, value) {
                put_record(&mut pax, key, value.to_string().as_bytes());
            }
        };
        number(UID, b"uid", i64::from(inode.uid));
        number(GID, b"gid", i64::from(inode.gid));
        number(SIZE, b"size", size);
        number(MTIME, b"mtime", mtime);
        if let Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } = entry.node {
            header.set_number(DEV_MAJOR, i64::from(major));
            header.set_number(DEV_MINOR, i64::from(minor));
        }
        if !matches!(entry.node, Node::HardLink { .. }) {
            for (name, value) in &inode.xattrs {
                put_record(&mut pax, &[b"SCHILY.xattr.", &name[..]].concat(), value);
            }
        }
        self.put_pax(&pax)?;
        header.seal();
        self.put(&header.0)
    }

    fn put_pax(&mut self, pax: &[u8]) -> Result<()> {
        if pax.is_empty() {
            return Ok(());
        }
        let mut header = Header::new(b'x');
        header.set_text(NAME, PAX_NAME);
        for field in [MODE, UID, GID, MTIME] {
            header.set_number(field, 0);
        }
        header.set_number(SIZE, (pax.len() as u64).cast_signed());
        header.seal();
        self.put(&header.0)?;
        self.put(pax)?;
        self.pad(pax.len() as u64)
    }

    fn write_content(&mut self, entry: &Entry, size: u64) -> Result<()> {
        if size == 0 {
            return Ok(());
        }
        let mut file = open_file(self.root, &entry.path)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_BYTES, 0);
        let mut left = size;
        while left > 0 {
            self.options.stop.check()?;
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let got = file.read(&mut buffer[..want]);
            let got = got.map_err(|e| LayerError::io("read", &entry.path, e))?;
            if got == 0 {
                return Err(changed(&entry.path));
            }
            self.put(&buffer[..got])?;
            left -= got as u64;
        }
        self.buffer = buffer;
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        self.put(&[0; BLOCK][..padding(size)])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.stats.bytes += bytes.len() as u64;
        let written = self.out.write_all(bytes);
        written.map_err(|source| LayerError::Stream { action: "write", source })
    }
}

/// Splits a path into its directory and its last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn member_name(entry: &Entry) -> Cow<'_, [u8]> {
    match (&entry.node, entry.path.as_slice()) {
        (_, b"") => Cow::Borrowed(b"./"),
        (Node::Directory { .. }, path) => Cow::Owned([path, b"/"].concat()),
        (_, path) => Cow::Borrowed(path),
    }
}

fn type_flag(node: &Node) -> u8 {
    match node {
        Node::File { .. } | Node::Whiteout => b'0',
        Node::HardLink { .. } => b'1',
        Node::Symlink { .. } => b'2',
        Node::CharDevice { .. } => b'3',
        Node::BlockDevice { .. } => b'4',
        Node::Directory { .. } => b'5',
        Node::Fifo => b'6',
    }
}

/// Puts the name into the header, split at a slash if that helps, else into a PAX record too.
fn put_path(header: &mut Header, pax: &mut Vec<u8>, path: &[u8]) {
    if path.is_ascii() && path.len() <= NAME.len() {
        return header.set_text(NAME, path);
    }
    if path.is_ascii()
        && let Some((prefix, name)) = split_for_prefix(path)
    {
        header.set_text(PREFIX, prefix);
        return header.set_text(NAME, name);
    }
    put_record(pax, b"path", path);
    header.set_text(NAME, &path[..path.len().min(NAME.len())]);
}

fn split_for_prefix(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let longest = path.len().min(PREFIX.len() + 1);
    let at = path[..longest].iter().rposition(|&b| b == b'/')?;
    let (prefix, name) = (&path[..at], &path[at + 1..]);
    (!prefix.is_empty() && !name.is_empty() && name.len() <= NAME.len()).then_some((prefix, name))
}

fn put_link(header: &mut Header, pax: &mut Vec<u8>, target: &[u8]) {
    if !target.is_ascii() || target.len() > LINK.len() {
        put_record(pax, b"linkpath", target);
    }
    header.set_text(LINK, &target[..target.len().min(LINK.len())]);
}
