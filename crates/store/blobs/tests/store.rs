//! The blob store: sharing, crashes, damage.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use std::{env, thread};

use ashlar_blobs::{BlobError, BlobStore, Blobs, Claim, Ingest};
use ashlar_core::Digest;
use proptest::prelude::*;

fn store() -> (tempfile::TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path()).unwrap();
    (dir, store)
}

fn mine(store: &BlobStore, digest: &Digest) -> Ingest {
    match store.claim(digest).unwrap() {
        Claim::Mine(ingest) => ingest,
        Claim::Present(_) => panic!("present"),
        Claim::Busy(n) => panic!("busy at {n}"),
    }
}

fn files(dir: &Path, folder: &str) -> usize {
    fs::read_dir(dir.join("blobs").join(folder)).unwrap().count()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Makes the store believe that the machine has started anew.
fn reboot(dir: &Path) {
    fs::write(dir.join("blobs/boot"), "another boot").unwrap();
}

#[test]
fn what_is_put_is_there_until_it_is_removed() {
    let (dir, store) = store();
    let info = store.put_bytes(b"hello").unwrap();
    assert_eq!((info.digest, info.size), (Digest::of("hello"), 5));
    let hex = info.digest.hex();
    let path = dir.path().join("blobs/sha256").join(&hex[..2]).join(&hex);
    assert_eq!(fs::read(path).unwrap(), b"hello");
    let other = BlobStore::open(dir.path()).unwrap();
    assert_eq!(other.size(&info.digest).unwrap(), Some(5));
    assert_eq!(other.read(&info.digest, 5).unwrap(), b"hello");
    assert!(matches!(other.read(&info.digest, 4), Err(BlobError::TooLarge { size: 5, .. })));
    assert_eq!(other.list().unwrap(), [store.stat(&info.digest).unwrap()]);
    assert!(other.remove(&info.digest).unwrap());
    assert!(!store.remove(&info.digest).unwrap());
    assert!(!store.has(&info.digest).unwrap());
    assert!(matches!(store.open_read(&info.digest), Err(BlobError::Missing(_))));
    assert!(matches!(store.stat(&info.digest), Err(BlobError::Missing(_))));
}

#[test]
fn the_trait_does_the_same() {
    let (_dir, store) = store();
    let blobs: &dyn Blobs = &store;
    let digest = Digest::of("hello");
    let wrong = blobs.put(&mut &b"hellp"[..], Some(&digest));
    assert!(matches!(wrong, Err(BlobError::Mismatch { expected, .. }) if expected == digest));
    assert_eq!(blobs.put(&mut &b"hello"[..], Some(&digest)).unwrap().digest, digest);
    let mut text = String::new();
    blobs.open(&digest).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), blobs.has(&digest).unwrap()), ("hello", true));
    assert_eq!(blobs.list().unwrap().len(), 1);
    assert!(blobs.remove(&digest).unwrap());
}

#[test]
fn a_writer_that_gives_up_leaves_nothing() {
    let (dir, store) = store();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"half").unwrap();
    assert_eq!((writer.size(), writer.digest()), (4, Digest::of("half")));
    drop(writer);
    let mut writer = store.writer().unwrap();
    writer.write_all(b"wrong").unwrap();
    assert!(writer.commit(Some(&Digest::of("right"))).is_err());
    assert_eq!((files(dir.path(), "tmp"), store.list().unwrap().len()), (0, 0));
}

#[test]
fn leftovers_of_the_dead_go_and_those_of_the_living_stay() {
    let (dir, store) = store();
    let old = SystemTime::now() - Duration::from_secs(3600);
    let dead = dir.path().join("blobs/tmp/1-0");
    File::create(&dead).unwrap().set_modified(old).unwrap();
    let young = dir.path().join("blobs/tmp/1-1");
    File::create(&young).unwrap();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"slow").unwrap();
    for entry in fs::read_dir(dir.path().join("blobs/tmp")).unwrap() {
        let path = entry.unwrap().path();
        if path != young {
            File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
        }
    }
    BlobStore::open(dir.path()).unwrap();
    assert_eq!((dead.exists(), young.exists(), files(dir.path(), "tmp")), (false, true, 2));
    writer.commit(None).unwrap();
    assert!(store.has(&Digest::of("slow")).unwrap());
}

