//! One path of a layer, and the order of paths.

use std::cmp::Ordering;

use ashlar_core::{Digest, Hasher};

/// Extended attributes by name, sorted.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the layer's root, no leading or trailing slash; empty for the root itself.
    pub path: Vec<u8>,
    /// What is there.
    pub node: Node,
    /// Permission bits with setuid, setgid and sticky (`07777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, whole seconds since 1970. Not part of a layer's identity.
    pub mtime: i64,
    /// `security.capability` and `user.*`, sorted by name.
    pub xattrs: Xattrs,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File {
        /// Logical length in bytes.
        size: u64,
        /// SHA-256 of the content.
        content: Digest,
    },
    /// Another name of an earlier entry of the same layer (which is never a link itself).
    HardLink {
        /// Path of that entry.
        target: Vec<u8>,
    },
    /// A directory.
    Directory {
        /// Hides everything that the layers below have under this path.
        opaque: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Its text.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// Hides the same path of the layers below.
    Whiteout,
}

impl Node {
    /// Whether this is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }

    /// A stable number of the kind, used in records and identities.
    pub(crate) fn tag(&self) -> u8 {
        match self {
            Self::File { .. } => 1,
            Self::HardLink { .. } => 2,
            Self::Directory { opaque: false } => 3,
            Self::Directory { opaque: true } => 4,
            Self::Symlink { .. } => 5,
            Self::CharDevice { .. } => 6,
            Self::BlockDevice { .. } => 7,
            Self::Fifo => 8,
            Self::Whiteout => 9,
        }
    }
}

impl Entry {
    /// Adds everything that counts for a content identity: all but the path and the mtime.
    pub fn hash_content(&self, hasher: &mut Hasher) {
        hasher.update([self.node.tag()]);
        if self.node == Node::Whiteout {
            return;
        }
        for number in [self.mode, self.uid, self.gid] {
            hasher.update(number.to_le_bytes());
        }
        match &self.node {
            Node::File { size, content } => {
                hasher.update(size.to_le_bytes()).update(content.as_bytes());
            }
            Node::HardLink { target } | Node::Symlink { target } => {
                hasher.field(target);
            }
            Node::CharDevice { major, minor } | Node::BlockDevice { major, minor } => {
                hasher.update(major.to_le_bytes()).update(minor.to_le_bytes());
            }
            Node::Directory { .. } | Node::Fifo | Node::Whiteout => {}
        }
        hasher.update((self.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &self.xattrs {
            hasher.field(name).field(value);
        }
    }
}

/// Orders paths so that a directory comes before its content and its content is contiguous: byte
/// order, with the slash before every other byte.
pub fn path_order(a: &[u8], b: &[u8]) -> Ordering {
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let rank = |path: &[u8]| path.get(same).map(|&byte| if byte == b'/' { 0 } else { byte });
    rank(a).cmp(&rank(b))
}

/// Whether `path` is `dir` or below it.
pub fn is_within(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_keeps_subtrees_together() {
        let mut paths: Vec<&[u8]> = vec![b"a-b", b"a/b", b"", b"a", b"a.", b"a/b/c", b"b"];
        paths.sort_by(|a, b| path_order(a, b));
        assert_eq!(paths, [&b""[..], b"a", b"a/b", b"a/b/c", b"a-b", b"a.", b"b"]);
    }

    #[test]
    fn within_wants_whole_components() {
        assert!(is_within(b"a/b", b"a") && is_within(b"a", b"a") && is_within(b"x", b""));
        assert!(!is_within(b"ab", b"a"));
    }
}
