//! What every store elsewhere must do.

use std::fs;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ashlar_blobs::{BlobInfo, Remote, RemoteError};
use ashlar_core::Digest;
use tempfile::TempDir;

use crate::s3::{BUCKET, S3};

/// Larger than what is sent in one request: three parts.
const LARGE: usize = 20 << 20;

/// A store with the directory that its objects are files of.
pub(crate) struct Place {
    pub(crate) remote: Arc<dyn Remote>,
    pub(crate) files: PathBuf,
    pub(crate) s3: Option<S3>,
    _dir: Option<TempDir>,
}

pub(crate) fn directory() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("file://{}", dir.path().display());
    let remote = ashlar_objects::open(&address, []).unwrap();
    Place { remote, files: dir.path().to_owned(), s3: None, _dir: Some(dir) }
}

pub(crate) fn s3() -> Place {
    let s3 = S3::start();
    let remote = ashlar_objects::open(&s3.url("some/prefix"), s3.variables()).unwrap();
    Place {
        remote,
        files: s3.dir.path().join(BUCKET).join("some/prefix"),
        s3: Some(s3),
        _dir: None,
    }
}

impl Place {
    pub(crate) fn object(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.files.join("blobs/sha256").join(&hex[..2]).join(hex)
    }
}

/// Runs a test on both kinds.
macro_rules! on_both {
    ($($name:ident)*) => {$(
        mod $name {
            #[test]
            fn directory() {
                super::$name(super::directory());
            }

            #[test]
            fn s3() {
                super::$name(super::s3());
            }
        }
    )*};
}

on_both! {
    what_is_uploaded_is_there_until_it_is_removed
    large_blobs_go_in_parts
    wrong_content_is_never_seen
    a_broken_reader_leaves_nothing
    only_blobs_are_listed
}

fn put(place: &Place, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    place.remote.upload(&digest, &mut &*bytes, bytes.len() as u64).unwrap();
    digest
}

fn get(place: &Place, digest: &Digest, from: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    place.remote.fetch(digest, from, &mut bytes).unwrap();
    bytes
}

/// Bytes of which no two parts are equal.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes
}

fn what_is_uploaded_is_there_until_it_is_removed(place: Place) {
    place.remote.check().unwrap();
    let absent = Digest::of("absent");
    assert!(place.remote.look(&absent).unwrap().is_none());
    let missing = place.remote.fetch(&absent, 0, &mut Vec::new());
    assert!(matches!(missing, Err(RemoteError::Missing(d)) if d == absent));
    for content in [b"".as_slice(), b"hello"] {
        let digest = put(&place, content);
        let info = place.remote.look(&digest).unwrap().unwrap();
        assert_eq!((info.digest, info.size), (digest, content.len() as u64));
        assert!(info.modified.elapsed().unwrap_or_default().as_secs() < 60);
        assert_eq!(get(&place, &digest, 0), content);
        // Once more is fine, and all there is of it at any offset.
        put(&place, content);
        assert_eq!(get(&place, &digest, content.len() as u64), b"");
    }
    let digest = Digest::of("hello");
    assert_eq!(get(&place, &digest, 2), b"llo");
    assert!(place.remote.remove(&digest).unwrap());
    assert!(!place.remote.remove(&digest).unwrap());
    assert!(place.remote.look(&digest).unwrap().is_none());
}

fn large_blobs_go_in_parts(place: Place) {
    let bytes = noise(LARGE + 17);
    let digest = put(&place, &bytes);
    assert_eq!(place.remote.look(&digest).unwrap().unwrap().size, bytes.len() as u64);
    assert!(get(&place, &digest, 0) == bytes, "other bytes");
    assert!(get(&place, &digest, 9 << 20) == bytes[9 << 20..], "other bytes from an offset on");
}

fn wrong_content_is_never_seen(place: Place) {
    for length in [3, LARGE] {
        let (bytes, digest) = (noise(length), Digest::of(length.to_string()));
        let wrong = place.remote.upload(&digest, &mut &*bytes, length as u64);
        assert!(matches!(wrong, Err(RemoteError::Mismatch { expected, .. }) if expected == digest));
        assert!(place.remote.look(&digest).unwrap().is_none(), "{length} bytes");
    }
    assert_eq!(whole_files(&place.files), 0);
}

/// Gives some bytes and then fails, as a disk may.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.0 == 0 {
            return Err(std::io::Error::other("the disk broke"));
        }
        let n = buffer.len().min(self.0);
        self.0 -= n;
        buffer[..n].fill(7);
        Ok(n)
    }
}

fn a_broken_reader_leaves_nothing(place: Place) {
    let digest = Digest::of("whatever");
    for given in [10, 10 << 20] {
        let broken = place.remote.upload(&digest, &mut Broken(given), LARGE as u64);
        assert!(matches!(broken, Err(RemoteError::Local(_))), "{broken:?}");
        assert!(place.remote.look(&digest).unwrap().is_none());
    }
    assert_eq!(whole_files(&place.files), 0);
}

fn only_blobs_are_listed(place: Place) {
    let mut wanted: Vec<Digest> = (0..20).map(|i| put(&place, format!("{i}").as_bytes())).collect();
    fs::write(place.files.join("blobs/sha256/notes.txt"), "not a blob").unwrap();
    let mut found = Vec::new();
    let mut take = |info: BlobInfo| {
        found.push(info.digest);
        ControlFlow::Continue(())
    };
    place.remote.list(&mut take).unwrap();
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    let mut seen = 0;
    let mut enough = |_| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    place.remote.list(&mut enough).unwrap();
    assert_eq!(seen, 3);
}

/// Counts the blobs that the store's directory has, whatever else it keeps there.
fn whole_files(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir.join("blobs/sha256")) else { return 0 };
    let shards = entries.filter_map(|e| fs::read_dir(e.unwrap().path()).ok()).flatten();
    let is_blob = |name: &str| Digest::from_hex(name).is_ok();
    shards.filter(|e| is_blob(e.as_ref().unwrap().file_name().to_str().unwrap())).count()
}

#[test]
fn a_store_that_does_not_answer_is_named_and_its_credentials_are_not() {
    let mut place = s3();
    place.s3.as_mut().unwrap().stop();
    let error = place.remote.check().unwrap_err();
    let RemoteError::Unavailable { place: named, .. } = &error else { panic!("{error:?}") };
    assert_eq!(named, "s3://ashlar/some/prefix");
    assert!(!format!("{error:?}").contains("secret-of-the-tests"));
    assert!(matches!(place.remote.look(&Digest::of("x")), Err(RemoteError::Unavailable { .. })));
    place.s3.as_mut().unwrap().resume();
    place.remote.check().unwrap();
}

#[test]
fn a_bucket_that_is_not_there_and_a_wrong_key_are_errors() {
    let s3 = S3::start();
    let address = s3.url("").replace("//ashlar/", "//other/");
    let other = ashlar_objects::open(&address, s3.variables()).unwrap();
    assert!(other.check().is_err());
    let mut variables = s3.variables();
    variables[1].1 = "wrong".into();
    let refused = ashlar_objects::open(&s3.url(""), variables).unwrap();
    assert!(refused.check().is_err());
    let digest = Digest::of("x");
    assert!(refused.upload(&digest, &mut &b"x"[..], 1).is_err());
    let right = ashlar_objects::open(&s3.url(""), s3.variables()).unwrap();
    assert!(right.look(&digest).unwrap().is_none());
}
