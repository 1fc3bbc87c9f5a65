//! The sorted record of a layer: what its identity is made of, and what saves walking it again.

use std::ops::Range;

use ashlar_core::{Digest, Hasher};

use crate::entry::{Entry, Node, is_within, path_order};
use crate::error::{LayerError, Result};
use crate::varint::{Reader, put_bytes, put_number};

const MAGIC: &[u8] = b"ashlar-entries-1\n";
const IDENTITY_DOMAIN: &[u8] = b"ashlar-layer-1\n";
const DIGEST_BYTES: usize = 32;

/// All entries of one layer, sorted by [`path_order`], no path twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries(Vec<Entry>);

impl Entries {
    /// Sorts `entries`; of two with the same path the later one is kept.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| path_order(&a.path, &b.path));
        entries.dedup_by(|later, earlier| {
            let same = later.path == earlier.path;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Self(entries)
    }

    /// Returns the content identity: everything but modification times.
    pub fn identity(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(IDENTITY_DOMAIN);
        for entry in &self.0 {
            hasher.field(&entry.path);
            entry.hash_content(&mut hasher);
        }
        hasher.finish()
    }

    /// Returns the entry at `path`.
    pub fn find(&self, path: &[u8]) -> Option<&Entry> {
        let at = self.0.binary_search_by(|entry| path_order(&entry.path, path)).ok()?;
        Some(&self.0[at])
    }

    /// Returns the entry at `path`, or the one it is a hard link to.
    pub fn find_target(&self, path: &[u8]) -> Option<&Entry> {
        let entry = self.find(path)?;
        match &entry.node {
            Node::HardLink { target } => self.find(target),
            _ => Some(entry),
        }
    }

    /// Returns `dir` itself, if recorded, and everything below it.
    pub fn subtree(&self, dir: &[u8]) -> &[Entry] {
        &self.0[self.subtree_range(dir)]
    }

    fn subtree_range(&self, dir: &[u8]) -> Range<usize> {
        let start = self.0.partition_point(|e| path_order(&e.path, dir).is_lt());
        let len = self.0[start..].partition_point(|e| is_within(&e.path, dir));
        start..start + len
    }

    /// Returns all entries in order.
    pub fn as_slice(&self) -> &[Entry] {
        &self.0
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the compact record: it ends in a checksum of itself.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAGIC.len() + self.0.len() * 100);
        out.extend_from_slice(MAGIC);
        put_number(&mut out, self.0.len() as u64);
        let mut previous: &[u8] = b"";
        for entry in &self.0 {
            encode_entry(&mut out, entry, previous);
            previous = &entry.path;
        }
        let sum = Digest::of(&out);
        out.extend_from_slice(sum.as_bytes());
        out
    }

    /// Reads what [`Entries::encode`] wrote.
    ///
    /// # Errors
    /// [`LayerError::Record`] when the bytes are cut, changed or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let at = bytes.len().checked_sub(DIGEST_BYTES).ok_or(LayerError::Record("too short"))?;
        let (body, sum) = bytes.split_at(at);
        if Digest::of(body).as_bytes() != sum {
            return Err(LayerError::Record("its checksum differs"));
        }
        let body = body.strip_prefix(MAGIC).ok_or(LayerError::Record("unknown version"))?;
        let mut reader = Reader::new(body);
        let count = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
        let mut entries: Vec<Entry> = Vec::with_capacity(count.min(body.len()));
        for _ in 0..count {
            let previous = entries.last().map_or(&b""[..], |e| &e.path);
            let entry = decode_entry(&mut reader, previous)?;
            entries.push(entry);
        }
        Ok(Self(entries))
    }
}

fn encode_entry(out: &mut Vec<u8>, entry: &Entry, previous: &[u8]) {
    let shared = entry.path.iter().zip(previous).take_while(|(a, b)| a == b).count();
    put_number(out, shared as u64);
    put_bytes(out, &entry.path[shared..]);
    out.push(entry.node.tag());
    for number in [entry.mode, entry.uid, entry.gid] {
        put_number(out, u64::from(number));
    }
    out.extend_from_slice(&entry.mtime.to_le_bytes());
    match &entry.node {
        Node::File { size, content } => {
            put_number(out, *size);
            out.extend_from_slice(content.as_bytes());
        }
        Node::HardLink { target } | Node::Symlink { target } => put_bytes(out, target),
        Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
            put_number(out, u64::from(*major));
            put_number(out, u64::from(*minor));
        }
        Node::Directory { .. } | Node::Fifo | Node::Whiteout => {}
    }
    put_number(out, entry.xattrs.len() as u64);
    for (name, value) in &entry.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn decode_entry(reader: &mut Reader<'_>, previous: &[u8]) -> Result<Entry> {
    let shared = usize::try_from(reader.number()?).unwrap_or(usize::MAX);
    let shared = previous.get(..shared).ok_or(LayerError::Record("a path prefix is too long"))?;
    let path = [shared, reader.bytes()?].concat();
    let tag = reader.byte()?;
    let (mode, uid, gid) = (reader.small()?, reader.small()?, reader.small()?);
    let mtime = i64::from_le_bytes(reader.array()?);
    let node = match tag {
        1 => {
            let size = reader.number()?;
            Node::File { size, content: Digest::from_bytes(reader.array()?) }
        }
        2 => Node::HardLink { target: reader.bytes()?.to_vec() },
        3 => Node::Directory { opaque: false },
        4 => Node::Directory { opaque: true },
        5 => Node::Symlink { target: reader.bytes()?.to_vec() },
        6 => Node::CharDevice { major: reader.small()?, minor: reader.small()? },
        7 => Node::BlockDevice { major: reader.small()?, minor: reader.small()? },
        8 => Node::Fifo,
        9 => Node::Whiteout,
        _ => return Err(LayerError::Record("unknown kind of entry")),
    };
    let mut xattrs = Vec::new();
    for _ in 0..reader.number()? {
        xattrs.push((reader.bytes()?.to_vec(), reader.bytes()?.to_vec()));
    }
    Ok(Entry { path, node, mode, uid, gid, mtime, xattrs })
}
