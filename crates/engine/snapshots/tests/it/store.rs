//! Drafts, layers, mounts and leases of one store.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use ashlar_core::Digest;
use ashlar_layers::{KnownFiles, Node};
use ashlar_snapshots::{Removal, SnapshotError, SnapshotStore, Tree};

use crate::support::{Fixture, put};

#[test]
fn changes_show_in_the_next_mount() {
    let f = Fixture::new();
    let tree = f.tree(&[
        &|root| {
            put(root, "etc/passwd", "root");
            put(root, "usr/share/doc/a", "a");
        },
        &|root| {
            fs::remove_file(root.join("etc/passwd")).unwrap();
            fs::remove_dir_all(root.join("usr/share/doc")).unwrap();
            put(root, "usr/share/doc/b", "b");
        },
    ]);
    let mounted = f.store.mount(&tree, None).unwrap();
    assert!(!mounted.path().join("etc/passwd").exists());
    let doc = fs::read_dir(mounted.path().join("usr/share/doc")).unwrap();
    assert_eq!(doc.map(|e| e.unwrap().file_name()).collect::<Vec<_>>(), ["b"]);
    let entries = f.store.entries(&tree.0[1]).unwrap();
    assert_eq!(entries.find(b"etc/passwd").unwrap().node, Node::Whiteout);
    assert_eq!(entries.find(b"usr/share/doc").unwrap().node, Node::Directory { opaque: true });
    let error = fs::write(mounted.path().join("x"), "").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn the_same_changes_make_the_same_layer_whatever_the_time() {
    let f = Fixture::new();
    let change = |seconds: u64| {
        move |root: &Path| {
            put(root, "a/file", "content");
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let file = fs::File::options().write(true).open(root.join("a/file")).unwrap();
            file.set_modified(time).unwrap();
        }
    };
    let first = f.layer(&Tree::scratch(), change(1_000_000_000));
    let draft = f.store.begin(&Tree::scratch()).unwrap();
    change(1_700_000_000)(draft.upper());
    let commit = draft.commit(&KnownFiles::new()).unwrap();
    assert!(commit.reused);
    assert_eq!(commit.id, first);
    assert_eq!(f.store.entries(&first).unwrap().find(b"a/file").unwrap().mtime, 1_000_000_000);
}

#[test]
fn everything_but_the_time_counts_for_the_identity() {
    let f = Fixture::new();
    let base = |root: &Path| put(root, "f", "1");
    let chmod = |root: &Path| {
        fs::write(root.join("f"), "1").unwrap();
        fs::set_permissions(root.join("f"), fs::Permissions::from_mode(0o4755)).unwrap();
    };
    let chown = |root: &Path| {
        fs::write(root.join("f"), "1").unwrap();
        std::os::unix::fs::chown(root.join("f"), Some(7), None).unwrap();
    };
    let xattr = |root: &Path| {
        fs::write(root.join("f"), "1").unwrap();
        rustix::fs::setxattr(root.join("f"), "user.a", b"1", rustix::fs::XattrFlags::empty())
            .unwrap();
    };
    let link = |root: &Path| std::os::unix::fs::symlink("1", root.join("f")).unwrap();
    let other = |root: &Path| put(root, "f", "2");
    let changes: [&dyn Fn(&Path); 6] = [&base, &chmod, &chown, &xattr, &link, &other];
    let ids = changes.map(|change| f.layer(&Tree::scratch(), change));
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
}

#[test]
fn known_files_are_not_read() {
    let f = Fixture::new();
    let draft = f.store.begin(&Tree::scratch()).unwrap();
    put(draft.upper(), "d/known", "x");
    put(draft.upper(), "d/other", "y");
    fs::hard_link(draft.upper().join("d/known"), draft.upper().join("a-link")).unwrap();
    let mut known = KnownFiles::new();
    known.insert("/d/known", Digest::of("x"));
    let commit = draft.commit(&known).unwrap();
    assert_eq!(commit.files_read, 1);
    let entries = f.store.entries(&commit.id).unwrap();
    let Node::HardLink { target } = &entries.find(b"d/known").unwrap().node else { panic!() };
    assert_eq!(target, b"a-link");
    let content = Digest::of("x");
    assert_eq!(entries.find_target(b"d/known").unwrap().node, Node::File { size: 1, content });
}

#[test]
fn three_hundred_layers_mount_and_five_hundred_are_squashed() {
    let f = Fixture::new();
    let mut tree = Tree::scratch();
    for n in 0..520 {
        let draft = f.store.begin(&tree).unwrap();
        put(draft.upper(), &format!("dir/{n}"), "x");
        put(draft.upper(), "last", &n.to_string());
        tree = tree.with(draft.commit(&KnownFiles::new()).unwrap().id);
        if n == 299 {
            assert_eq!(f.store.lowers(&tree).unwrap().len(), 300);
            check_tall(&f, &tree, 300);
        }
    }
    assert_eq!(f.store.lowers(&tree).unwrap().len(), 221);
    check_tall(&f, &tree, 520);
}

fn check_tall(f: &Fixture, tree: &Tree, count: usize) {
    let draft = f.store.begin(tree).unwrap();
    let mounted = f.store.mount(tree, Some(&draft)).unwrap();
    assert_eq!(fs::read_dir(mounted.path().join("dir")).unwrap().count(), count);
    let last = fs::read_to_string(mounted.path().join("last")).unwrap();
    assert_eq!(last, (count - 1).to_string());
}

#[test]
fn a_draft_can_be_mounted_again() {
    let f = Fixture::new();
    let draft = f.store.begin(&Tree::scratch()).unwrap();
    for n in 0..3 {
        let mounted = f.store.mount(&Tree::scratch(), Some(&draft)).unwrap();
        put(&mounted.path(), &n.to_string(), "x");
    }
    let commit = draft.commit(&KnownFiles::new()).unwrap();
    assert_eq!(commit.meta.entries, 3);
}

#[test]
fn the_root_directory_keeps_its_attributes() {
    let f = Fixture::new();
    let tree = f.tree(&[
        &|root| fs::set_permissions(root, fs::Permissions::from_mode(0o1700)).unwrap(),
        &|root| put(root, "a", "a"),
        &|root| put(root, "b", "b"),
    ]);
    let mounted = f.store.mount(&tree, None).unwrap();
    assert_eq!(fs::metadata(mounted.path()).unwrap().mode() & 0o7777, 0o1700);
}

#[test]
fn a_held_layer_is_not_removed() {
    let f = Fixture::new();
    let id = f.layer(&Tree::scratch(), |root| put(root, "a", "a"));
    let lease = f.store.hold(&Tree(vec![id])).unwrap();
    // Another store object stands for another process: the lock is between open files.
    let other = SnapshotStore::open(f.store.root()).unwrap();
    assert_eq!(other.remove(&id).unwrap(), Removal::InUse);
    let second = lease.clone();
    drop(lease);
    assert_eq!(f.store.remove(&id).unwrap(), Removal::InUse);
    assert!(other.usage().unwrap().layers[0].1);
    drop(second);
    assert!(!other.usage().unwrap().layers[0].1);
    assert_eq!(other.remove(&id).unwrap(), Removal::Removed);
    assert_eq!(other.remove(&id).unwrap(), Removal::Missing);
    assert!(matches!(f.store.hold(&Tree(vec![id])), Err(SnapshotError::Missing(_))));
    other.empty_trash().unwrap();
    assert_eq!(fs::read_dir(f.store.root().join("trash")).unwrap().count(), 0);
}

#[test]
fn holding_a_layer_marks_it_as_used() {
    let f = Fixture::new();
    let id = f.layer(&Tree::scratch(), |root| put(root, "a", "a"));
    let lock = f.store.root().join("layers").join(id.hex()).join("lock");
    let file = fs::File::options().write(true).open(lock).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    drop(f.store.hold(&Tree(vec![id])).unwrap());
    let age = f.store.layer(&id).unwrap().last_used.elapsed().unwrap();
    assert!(age.as_secs() < 60);
}

#[test]
fn a_dropped_draft_is_gone_and_a_failed_one_can_be_kept() {
    let f = Fixture::new();
    let drafts = f.store.root().join("drafts");
    drop(f.store.begin(&Tree::scratch()).unwrap());
    assert_eq!(fs::read_dir(&drafts).unwrap().count(), 0);
    let draft = f.store.begin(&Tree::scratch()).unwrap();
    put(draft.upper(), "clue", "x");
    let kept = f.dir.path().join("kept");
    draft.keep_failed(&kept).unwrap();
    assert_eq!(fs::read_dir(&drafts).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(kept.join("fs/clue")).unwrap(), "x");
}

#[test]
fn very_deep_trees_are_deleted() {
    let f = Fixture::new();
    let draft = f.store.begin(&Tree::scratch()).unwrap();
    let name = "d".repeat(200);
    let mut dir = fs::File::open(draft.upper()).unwrap();
    for _ in 0..100 {
        rustix::fs::mkdirat(&dir, &name, rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        let next = rustix::fs::openat(&dir, &name, flags, rustix::fs::Mode::empty()).unwrap();
        dir = next.into();
    }
    drop(dir);
    let error = draft.commit(&KnownFiles::new()).unwrap_err();
    assert!(error.to_string().contains("limit of 4095"), "{error}");
    f.store.empty_trash().unwrap();
    assert_eq!(fs::read_dir(f.store.root().join("trash")).unwrap().count(), 0);
}

#[test]
fn many_threads_make_the_same_layer_once() {
    let f = Fixture::new();
    let commits: Vec<_> = std::thread::scope(|scope| {
        let make = || {
            let draft = f.store.begin(&Tree::scratch()).unwrap();
            put(draft.upper(), "a/b", "c");
            draft.commit(&KnownFiles::new()).unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(commits.iter().filter(|c| !c.reused).count(), 1);
    assert!(commits.iter().all(|c| c.id == commits[0].id));
    assert_eq!(f.store.remove(&commits[0].id).unwrap(), Removal::InUse);
}

#[test]
fn a_layer_may_occur_twice_in_a_tree() {
    let f = Fixture::new();
    let write = |root: &Path| put(root, "d/file", "same");
    let remove = |root: &Path| fs::remove_file(root.join("d/file")).unwrap();
    let tree = f.tree(&[&write, &remove, &write, &|root| put(root, "d/other", "x")]);
    assert_eq!(tree.0[0], tree.0[2], "the same change on top of another one is the same layer");
    let mounted = f.store.mount(&tree, None).unwrap();
    assert_eq!(fs::read_to_string(mounted.path().join("d/file")).unwrap(), "same");
    assert_eq!(f.store.lowers(&tree).unwrap().len(), 3);
    let removed = Tree(tree.0[..2].to_vec()).with(tree.0[3]).with(tree.0[1]);
    let mounted = f.store.mount(&removed, None).unwrap();
    assert!(!mounted.path().join("d/file").exists());
}

#[test]
fn directories_copied_up_for_nothing_are_dropped() {
    let f = Fixture::new();
    let base = f.tree(&[&|root| {
        for dir in ["etc/x", "opt", "srv/kept", "var"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
    }]);
    let draft = f.store.begin(&base).unwrap();
    let below = f.store.layer_fs(&base.0[0]);
    for dir in ["srv/kept", "srv", "opt", "var", "etc/x", "etc"] {
        let (copy, old) = (draft.upper().join(dir), below.join(dir));
        fs::create_dir_all(&copy).unwrap();
        let time = old.metadata().unwrap().modified().unwrap();
        fs::File::open(&copy).unwrap().set_modified(time).unwrap();
    }
    fs::set_permissions(draft.upper().join("opt"), fs::Permissions::from_mode(0o700)).unwrap();
    put(draft.upper(), "srv/kept/file", "the step's own");
    std::os::unix::fs::symlink("etc", draft.upper().join("link")).unwrap();
    let made = ["etc/x/point", "opt/point", "srv/kept/point", "link/point", "new/point", "point"];
    draft.drop_copied_up(&base, made.map(Path::new)).unwrap();
    let names = |dir: &str| {
        let names = fs::read_dir(draft.upper().join(dir)).unwrap();
        let mut names: Vec<_> =
            names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["link", "opt", "srv", "var"], "var is above none of the paths");
    assert_eq!(names("srv/kept"), ["file"]);
}
