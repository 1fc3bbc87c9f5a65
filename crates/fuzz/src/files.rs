//! Archives: what they unpack to stays below the directory that it is unpacked into.

use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use ashlar_blobs::BlobStore;
use ashlar_layers::{Limits, UnpackOptions, decompress, unpack_tar};
use ashlar_oci::read_archive;

/// Bytes that an input may unpack to: enough for all that matters, and fast.
const BYTES_MAX: u64 = 1 << 20;
/// What stands beside the directory and must stay as it is.
const OUTSIDE: &str = "outside";

/// Any bytes as a compressed layer.
///
/// # Panics
/// When something outside of the layer's directory has changed.
pub fn layer(data: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let root = dir.path().join("root");
    let outside = dir.path().join(OUTSIDE);
    let made = fs::create_dir(&root).and_then(|()| fs::write(&outside, OUTSIDE));
    let Ok(root) = made.and_then(|()| File::open(&root)) else { return };
    let Ok((_, input)) = decompress(data) else { return };
    let limits = Limits { content_bytes: BYTES_MAX, ..Limits::default() };
    let options = UnpackOptions { devices: false, limits, ..UnpackOptions::layer() };
    let input = BufReader::new(input.take(BYTES_MAX));
    let _ = unpack_tar(input, root.as_fd(), &options);
    untouched(dir.path());
}

fn untouched(dir: &Path) {
    let names = fs::read_dir(dir).map(|d| d.flatten().count());
    assert_eq!(names.ok(), Some(2), "something new outside");
    let content = fs::read_to_string(dir.join(OUTSIDE)).ok();
    assert_eq!(content.as_deref(), Some(OUTSIDE), "a file outside was written");
}

/// Any bytes as an archive of images: what it leaves is only blobs with the right names.
///
/// # Panics
/// When a blob is not what its name says.
pub fn archive(data: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let Ok(blobs) = BlobStore::open(dir.path()) else { return };
    let _ = read_archive(data, &blobs);
    for blob in blobs.list().unwrap_or_default() {
        assert!(blobs.verify(&blob.digest).is_ok(), "{} is something else", blob.digest);
    }
}
