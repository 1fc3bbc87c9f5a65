//! A data directory as a cache of a store elsewhere.

use std::fs;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ashlar_blobs::{BlobError, BlobInfo, BlobStore, Claim, Remote, RemoteError};
use ashlar_core::Digest;
use tempfile::TempDir;

use crate::remote::{Place, noise, s3};

/// One machine's data directory.
fn node(remote: &Arc<dyn Remote>) -> (TempDir, BlobStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open_with(dir.path(), Some(remote.clone())).unwrap();
    (dir, store)
}

fn is_here(store: &BlobStore, digest: &Digest) -> bool {
    store.path(digest).exists()
}

#[test]
fn what_one_machine_keeps_every_machine_reads() {
    let place = s3();
    let ((_a, one), (_b, two)) = (node(&place.remote), node(&place.remote));
    let small = one.put_bytes(b"small").unwrap().digest;
    let large = one.put_reader(&mut &*noise(9 << 20), None).unwrap().digest;
    assert!(!two.has(&small).unwrap(), "nobody asked for it to be kept");
    one.sync().unwrap();
    assert_eq!(two.size(&large).unwrap(), Some(9 << 20));
    assert!(!is_here(&two, &large), "a look fetches nothing");
    assert_eq!(two.stat(&small).unwrap().size, 5);
    assert!(matches!(two.claim(&small).unwrap(), Claim::Present(_)));
    assert_eq!(two.read(&small, 100).unwrap(), b"small");
    let mut bytes = Vec::new();
    two.open_verified(&large).unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes == noise(9 << 20) && is_here(&two, &large));
    // A copy is a copy: without it the blob is still there.
    assert!(two.remove(&small).unwrap() && !is_here(&two, &small));
    assert_eq!(two.read(&small, 100).unwrap(), b"small");
    assert!(matches!(two.open_read(&Digest::of("none")), Err(BlobError::Missing(_))));
}

#[test]
fn what_an_earlier_process_stored_is_sent_when_it_is_needed() {
    let place = s3();
    let (dir, one) = node(&place.remote);
    let digest = one.put_bytes(b"stored, and then the process died").unwrap().digest;
    drop(one);
    let again = BlobStore::open_with(dir.path(), Some(place.remote.clone())).unwrap();
    again.sync().unwrap();
    assert!(place.remote.look(&digest).unwrap().is_none(), "nothing needs it yet");
    again.keep(&[digest]).unwrap();
    assert!(place.remote.look(&digest).unwrap().is_some());
    let nowhere = Digest::of("nowhere");
    assert!(matches!(again.keep(&[nowhere]), Err(BlobError::Missing(d)) if d == nowhere));
}

fn alter(place: &Place, digest: &Digest) {
    let path = place.object(digest);
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_object_that_was_altered_is_an_error_and_never_served() {
    let place = s3();
    let ((_a, one), (_b, two)) = (node(&place.remote), node(&place.remote));
    let digest = one.put_bytes(b"right").unwrap().digest;
    one.sync().unwrap();
    alter(&place, &digest);
    for _ in 0..2 {
        let error = two.open_read(&digest).unwrap_err();
        assert!(matches!(error, BlobError::RemoteCorrupt { digest: d, .. } if d == digest));
        assert!(!is_here(&two, &digest));
    }
    assert!(matches!(two.read(&digest, 100), Err(BlobError::RemoteCorrupt { .. })));
    // Whoever has the right bytes still serves them, and mends the store by storing them again.
    assert_eq!(one.read(&digest, 100).unwrap(), b"right");
    place.remote.upload(&digest, &mut &b"right"[..], 5).unwrap();
    assert_eq!(two.read(&digest, 100).unwrap(), b"right");
}

#[test]
fn a_copy_that_was_altered_is_fetched_anew_and_never_sent() {
    let place = s3();
    let (_a, one) = node(&place.remote);
    let digest = one.put_bytes(b"right").unwrap().digest;
    one.sync().unwrap();
    fs::write(one.path(&digest), "wrong").unwrap();
    assert_eq!(one.read(&digest, 100).unwrap(), b"right");
    let (_b, two) = node(&place.remote);
    let other = two.put_bytes(b"never kept").unwrap().digest;
    fs::write(two.path(&other), "torn").unwrap();
    assert!(matches!(two.keep(&[other]), Err(BlobError::Corrupt { .. })));
    assert!(place.remote.look(&other).unwrap().is_none());
}

/// Counts what is asked of a store, and breaks transfers off after some bytes.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn Remote>,
    room: usize,
    asked_from: AtomicUsize,
    fetched: Mutex<Vec<Digest>>,
    uploaded: Mutex<Vec<Digest>>,
}

impl Watched {
    fn new(inner: &Arc<dyn Remote>, room: usize) -> Arc<Self> {
        let (fetched, uploaded) = (Mutex::default(), Mutex::default());
        let (inner, asked_from) = (inner.clone(), AtomicUsize::new(0));
        Arc::new(Self { inner, room, asked_from, fetched, uploaded })
    }
}

fn sorted(digests: &Mutex<Vec<Digest>>) -> Vec<Digest> {
    let mut digests = digests.lock().unwrap().clone();
    digests.sort_unstable();
    digests
}

struct Cut<'a>(&'a mut dyn Write, usize);

