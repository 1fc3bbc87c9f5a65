//! What a killed process or a power cut leaves, and what the next start makes of it.

use std::fs;
use std::io::BufRead as _;
use std::process::{Command, Stdio};

use ashlar_core::Digest;
use ashlar_layers::KnownFiles;
use ashlar_snapshots::{Repairs, SnapshotStore, Tree};

use crate::support::{Fixture, put};

const CHILD: &str = "ASHLAR_TEST_CRASH_STORE";

/// Not a test of its own: what the killed process of the next test does.
#[test]
fn crashing_child() {
    let Ok(root) = std::env::var(CHILD) else { return };
    let store = SnapshotStore::open(root).unwrap();
    let draft = store.begin(&Tree::scratch()).unwrap();
    let _mounted = store.mount(&Tree::scratch(), Some(&draft)).unwrap();
    put(draft.upper(), "half", "done");
    let layers: Tree = store.layers().unwrap().iter().map(|meta| meta.id).collect();
    let _lease = store.hold(&layers).unwrap();
    println!("\nready");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    let f = Fixture::new();
    let id = f.layer(&Tree::scratch(), |root| put(root, "a", "a"));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::crashing_child", "--nocapture"])
        .env(CHILD, f.store.root())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    assert!(output.lines().any(|line| line.unwrap() == "ready"));
    // While it lives, its draft and its lease count.
    assert_eq!(f.store.verify().unwrap().drafts, 0);
    assert_eq!(f.store.remove(&id).unwrap(), ashlar_snapshots::Removal::InUse);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(f.store.verify().unwrap().drafts, 1);
    assert_eq!(fs::read_dir(f.store.root().join("drafts")).unwrap().count(), 0);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(f.store.root().to_str().unwrap()));
    assert_eq!(f.store.remove(&id).unwrap(), ashlar_snapshots::Removal::Removed);
}

#[test]
fn a_living_draft_survives_repair() {
    let f = Fixture::new();
    let draft = f.store.begin(&Tree::scratch()).unwrap();
    put(draft.upper(), "a", "a");
    let other = SnapshotStore::open(f.store.root()).unwrap();
    assert_eq!(other.verify().unwrap().drafts, 0);
    assert_eq!(draft.commit(&KnownFiles::new()).unwrap().meta.entries, 1);
}

/// Makes the store believe that the machine was started anew.
fn reboot(f: &Fixture) {
    let record = f.store.root().join("synced");
    let text = fs::read_to_string(&record).unwrap();
    let (seconds, _) = text.split_once(' ').unwrap();
    fs::write(record, format!("{seconds} another-boot")).unwrap();
}

#[test]
fn layers_that_a_power_cut_damaged_are_dropped() {
    let f = Fixture::new();
    assert_eq!(f.store.verify().unwrap(), Repairs::default());
    let names = ["good", "emptied", "changed", "gone", "record", "meta"];
    let ids = names.map(|name| f.layer(&Tree::scratch(), |root| put(root, name, name)));
    let dir = |n: usize| f.store.root().join("layers").join(ids[n].hex());
    fs::write(dir(1).join("fs/emptied"), "").unwrap();
    fs::write(dir(2).join("fs/changed"), "CHANGED").unwrap();
    fs::remove_file(dir(3).join("fs/gone")).unwrap();
    fs::write(dir(4).join("entries"), "").unwrap();
    fs::write(dir(5).join("meta.json"), "{").unwrap();
    reboot(&f);
    let repairs = SnapshotStore::open(f.store.root()).unwrap().verify().unwrap();
    assert_eq!(repairs.checked, 5);
    let mut dropped = repairs.layers;
    dropped.sort();
    let mut want = ids[1..].to_vec();
    want.sort();
    assert_eq!(dropped, want);
    assert!(f.store.has(&ids[0]));
    // What is known to be on disk is not read again.
    reboot(&f);
    fs::write(f.store.root().join("synced"), format!("{} other", u64::MAX)).unwrap();
    assert_eq!(f.store.verify().unwrap().checked, 0);
}

#[test]
fn odd_things_in_the_store_are_left_alone_or_removed() {
    let f = Fixture::new();
    f.store.verify().unwrap();
    let hollow = f.store.root().join("layers").join(Digest::of("hollow").hex());
    fs::create_dir(&hollow).unwrap();
    fs::create_dir(f.store.root().join("layers/not-a-digest")).unwrap();
    put(f.store.root(), "imports/left", "");
    put(f.store.root(), "trash/left/over", "x");
    let store = SnapshotStore::open(f.store.root()).unwrap();
    let repairs = store.verify().unwrap();
    assert_eq!(repairs.layers, [Digest::of("hollow")]);
    assert_eq!(repairs.leftovers, 1);
    assert!(!hollow.exists());
    store.empty_trash().unwrap();
    assert_eq!(store.usage().unwrap().trash, 0);
}
