//! Which directories really stand for a tree: fewer layers, and image layers adapted to those below.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;

use ashlar_core::Hasher;
use ashlar_layers::{Entry, KnownFiles, Node, is_within};

use crate::draft::{CommitOptions, Identity};
use crate::error::{Result, SnapshotError};
use crate::meta::{LayerKind, replace_file};
use crate::mount::LOWERS_MAX;
use crate::squash::{place, set_time, shown_path};
use crate::store::SnapshotStore;
use crate::view::{Follow, FoundKind};
use crate::{LayerId, Tree};

/// What the making of mounts must know of a layer; never changes.
pub(crate) struct Facts {
    pub(crate) is_empty: bool,
    pub(crate) opaque_root: bool,
    pub(crate) implicit_dirs: Vec<Vec<u8>>,
}

impl SnapshotStore {
    /// Returns the layers that an overlay of `tree` is made of, the bottom one first.
    pub(crate) fn physical(&self, tree: &Tree) -> Result<Tree> {
        let tree = self.visible(tree)?;
        if tree.0.len() > LOWERS_MAX { self.squash(&tree) } else { Ok(tree) }
    }

    /// Leaves out layers that change nothing, those hidden by a layer that replaces the root, and all
    /// but the topmost of a layer that occurs several times: that one shows and hides at the same
    /// paths all that the lower ones do, and overlayfs takes no directory twice. Adapts the others.
    pub(crate) fn visible(&self, tree: &Tree) -> Result<Tree> {
        let mut kept = Vec::with_capacity(tree.0.len());
        let mut seen = HashSet::with_capacity(tree.0.len());
        for id in tree.0.iter().rev() {
            let facts = self.facts(id)?;
            let hides_all = facts.opaque_root;
            if !facts.is_empty && seen.insert(*id) {
                kept.push((*id, facts));
            }
            if hides_all {
                break;
            }
        }
        let mut visible = Tree::scratch();
        for (id, facts) in kept.into_iter().rev() {
            let id = match visible.is_scratch() || facts.implicit_dirs.is_empty() {
                true => id,
                false => self.adapt(&visible, id, &facts)?,
            };
            visible.0.push(id);
        }
        Ok(visible)
    }

    /// Returns the layer `id` as it looks on top of `below`: a directory that its archive does not
    /// describe has the attributes of the one below, and where a link is there, its content goes to
    /// where that leads, as it does when an image is unpacked layer on layer.
    fn adapt(&self, below: &Tree, id: LayerId, facts: &Arc<Facts>) -> Result<LayerId> {
        let mut hasher = Hasher::new();
        hasher.update(b"ashlar-adapt-1\n").update(below.digest().as_bytes());
        let adapted = hasher.update(id.as_bytes()).clone().finish();
        let memo = self.0.root.join("memo").join(adapted.hex());
        if self.has(&adapted) {
            return Ok(adapted);
        }
        if memo.exists() {
            return Ok(id);
        }
        let changes = self.changes(below, facts)?;
        if changes.is_empty() {
            // Remembered, since finding out takes a look at every such directory.
            replace_file(&memo, b"")?;
            return Ok(id);
        }
        self.write_adapted(id, adapted, &changes)?;
        Ok(adapted)
    }

    fn changes(&self, below: &Tree, facts: &Facts) -> Result<Vec<Change>> {
        let mut changes: Vec<Change> = Vec::new();
        for from in &facts.implicit_dirs {
            let to = moved(&changes, from);
            let Some(link) = self.lookup(below, &to, Follow::No)? else { continue };
            let found = match link.kind {
                FoundKind::Symlink(_) => self.lookup(below, &to, Follow::Yes)?,
                _ => Some(link),
            };
            let Some(found) = found.filter(|f| f.kind == FoundKind::Directory) else { continue };
            if found.path == *from && (found.mode, found.uid, found.gid) == (0o755, 0, 0) {
                continue;
            }
            // The way to where a link leads must look as it does below, too.
            for end in found.path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at)
            {
                let parent = &found.path[..end];
                if !is_within(from, parent)
                    && let Some(dir) = self.lookup(below, parent, Follow::No)?
                {
                    changes.push(Change::new(parent.to_vec(), &dir));
                }
            }
            changes.push(Change::new(from.clone(), &found));
        }
        Ok(changes)
    }

    fn write_adapted(&self, id: LayerId, adapted: LayerId, changes: &[Change]) -> Result<()> {
        let entries = self.entries(&id)?;
        let path = self.layer_fs(&id);
        let from = File::open(&path).map_err(|e| SnapshotError::io("open", &path, e))?;
        let draft = self.begin(&Tree(vec![id]))?;
        let upper = File::open(draft.upper());
        let upper = upper.map_err(|e| SnapshotError::io("open", draft.upper(), e))?;
        let mut placed: Vec<(Vec<u8>, Entry)> = changes.iter().map(Change::entry).collect();
        for entry in entries.as_slice() {
            let source = entry.path.clone();
            if !changes.iter().any(|change| change.from == source) {
                let path = moved(changes, &source);
                placed.push((source, Entry { path, ..entry.clone() }));
            }
        }
        placed.sort_by(|a, b| ashlar_layers::path_order(&a.1.path, &b.1.path));
        // Of two directories that meet, one is enough: the one that a change made comes first.
        placed.dedup_by(|later, first| later.1.path == first.1.path && later.1.node.is_dir());
        let mut known = KnownFiles::new();
        for (source, entry) in &placed {
            if let Node::File { content, .. } = entry.node {
                known.insert(&entry.path, content);
            }
            place(&upper, &from, source, entry)
                .map_err(|e| SnapshotError::io("adapt", &shown_path(&entry.path), e))?;
        }
        for (_, entry) in placed.iter().rev().filter(|(_, entry)| entry.node.is_dir()) {
            set_time(&upper, entry)
                .map_err(|e| SnapshotError::io("adapt", &shown_path(&entry.path), e))?;
        }
        let options = CommitOptions { origin: id.to_string(), ..CommitOptions::default() };
        let identity = Identity::named(LayerKind::Adapted, adapted);
        draft.commit_as(identity, &known, &options).map(drop)
    }
}

/// A directory that must look other than the layer's archive left it.
struct Change {
    from: Vec<u8>,
    to: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
}

impl Change {
    fn new(from: Vec<u8>, found: &crate::view::Found) -> Self {
        let (mode, owner, mtime) = (found.mode, (found.uid, found.gid), found.mtime);
        Self { from, to: found.path.clone(), mode, owner, mtime }
    }

    fn entry(&self) -> (Vec<u8>, Entry) {
        let (path, node) = (self.to.clone(), Node::Directory { opaque: false });
        let (uid, gid) = self.owner;
        let (mode, mtime, xattrs) = (self.mode, self.mtime, Vec::new());
        (self.from.clone(), Entry { path, node, mode, uid, gid, mtime, xattrs })
    }
}

/// Returns where the changes so far put `path`.
fn moved(changes: &[Change], path: &[u8]) -> Vec<u8> {
    let longest = changes.iter().filter(|change| is_within(path, &change.from));
    match longest.max_by_key(|change| change.from.len()) {
        Some(change) => [&change.to, &path[change.from.len()..]].concat(),
        None => path.to_vec(),
    }
}