impl Write for Cut<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1 == 0 {
            return Err(io::Error::other("the connection broke"));
        }
        let n = self.0.write(&bytes[..bytes.len().min(self.1)])?;
        self.1 -= n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Remote for Watched {
    fn check(&self) -> Result<(), RemoteError> {
        self.inner.check()
    }

    fn look(&self, digest: &Digest) -> Result<Option<BlobInfo>, RemoteError> {
        self.inner.look(digest)
    }

    fn fetch(&self, digest: &Digest, from: u64, to: &mut dyn Write) -> Result<(), RemoteError> {
        self.asked_from.store(usize::try_from(from).unwrap(), Ordering::Relaxed);
        self.fetched.lock().unwrap().push(*digest);
        self.inner.fetch(digest, from, &mut Cut(to, self.room))
    }

    fn upload(
        &self,
        digest: &Digest,
        content: &mut (dyn Read + Send),
        size: u64,
    ) -> Result<(), RemoteError> {
        self.uploaded.lock().unwrap().push(*digest);
        self.inner.upload(digest, content, size)
    }

    fn remove(&self, digest: &Digest) -> Result<bool, RemoteError> {
        self.inner.remove(digest)
    }

    fn list(&self, visit: &mut dyn FnMut(BlobInfo) -> ControlFlow<()>) -> Result<(), RemoteError> {
        self.inner.list(visit)
    }
}

#[test]
fn a_fetch_that_broke_off_is_gone_on_with() {
    let place = s3();
    let (_a, one) = node(&place.remote);
    let bytes = noise(3 << 20);
    let digest = one.put_reader(&mut &*bytes, None).unwrap().digest;
    one.sync().unwrap();
    let breaking = Watched::new(&place.remote, 2 << 20);
    let remote: Arc<dyn Remote> = breaking.clone();
    let (_b, two) = node(&remote);
    assert!(two.open_read(&digest).is_err());
    assert!(!is_here(&two, &digest), "half a blob is none");
    assert_eq!(two.read(&digest, 4 << 20).unwrap(), bytes);
    assert_eq!(breaking.asked_from.load(Ordering::Relaxed), 2 << 20);
}

#[test]
fn many_threads_fetch_a_blob_once_and_keep_it_once() {
    let place = s3();
    let (from, to) = (Watched::new(&place.remote, 0), Watched::new(&place.remote, usize::MAX));
    let (sending, fetching): (Arc<dyn Remote>, Arc<dyn Remote>) = (from.clone(), to.clone());
    let ((_a, one), (_b, two)) = (node(&sending), node(&fetching));
    let mut digests: Vec<Digest> =
        (0..40).map(|i| one.put_bytes(format!("blob {i}").as_bytes()).unwrap().digest).collect();
    digests.sort_unstable();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| one.keep(&digests).unwrap());
        }
    });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(two.bring_while(&digests, || true).unwrap()));
        }
    });
    assert!(digests.iter().all(|d| is_here(&two, d)));
    assert_eq!((sorted(&from.uploaded), sorted(&from.fetched)), (digests.clone(), vec![]));
    assert_eq!((sorted(&to.fetched), sorted(&to.uploaded)), (digests, vec![]));
}

#[test]
fn a_blob_that_is_gone_stops_no_other_from_being_sent() {
    let place = s3();
    let (_a, one) = node(&place.remote);
    let put = |text: &str| one.put_bytes(text.as_bytes()).unwrap().digest;
    let (gone, torn, kept) = (put("removed by another process"), put("torn"), put("kept"));
    fs::remove_file(one.path(&gone)).unwrap();
    fs::write(one.path(&torn), "other bytes").unwrap();
    assert!(one.verify(&torn).is_err());
    one.sync().unwrap();
    assert!(place.remote.look(&kept).unwrap().is_some());
    for digest in [gone, torn] {
        assert!(place.remote.look(&digest).unwrap().is_none());
        // Somebody who needs it is told.
        assert!(matches!(one.keep(&[digest]), Err(BlobError::Missing(d)) if d == digest));
    }
}

#[test]
fn work_that_is_told_to_stop_ends_before_the_next_blob() {
    let place = s3();
    let ((_a, one), (_b, two)) = (node(&place.remote), node(&place.remote));
    let digests: Vec<Digest> =
        (0..40).map(|i| one.put_bytes(format!("blob {i}").as_bytes()).unwrap().digest).collect();
    let there = || digests.iter().filter(|d| place.remote.look(d).unwrap().is_some()).count();
    let here = || digests.iter().filter(|d| is_here(&two, d)).count();
    assert!(!one.keep_while(&digests, || false).unwrap());
    assert!(!one.keep_while(&digests[..1], || false).unwrap());
    assert_eq!(there(), 0);
    let left = AtomicUsize::new(7);
    let seven = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    assert!(!one.keep_while(&digests, || seven().is_ok()).unwrap());
    assert_eq!(there(), 7);
    assert!(one.keep_while(&digests, || true).unwrap());
    left.store(3, Ordering::Relaxed);
    assert!(!two.bring_while(&digests, || seven().is_ok()).unwrap());
    assert_eq!((here(), there()), (3, 40));
}

#[test]
fn a_store_that_is_away_is_said_and_what_is_here_is_served() {
    let mut place = s3();
    let (_a, one) = node(&place.remote);
    let digest = one.put_bytes(b"here").unwrap().digest;
    one.check_remote().unwrap();
    place.s3.as_mut().unwrap().stop();
    assert_eq!(one.read(&digest, 100).unwrap(), b"here");
    assert!(matches!(one.sync(), Err(BlobError::Remote(_))));
    assert!(matches!(one.check_remote(), Err(BlobError::Remote(_))));
    place.s3.as_mut().unwrap().resume();
    one.sync().unwrap();
    assert!(place.remote.look(&digest).unwrap().is_some());
}
