//! Image layers: unpacked once, only when they are what they should be.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use ashlar_core::Digest;
use ashlar_layers::{Compression, KnownFiles, TarOptions};
use ashlar_snapshots::{ImportOptions, LayerId, LayerKind, SnapshotError, Tree};

use crate::support::{Fixture, put};

/// Makes a layer in `f` and returns its content identity, its diff_id and its gzipped tar.
fn blob(f: &Fixture, change: impl FnOnce(&Path)) -> (LayerId, LayerId, Vec<u8>) {
    let id = f.layer(&Tree::scratch(), change);
    let mut out = Vec::new();
    let options = TarOptions::default();
    let blob = f.store.write_blob(&id, Compression::GZIP, &options, &mut out).unwrap();
    assert_eq!(blob.digest, Digest::of(&out));
    (id, blob.diff_id, out)
}

fn change(root: &Path) {
    put(root, "etc/os-release", "NAME=test");
    put(root, "bin/tool", "#!");
    fs::hard_link(root.join("bin/tool"), root.join("bin/other")).unwrap();
}

#[test]
fn an_imported_layer_has_the_content_of_the_one_it_was_made_of() {
    let f = Fixture::new();
    let (id, diff_id, bytes) = blob(&f, change);
    let lease = f.store.import_layer(diff_id, bytes.as_slice(), &ImportOptions::default()).unwrap();
    let meta = f.store.layer(&diff_id).unwrap();
    assert_eq!((meta.kind, meta.diff_id), (LayerKind::Image, Some(diff_id)));
    let (made, imported) = (f.store.entries(&id).unwrap(), f.store.entries(&diff_id).unwrap());
    assert_eq!(made, imported);
    let mounted = f.store.mount(&Tree(vec![diff_id]), None).unwrap();
    let text = fs::read_to_string(mounted.path().join("etc/os-release")).unwrap();
    assert_eq!(text, "NAME=test");
    drop(lease);
}

#[test]
fn another_content_is_refused_and_leaves_nothing() {
    let f = Fixture::new();
    let (_, diff_id, bytes) = blob(&f, change);
    let expected = Digest::of("something else");
    let options = ImportOptions::default();
    let error = f.store.import_layer(expected, bytes.as_slice(), &options).unwrap_err();
    assert!(matches!(error, SnapshotError::WrongDiffId { actual, .. } if actual == diff_id));
    let cut = &bytes[..bytes.len() / 2];
    let error = f.store.import_layer(diff_id, cut, &options).unwrap_err();
    assert!(matches!(error, SnapshotError::Layer(_)), "{error}");
    assert!(!f.store.has(&expected) && !f.store.has(&diff_id));
    for folder in ["drafts", "imports"] {
        let left = fs::read_dir(f.store.root().join(folder)).unwrap().count();
        assert_eq!(left, 0, "{folder}");
    }
}

#[test]
fn many_that_want_a_layer_read_it_once() {
    struct Counted<'a>(&'a [u8], &'a AtomicUsize, bool);
    impl Read for Counted<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            if !std::mem::replace(&mut self.2, true) {
                self.1.fetch_add(1, Ordering::Relaxed);
            }
            self.0.read(into)
        }
    }
    let f = Fixture::new();
    let (_, diff_id, bytes) = blob(&f, change);
    let readers = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                // Locks are between open files, so another store stands for another process.
                let store = ashlar_snapshots::SnapshotStore::open(f.store.root()).unwrap();
                let source = Counted(&bytes, &readers, false);
                store.import_layer(diff_id, source, &ImportOptions::default()).unwrap();
            });
        }
    });
    assert_eq!(readers.load(Ordering::Relaxed), 1);
    assert_eq!(fs::read_dir(f.store.root().join("imports")).unwrap().count(), 0);
}

#[test]
fn what_is_learned_about_a_layer_is_kept() {
    let f = Fixture::new();
    let id = f.layer(&Tree::scratch(), change);
    let diff_id = Digest::of("tar");
    f.store.update(&id, |meta| meta.diff_id = Some(diff_id)).unwrap();
    assert_eq!(f.store.layer(&id).unwrap().diff_id, Some(diff_id));
    let missing = f.store.update(&diff_id, |_| ());
    assert!(matches!(missing, Err(SnapshotError::Missing(_))));
}

