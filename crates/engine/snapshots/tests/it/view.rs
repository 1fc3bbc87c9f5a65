//! Looking into trees without mounting them gives what a mount shows.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use ashlar_core::Digest;
use ashlar_layers::KnownFiles;
use ashlar_snapshots::{
    Exclude, Follow, Found, FoundKind, Selector, SnapshotError, SnapshotStore, Tree,
};
use proptest::prelude::*;

use crate::support::{Fixture, put};

fn sample(f: &Fixture) -> Tree {
    f.tree(&[
        &|root| {
            put(root, "usr/bin/sh", "elf");
            put(root, "usr/lib/a", "a");
            put(root, "etc/passwd", "root:x:0:0");
            symlink("usr/bin", root.join("bin")).unwrap();
            symlink("/etc/../../../etc/passwd", root.join("usr/passwd")).unwrap();
            symlink("loop", root.join("loop")).unwrap();
        },
        &|root| {
            fs::remove_file(root.join("usr/lib/a")).unwrap();
            put(root, "usr/lib/b", "b");
            put(root, "etc/group", "root");
        },
    ])
}

#[test]
fn paths_resolve_inside_the_tree() {
    let f = Fixture::new();
    let tree = sample(&f);
    let read = |path: &str| f.store.read(&tree, path.as_bytes(), 100).unwrap();
    assert_eq!(read("/bin/sh").unwrap(), b"elf");
    assert_eq!(read("usr/passwd").unwrap(), b"root:x:0:0");
    assert_eq!(read("../../etc/group").unwrap(), b"root");
    assert_eq!(read("usr/lib/a"), None);
    assert_eq!(read("etc/passwd/x"), None);
    let found = |path: &str, follow| f.store.lookup(&tree, path.as_bytes(), follow).unwrap();
    assert_eq!(found("bin", Follow::No).unwrap().kind, FoundKind::Symlink(b"usr/bin".to_vec()));
    let bin = found("bin", Follow::Yes).unwrap();
    assert_eq!((bin.path.as_slice(), bin.kind), (&b"usr/bin"[..], FoundKind::Directory));
    assert_eq!(found("bin/sh", Follow::No).unwrap().layer, Some(tree.0[0]));
    assert_eq!(found("", Follow::Yes).unwrap().kind, FoundKind::Directory);
    assert!(f.store.lookup(&Tree::scratch(), b"/", Follow::Yes).unwrap().is_some());
    let refused = |path: &[u8], max| f.store.read(&tree, path, max).unwrap_err().to_string();
    assert!(refused(b"loop", 9).contains("too many symbolic links"));
    assert!(refused(b"etc", 9).contains("is a directory"));
    assert!(refused(b"etc/passwd", 9).contains("too large"));
    let names = f.store.list(&tree, b"usr/lib").unwrap().unwrap();
    assert_eq!(names.iter().map(Found::name).collect::<Vec<_>>(), [b"b"]);
    assert_eq!(f.store.list(&tree, b"nothing").unwrap(), None);
    let missing = Tree(vec![Digest::of("x")]);
    let error = f.store.lookup(&missing, b"a", Follow::Yes).unwrap_err();
    assert!(matches!(error, SnapshotError::Missing(_)));
}

#[test]
fn the_same_content_has_the_same_digest_however_it_came_about() {
    let f = Fixture::new();
    let digest = |tree: &Tree, path: &str| {
        f.store.content_digest(tree, &Selector::new(path.as_bytes())).unwrap()
    };
    let tree = sample(&f);
    let flat = f.tree(&[&|root| {
        put(root, "else/where/b", "b");
        fs::create_dir(root.join("bin")).unwrap();
        put(root, "bin/sh", "elf");
        fs::hard_link(root.join("bin/sh"), root.join("a-name-before-it")).unwrap();
    }]);
    assert_eq!(digest(&tree, "/usr/lib"), digest(&flat, "else/where"));
    assert_eq!(digest(&tree, "bin"), digest(&flat, "bin"));
    assert_eq!(digest(&tree, "bin/sh"), digest(&flat, "a-name-before-it"));
    assert_ne!(digest(&tree, "usr/lib"), digest(&flat, "else"));
    assert_eq!(digest(&tree, "nothing"), None);
    let changed = tree.with(f.layer(&tree, |root| put(root, "usr/lib/b", "B")));
    assert_ne!(digest(&changed, "usr/lib"), digest(&tree, "usr/lib"));
    assert_eq!(digest(&changed, "etc"), digest(&tree, "etc"));
    let mode = fs::Permissions::from_mode(0o600);
    let chmod = |root: &Path| fs::set_permissions(root.join("usr/lib/b"), mode.clone()).unwrap();
    let changed = tree.with(f.layer(&tree, chmod));
    assert_ne!(digest(&changed, "usr/lib"), digest(&tree, "usr/lib"));
}