#[test]
fn an_ingest_is_one_at_a_time_and_resumes() {
    let (dir, store) = store();
    let other = BlobStore::open(dir.path()).unwrap();
    let digest = Digest::of("hello world");
    let mut first = mine(&store, &digest);
    first.write_all(b"hello").unwrap();
    assert!(matches!(other.claim(&digest).unwrap(), Claim::Busy(5)));
    drop(first);
    let mut second = mine(&other, &digest);
    assert_eq!(second.size(), 5);
    second.write_all(b" world").unwrap();
    assert_eq!(second.commit().unwrap().size, 11);
    assert!(matches!(store.claim(&digest).unwrap(), Claim::Present(info) if info.size == 11));
    assert_eq!(files(dir.path(), "partial"), 0);
}

#[test]
fn a_wrong_ingest_begins_again() {
    let (dir, store) = store();
    let digest = Digest::of("right");
    let mut ingest = mine(&store, &digest);
    ingest.write_all(b"wrong").unwrap();
    assert!(matches!(ingest.commit(), Err(BlobError::Mismatch { .. })));
    assert_eq!(ingest.size(), 0);
    ingest.write_all(b"right").unwrap();
    ingest.commit().unwrap();
    assert_eq!(store.read(&digest, 10).unwrap(), b"right");
    let gone = Digest::of("gone");
    mine(&store, &gone).discard();
    assert_eq!(files(dir.path(), "partial"), 0);
}

#[test]
fn many_threads_want_one_blob_and_one_writes_it() {
    let (dir, _) = store();
    let content = vec![7; 100_000];
    let digest = Digest::of(&content);
    let writers = std::sync::atomic::AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let store = BlobStore::open(dir.path()).unwrap();
                loop {
                    match store.claim(&digest).unwrap() {
                        Claim::Present(_) => break,
                        Claim::Busy(_) => thread::yield_now(),
                        Claim::Mine(mut ingest) => {
                            writers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            ingest.write_all(&content).unwrap();
                            ingest.commit().unwrap();
                        }
                    }
                }
                assert_eq!(store.read(&digest, 1 << 20).unwrap(), content);
            });
        }
    });
    assert_eq!(writers.into_inner(), 1);
}

#[test]
fn damage_is_found_and_set_aside() {
    let (dir, store) = store();
    let digest = store.put_bytes(b"precious").unwrap().digest;
    store.verify(&digest).unwrap();
    fs::write(store.path(&digest), b"precioux").unwrap();
    let mut sink = Vec::new();
    let mut reader = store.open_verified(&digest).unwrap();
    let error = reader.read_to_end(&mut sink).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    let corrupt = store.read(&digest, 100);
    assert!(matches!(corrupt, Err(BlobError::Corrupt { .. })), "{corrupt:?}");
    assert_eq!((store.has(&digest).unwrap(), files(dir.path(), "quarantine")), (false, 1));
    store.put_bytes(b"precious").unwrap();
    let mut sink = Vec::new();
    store.open_verified(&digest).unwrap().read_to_end(&mut sink).unwrap();
    assert_eq!(sink, b"precious");
}