#[test]
fn a_layer_that_replaces_the_root_hides_all_below() {
    let f = Fixture::new();
    let below = f.layer(&Tree::scratch(), |root| put(root, "old", "x"));
    let draft = f.store.begin(&Tree::scratch()).unwrap();
    put(draft.upper(), "new", "x");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(draft.upper(), "trusted.overlay.opaque", b"y", flags).unwrap();
    let top = draft.commit(&KnownFiles::new()).unwrap();
    assert!(top.meta.opaque_root);
    let tree = Tree(vec![below, top.id]);
    let mounted = f.store.mount(&tree, None).unwrap();
    assert!(mounted.path().join("new").exists() && !mounted.path().join("old").exists());
    assert_eq!(f.store.list(&tree, b"/").unwrap().unwrap().len(), 1);
}

/// Imports a tar made by GNU tar of `members` only, so that their parents are not in it.
fn import_without_parents(f: &Fixture, change: impl FnOnce(&Path), members: &[&str]) -> LayerId {
    let dir = tempfile::tempdir().unwrap();
    change(dir.path());
    let tar = std::process::Command::new("tar")
        .arg("-C")
        .arg(dir.path())
        .arg("-cf")
        .arg("-")
        .args(members)
        .output()
        .expect("this test needs the package 'tar'");
    assert!(tar.status.success());
    let id = Digest::of(&tar.stdout);
    f.store.import_layer(id, tar.stdout.as_slice(), &ImportOptions::default()).unwrap();
    id
}

#[test]
fn undescribed_directories_look_as_below() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    let f = Fixture::new();
    let base = f.tree(&[&|root| {
        fs::create_dir_all(root.join("tmp/own")).unwrap();
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        std::os::unix::fs::chown(root.join("tmp/own"), Some(7), Some(8)).unwrap();
        put(root, "usr/bin/sh", "shell");
        symlink("usr/bin", root.join("bin")).unwrap();
    }]);
    let change = |root: &Path| {
        put(root, "tmp/own/file", "x");
        put(root, "bin/tool", "tool");
        put(root, "new/dir/file", "x");
        fs::hard_link(root.join("bin/tool"), root.join("new/link")).unwrap();
    };
    let members = ["tmp/own/file", "bin/tool", "new/dir/file", "new/link"];
    let tree = base.with(import_without_parents(&f, change, &members));
    let mounted = f.store.mount(&tree, None).unwrap();
    let root = mounted.path();
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(root.join("tmp/own")).unwrap().uid(), 7);
    assert!(fs::symlink_metadata(root.join("bin")).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(root.join("bin/sh")).unwrap(), "shell");
    assert_eq!(fs::read_to_string(root.join("usr/bin/tool")).unwrap(), "tool");
    assert_eq!(fs::metadata(root.join("new/dir")).unwrap().mode() & 0o7777, 0o755);
    let inode = |path: &str| fs::metadata(root.join(path)).unwrap().ino();
    assert_eq!(inode("bin/tool"), inode("new/link"));
    assert_eq!(f.store.read(&tree, b"bin/tool", 9).unwrap().unwrap(), b"tool");
    // The layer that stands for it is kept as long as the tree.
    let lease = f.store.hold(&tree).unwrap();
    let adapted = f.store.layers().unwrap();
    let adapted = adapted.iter().find(|meta| meta.kind == LayerKind::Adapted).unwrap().id;
    drop(mounted);
    assert_eq!(f.store.remove(&adapted).unwrap(), ashlar_snapshots::Removal::InUse);
    drop(lease);
    assert_eq!(f.store.remove(&adapted).unwrap(), ashlar_snapshots::Removal::Removed);
    let mounted = f.store.mount(&tree, None).unwrap();
    assert_eq!(fs::read_to_string(mounted.path().join("bin/tool")).unwrap(), "tool");
}
