//! Several layers' records as the one tree that their overlay shows.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use ashlar_layers::{Entries, Entry, Node, is_within, path_order};

/// A path in the order in which a directory's content follows it.
#[derive(PartialEq, Eq)]
pub(crate) struct PathKey<'a>(pub(crate) &'a [u8]);

impl Ord for PathKey<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        path_order(self.0, other.0)
    }
}

impl PartialOrd for PathKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Visible entries by path, each with the position of its layer.
pub(crate) type Merged<'a> = BTreeMap<PathKey<'a>, (&'a Entry, usize)>;

/// Merges what the layers, the bottom one first, have at `top` and below.
pub(crate) fn merge<'a>(layers: &'a [(usize, Arc<Entries>)], top: &[u8]) -> Merged<'a> {
    let mut merged = Merged::new();
    for (position, entries) in layers {
        for entry in entries.subtree(top) {
            add(&mut merged, entry, *position);
        }
    }
    merged
}

fn add<'a>(merged: &mut Merged<'a>, entry: &'a Entry, position: usize) {
    let key = || PathKey(entry.path.as_slice());
    let hides = match entry.node {
        Node::Directory { opaque } => {
            opaque || merged.get(&key()).is_some_and(|(below, _)| !below.node.is_dir())
        }
        _ => true,
    };
    if hides {
        remove_subtree(merged, &entry.path);
    }
    if entry.node != Node::Whiteout {
        // The key must be the new entry's own: it lives as long.
        merged.remove(&key());
        merged.insert(key(), (entry, position));
    }
}

fn remove_subtree<'a>(merged: &mut Merged<'a>, top: &'a [u8]) {
    loop {
        let from = (Bound::Included(PathKey(top)), Bound::Unbounded);
        let next = merged.range(from).next().map(|(path, _)| path.0);
        match next {
            Some(path) if is_within(path, top) => merged.remove(&PathKey(path)),
            _ => return,
        };
    }
}
