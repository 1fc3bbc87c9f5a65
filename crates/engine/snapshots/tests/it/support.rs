//! Helpers of the store's tests.

use std::path::Path;

use ashlar_layers::KnownFiles;
use ashlar_snapshots::{LayerId, SnapshotStore, Tree};

/// A store in a directory of its own. Whiteouts and overlays need root.
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: SnapshotStore,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests mount overlays: run them as root"
        );
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    /// Makes a layer on top of `parent` by running `change` in the mounted tree.
    pub(crate) fn layer(&self, parent: &Tree, change: impl FnOnce(&Path)) -> LayerId {
        let draft = self.store.begin(parent).unwrap();
        let mounted = self.store.mount(parent, Some(&draft)).unwrap();
        change(&mounted.path());
        drop(mounted);
        draft.commit(&KnownFiles::new()).unwrap().id
    }

    /// Makes a tree out of one change after the other.
    pub(crate) fn tree(&self, changes: &[&dyn Fn(&Path)]) -> Tree {
        changes.iter().fold(Tree::scratch(), |tree, change| {
            let id = self.layer(&tree, change);
            tree.with(id)
        })
    }
}

/// Writes a file, making its parents.
pub(crate) fn put(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}