#[test]
fn after_a_power_loss_only_what_was_flushed_is_trusted() {
    let (dir, store) = store();
    let safe = store.put_bytes(b"flushed").unwrap().digest;
    store.sync().unwrap();
    let whole = store.put_bytes(b"not flushed, but whole").unwrap().digest;
    let torn = store.put_bytes(b"not flushed and torn").unwrap().digest;
    drop(store);
    let again = BlobStore::open(dir.path()).unwrap();
    assert_eq!(mode(&again.path(&torn)), 0o600, "the same boot: the page cache is right");
    drop(again);
    let path = dir.path().join("blobs/sha256").join(&torn.hex()[..2]).join(torn.hex());
    File::options().write(true).open(path).unwrap().set_len(3).unwrap();
    reboot(dir.path());
    let store = BlobStore::open(dir.path()).unwrap();
    assert_eq!(mode(&store.path(&safe)), 0o444);
    assert_eq!(mode(&store.path(&whole)), 0o400);
    assert!(store.has(&whole).unwrap());
    assert_eq!(mode(&store.path(&whole)), 0o444, "checked once, then flushed");
    assert!(!store.has(&torn).unwrap());
    assert_eq!(files(dir.path(), "quarantine"), 1);
    let mut ingest = mine(&store, &torn);
    ingest.write_all(b"not flushed and torn").unwrap();
    ingest.commit().unwrap();
    assert!(store.has(&torn).unwrap());
}

#[test]
fn a_flush_marks_blobs_and_passes_over_removed_ones() {
    let (_dir, store) = store();
    let kept = store.put_bytes(b"kept").unwrap().digest;
    let gone = store.put_bytes(b"gone").unwrap().digest;
    fs::remove_file(store.path(&gone)).unwrap();
    store.sync().unwrap();
    assert_eq!(mode(&store.path(&kept)), 0o444);
    store.sync().unwrap();
}

/// Runs itself as a child that writes until it is killed.
#[test]
fn a_killed_writer_leaves_a_store_that_heals() {
    const CHILD: &str = "ASHLAR_TEST_BLOBS_DIR";
    let digest = Digest::of(b"0123456789".repeat(10));
    if let Some(dir) = env::var_os(CHILD) {
        let store = BlobStore::open(dir).unwrap();
        let mut writer = store.writer().unwrap();
        let mut ingest = mine(&store, &digest);
        writer.write_all(b"never finished").unwrap();
        ingest.write_all(&b"0123456789".repeat(4)).unwrap();
        println!("ready");
        loop {
            thread::park();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_killed_writer_leaves_a_store_that_heals", "--nocapture"])
        .env(CHILD, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut output, &mut line).unwrap(), 0, "child ended");
    }
    let store = BlobStore::open(dir.path()).unwrap();
    assert!(matches!(store.claim(&digest).unwrap(), Claim::Busy(40)));
    child.kill().unwrap();
    child.wait().unwrap();
    let mut ingest = mine(&store, &digest);
    assert_eq!(ingest.size(), 40);
    ingest.write_all(&b"0123456789".repeat(6)).unwrap();
    ingest.commit().unwrap();
    let left = fs::read_dir(dir.path().join("blobs/tmp")).unwrap().next().unwrap().unwrap();
    let old = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(left.path()).unwrap().set_modified(old).unwrap();
    BlobStore::open(dir.path()).unwrap();
    assert_eq!(files(dir.path(), "tmp"), 0);
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn foreign_files_are_no_blobs() {
    let (dir, store) = store();
    store.put_bytes(b"x").unwrap();
    fs::create_dir_all(dir.path().join("blobs/sha256/zz")).unwrap();
    fs::write(dir.path().join("blobs/sha256/zz/notes.txt"), "x").unwrap();
    fs::write(dir.path().join("blobs/sha256/README"), "x").unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_pieces_give_the_digest_of_the_whole(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6)) {
        let (_dir, store) = store();
        let mut writer = store.writer().unwrap();
        for piece in &pieces {
            writer.write_all(piece).unwrap();
        }
        let info = writer.commit(None).unwrap();
        let whole = pieces.concat();
        prop_assert_eq!((info.digest, info.size), (Digest::of(&whole), whole.len() as u64));
        prop_assert_eq!(store.read(&info.digest, 10_000).unwrap(), whole);
    }
}