#[test]
fn excluded_paths_do_not_count() {
    let f = Fixture::new();
    let one = f.tree(&[&|root| put(root, "d/keep", "k"), &|root| put(root, "d/skip", "1")]);
    let two = f.tree(&[&|root| put(root, "d/keep", "k"), &|root| put(root, "d/skip", "2")]);
    let matches = |path: &[u8], is_dir: bool| path == b"skip" && !is_dir;
    let exclude = Exclude { key: Digest::of("skip"), matches: &matches };
    let without = Selector { exclude: Some(exclude), ..Selector::new(b"d") };
    let digest =
        |tree: &Tree, selector: &Selector<'_>| f.store.content_digest(tree, selector).unwrap();
    assert_ne!(digest(&one, &Selector::new(b"d")), digest(&two, &Selector::new(b"d")));
    assert_eq!(digest(&one, &without), digest(&two, &without));
}

#[test]
fn digests_are_remembered() {
    let f = Fixture::new();
    let tree = sample(&f);
    let digest = || f.store.content_digest(&tree, &Selector::new(b"etc")).unwrap();
    let first = digest();
    // What is remembered needs no record; another store object has none in memory.
    for id in &tree.0 {
        let record = f.store.root().join("layers").join(id.hex()).join("entries");
        fs::remove_file(record).unwrap();
    }
    let other = SnapshotStore::open(f.store.root()).unwrap();
    assert_eq!(other.content_digest(&tree, &Selector::new(b"etc")).unwrap(), first);
    other.prune_memo(std::time::Duration::ZERO).unwrap();
    assert!(other.content_digest(&tree, &Selector::new(b"etc")).is_err());
}

/// One change of a tree.
#[derive(Debug, Clone)]
enum Change {
    Put(String, u8),
    Dir(String),
    Link(String, String),
    Remove(String),
    Move(String, String),
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec("[abc]", 1..4).prop_map(|parts| parts.join("/"))
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (path(), any::<u8>()).prop_map(|(path, byte)| Change::Put(path, byte)),
        2 => path().prop_map(Change::Dir),
        1 => (path(), path()).prop_map(|(path, target)| Change::Link(path, target)),
        3 => path().prop_map(Change::Remove),
        1 => (path(), path()).prop_map(|(from, to)| Change::Move(from, to)),
    ]
}

/// Applies what is possible; the rest is not what is tested.
fn apply(root: &Path, change: &Change) {
    let under = |path: &str| root.join(path);
    let _ = match change {
        Change::Put(path, byte) => fs::write(under(path), [*byte]),
        Change::Dir(path) => fs::create_dir_all(under(path)),
        Change::Link(path, target) => symlink(target, under(path)),
        Change::Move(from, to) => fs::rename(under(from), under(to)),
        Change::Remove(path) => match fs::remove_file(under(path)) {
            Err(_) => fs::remove_dir_all(under(path)),
            removed => removed,
        },
    };
}

/// Compares a directory of a mount with what the store says about it, to the bottom.
fn compare(store: &SnapshotStore, tree: &Tree, root: &Path, dir: &str) {
    let mut names: Vec<_> =
        fs::read_dir(root.join(dir)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let listed = store.list(tree, dir.as_bytes()).unwrap().unwrap();
    assert_eq!(
        listed.iter().map(Found::name).collect::<Vec<_>>(),
        names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>(),
        "in '{dir}'"
    );
    for found in listed {
        let path = std::str::from_utf8(&found.path).unwrap();
        let meta = fs::symlink_metadata(root.join(path)).unwrap();
        match found.kind {
            FoundKind::Directory => compare(store, tree, root, path),
            FoundKind::File(size) => {
                assert_eq!(size, meta.len());
                let content = store.read(tree, path.as_bytes(), 10).unwrap().unwrap();
                assert_eq!(content, fs::read(root.join(path)).unwrap());
            }
            FoundKind::Symlink(target) => {
                let real = fs::read_link(root.join(path)).unwrap();
                assert_eq!(target, real.as_os_str().as_bytes());
            }
            FoundKind::Special => panic!("nothing special was made"),
        }
        assert_eq!(found.mode, meta.permissions().mode() & 0o7777);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_view_is_what_a_mount_shows(
        steps in proptest::collection::vec(proptest::collection::vec(change(), 1..8), 1..6)
    ) {
        let f = Fixture::new();
        let mut tree = Tree::scratch();
        for step in &steps {
            let change = |root: &Path| step.iter().for_each(|change| apply(root, change));
            tree = tree.with(f.layer(&tree, change));
        }
        let mounted = f.store.mount(&tree, None).unwrap();
        compare(&f.store, &tree, &mounted.path(), "");
        // A copy of the whole tree in one layer has the same content.
        let draft = f.store.begin(&Tree::scratch()).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&mounted.fd());
        let copied = std::process::Command::new("cp")
            .arg("-a").arg(format!("/proc/{}/fd/{fd}/.", std::process::id())).arg(draft.upper()).status().unwrap();
        prop_assert!(copied.success());
        let copy = Tree(vec![draft.commit(&KnownFiles::new()).unwrap().id]);
        let digest = |tree: &Tree| f.store.content_digest(tree, &Selector::new(b"/")).unwrap();
        prop_assert_eq!(digest(&copy), digest(&tree));
    }
}
