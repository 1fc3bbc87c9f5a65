//! Turns an overlay upper directory into [`Entries`]: one parallel walk, then file contents.
//!
//! Nothing may change the directory meanwhile. All the same nothing is followed: directories are
//! opened beneath the root with no symbolic link on the way.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use ashlar_core::Digest;

use crate::entries::Entries;
use crate::entry::{Entry, Node, path_order};
use crate::error::{LayerError, Result};
use crate::hash;
use crate::known::KnownFiles;
use crate::stop::Stop;
use crate::walk::{self, Found};

/// Threads that walk and hash: more do not help, since running steps want the cores.
pub(crate) const SCAN_THREADS: usize = 2;

/// The most paths that a layer may have.
pub const ENTRIES_MAX: u64 = 8_000_000;

/// The longest path in a layer: what every consumer can still pass to the kernel (`PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4095;

/// The most bytes of content that a layer may have, holes counted: a sparse file is stored in full.
pub const CONTENT_BYTES_MAX: u64 = 256 << 30;

/// Limits and helpers of a scan.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// The most paths.
    pub entries_max: u64,
    /// The most bytes of content, holes counted.
    pub content_bytes_max: u64,
    /// Ends the scan early.
    pub stop: Stop,
}

impl Default for ScanOptions {
    fn default() -> Self {
        let (entries_max, content_bytes_max) = (ENTRIES_MAX, CONTENT_BYTES_MAX);
        Self { entries_max, content_bytes_max, stop: Stop::default() }
    }
}

/// What a scan found.
#[derive(Debug)]
pub struct Scan {
    /// The record of the layer.
    pub entries: Entries,
    /// What the layer occupies, in bytes of real disk blocks, each inode once.
    pub disk_bytes: u64,
    /// Logical bytes of all files, each inode once.
    pub content_bytes: u64,
    /// Files whose content had to be read.
    pub files_read: u64,
}

/// Reads the overlay upper directory `root`.
///
/// Two paths with one inode inside the layer become a hard link; links to files outside of it don't
/// count. Sockets are left out. The root directory has an entry only when it differs from mode 0755
/// and owner 0:0.
///
/// # Errors
/// When a limit is passed, a file cannot be read, or `options.stop` was set.
pub fn scan(root: BorrowedFd<'_>, known: &KnownFiles, options: &ScanOptions) -> Result<Scan> {
    let mut found = walk::walk(root, options)?;
    found.sort_unstable_by(|a, b| path_order(&a.entry.path, &b.entry.path));
    let (disk_bytes, content_bytes) = link_and_measure(&mut found, options)?;
    let files_read = fill_contents(root, &mut found, known, options)?;
    let entries = Entries::new(found.into_iter().map(|f| f.entry).collect());
    Ok(Scan { entries, disk_bytes, content_bytes, files_read })
}

/// Makes later names of an inode hard links to its first, and adds up sizes.
fn link_and_measure(found: &mut [Found], options: &ScanOptions) -> Result<(u64, u64)> {
    let mut first_names: HashMap<u64, Vec<u8>> = HashMap::new();
    let (mut disk, mut content) = (0_u64, 0_u64);
    for Found { entry, inode, links, blocks } in found {
        if *links > 1 && !entry.node.is_dir() && entry.node != Node::Whiteout {
            if let Some(target) = first_names.get(inode) {
                entry.node = Node::HardLink { target: target.clone() };
                continue;
            }
            first_names.insert(*inode, entry.path.clone());
        }
        disk += *blocks * 512;
        if let Node::File { size, .. } = entry.node {
            content = content.saturating_add(size);
            if content > options.content_bytes_max {
                let limit = options.content_bytes_max;
                return Err(LayerError::limit("content bytes", limit, &entry.path));
            }
        }
    }
    Ok((disk, content))
}

fn fill_contents(
    root: BorrowedFd<'_>,
    found: &mut [Found],
    known: &KnownFiles,
    options: &ScanOptions,
) -> Result<u64> {
    // A known digest may belong to any name of a linked inode.
    let mut by_target: HashMap<&[u8], Digest> = HashMap::new();
    for Found { entry, .. } in found.iter() {
        if let (Node::HardLink { target }, Some(digest)) = (&entry.node, known.get(&entry.path)) {
            by_target.insert(target, digest);
        }
    }
    let by_target: HashMap<Vec<u8>, Digest> =
        by_target.into_iter().map(|(path, digest)| (path.to_vec(), digest)).collect();
    let mut unknown = Vec::new();
    for (at, Found { entry, .. }) in found.iter_mut().enumerate() {
        let Node::File { size, content } = &mut entry.node else { continue };
        let digest = known.get(&entry.path).or_else(|| by_target.get(&entry.path).copied());
        match digest {
            Some(digest) => *content = digest,
            None => unknown.push((at, *size)),
        }
    }
    let digests = hash::hash_files(root, found, &unknown, &options.stop)?;
    for (at, digest) in digests {
        if let Node::File { content, .. } = &mut found[at].entry.node {
            *content = digest;
        }
    }
    Ok(unknown.len() as u64)
}

/// Makes the entry of the root directory unless it is the usual one.
pub(crate) fn is_plain_root(entry: &Entry) -> bool {
    entry.node == Node::Directory { opaque: false }
        && (entry.mode, entry.uid, entry.gid) == (0o755, 0, 0)
        && entry.xattrs.is_empty()
}
