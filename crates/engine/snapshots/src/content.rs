//! Content identities of paths in trees: what keys of `COPY --from` and of bind mounts are made of.

use std::sync::Arc;

use ashlar_core::{Digest, Hasher};
use ashlar_layers::{Entries, Entry, Node};

use crate::Tree;
use crate::error::{Result, SnapshotError};
use crate::merged::merge;
use crate::meta::replace_file;
use crate::store::SnapshotStore;
use crate::view::{Child, Follow, View};

/// Which part of a tree is meant.
#[derive(Clone)]
pub struct Selector<'a> {
    /// A path in the tree.
    pub path: &'a [u8],
    /// Whether a link at its end is followed.
    pub follow: Follow,
    /// What is left out of a directory.
    pub exclude: Option<Exclude<'a>>,
}

/// What is left out of a directory.
#[derive(Clone)]
pub struct Exclude<'a> {
    /// Names the rule: the same key must always mean the same rule.
    pub key: Digest,
    /// Whether a path, relative to the selected directory, is left out; the flag says that it is a
    /// directory. A directory that is left out does not take its content with it.
    pub matches: &'a dyn Fn(&[u8], bool) -> bool,
}

impl<'a> Selector<'a> {
    /// Selects all of `path`, with a link at its end followed.
    pub fn new(path: &'a [u8]) -> Self {
        Self { path, follow: Follow::Yes, exclude: None }
    }

    fn key(&self, tree: &Tree) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(b"ashlar-content-key-1\n").field(tree.digest().as_bytes());
        hasher.field(self.path).field([u8::from(self.follow == Follow::Yes)]);
        hasher.field(self.exclude.as_ref().map_or(&[][..], |e| e.key.as_bytes().as_slice()));
        hasher.finish()
    }
}

impl SnapshotStore {
    /// Returns the content identity of what `selector` selects: types, contents, modes, owners,
    /// attributes and names below it, but no times and not the selected path's own name.
    ///
    /// The same content has the same identity in whatever tree, layers or place it is. Remembered
    /// on disk. None when there is no such path.
    ///
    /// # Errors
    /// When a layer is missing or damaged.
    pub fn content_digest(&self, tree: &Tree, selector: &Selector<'_>) -> Result<Option<Digest>> {
        let memo = self.0.root.join("memo").join(selector.key(tree).hex());
        if let Ok(known) = std::fs::read_to_string(&memo)
            && let Ok(digest) = Digest::from_hex(&known)
        {
            return Ok(Some(digest));
        }
        let digest = self.compute(tree, selector)?;
        if let Some(digest) = digest {
            replace_file(&memo, digest.hex().as_bytes())?;
        }
        Ok(digest)
    }

    fn compute(&self, tree: &Tree, selector: &Selector<'_>) -> Result<Option<Digest>> {
        let view = View::open(self, tree)?;
        let Some((path, child)) = view.resolve(selector.path, selector.follow)? else {
            return Ok(None);
        };
        let mut positions = match &child {
            Child::Dir(dir) => dir.layers.clone(),
            Child::Other(layer) => vec![*layer],
        };
        positions.reverse();
        let load = |&at: &usize| Ok((at, self.entries(&view.ids[at])?));
        let layers: Vec<(usize, Arc<Entries>)> =
            positions.iter().map(load).collect::<Result<_>>()?;
        let entries_of = |position: usize| {
            layers.iter().find(|(at, _)| *at == position).map(|(_, entries)| entries)
        };
        let mut hasher = Hasher::new();
        hasher.update(b"ashlar-content-1\n");
        for (key, (entry, position)) in merge(&layers, &path) {
            let relative = key.0.get(path.len()..).unwrap_or_default();
            let relative = relative.strip_prefix(b"/").unwrap_or(relative);
            let is_dir = entry.node.is_dir();
            let excluded = |e: &Exclude<'_>| !relative.is_empty() && (e.matches)(relative, is_dir);
            if selector.exclude.as_ref().is_some_and(excluded) {
                continue;
            }
            let reason = "a hard link has no target";
            let damaged = || SnapshotError::Damaged { id: view.ids[position], reason };
            let entries = entries_of(position).ok_or_else(damaged)?;
            let inode = entries.find_target(&entry.path).ok_or_else(damaged)?;
            hasher.field(relative);
            plain(inode).hash_content(&mut hasher);
        }
        Ok(Some(hasher.finish()))
    }

    /// Forgets content digests that were computed longer ago than `age`.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn prune_memo(&self, age: std::time::Duration) -> Result<()> {
        let dir = self.0.root.join("memo");
        for name in crate::store::list_names(&dir)? {
            let path = dir.join(name);
            let modified = std::fs::metadata(&path).and_then(|memo| memo.modified());
            let is_old = modified.is_ok_and(|time| time.elapsed().is_ok_and(|past| past > age));
            if is_old {
                // Someone else may have removed it.
                let _ = std::fs::remove_file(&path);
            }
        }
        Ok(())
    }
}

/// Whether a directory is opaque says how the tree is stored, not what it is.
fn plain(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    if entry.node.is_dir() {
        entry.node = Node::Directory { opaque: false };
    }
    entry
}
