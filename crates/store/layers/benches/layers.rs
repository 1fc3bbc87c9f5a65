//! Prints how fast layers are scanned, written, compressed and unpacked on this machine.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people at a terminal")]

use std::fs::{self, File};
use std::io::{Cursor, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ashlar_layers::{
    Compression, KnownFiles, ScanOptions, TarOptions, UnpackOptions, decompress, read_ahead, scan,
    unpack_tar, write_blob, write_tar,
};

const SMALL_FILES: usize = 30_000;
const BIG_MIB: usize = 512;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    make_small(&small);
    measure("30,000 files of 600 B", dir.path(), &small, SMALL_FILES);
    let big = dir.path().join("big");
    make_big(&big);
    measure("one file of 512 MiB, half text", dir.path(), &big, 1);
}

fn make_small(root: &Path) {
    for n in 0..SMALL_FILES {
        let dir = root.join((n / 100).to_string());
        if n % 100 == 0 {
            fs::create_dir_all(&dir).unwrap();
        }
        fs::write(dir.join(n.to_string()), format!("{n:0600}")).unwrap();
    }
}

fn make_big(root: &Path) {
    fs::create_dir(root).unwrap();
    let mut block = Vec::with_capacity(1 << 20);
    File::open("/dev/urandom").unwrap().take(1 << 19).read_to_end(&mut block).unwrap();
    let text: Vec<u8> = (0..100_000).flat_map(|n| format!("line {n} ").into_bytes()).collect();
    block.extend_from_slice(&text[..1 << 19]);
    fs::write(root.join("big"), block.repeat(BIG_MIB)).unwrap();
}

fn measure(what: &str, temporary: &Path, source: &Path, files: usize) {
    println!("{what}");
    let root = File::open(source).unwrap();
    let options = ScanOptions::default();
    let (time, found) = timed(|| scan(root.as_fd(), &KnownFiles::new(), &options).unwrap());
    let bytes = found.content_bytes;
    report("scan and hash", time, bytes, files);
    let mut known = KnownFiles::new();
    for entry in found.entries.as_slice() {
        if let ashlar_layers::Node::File { content, .. } = entry.node {
            known.insert(&entry.path, content);
        }
    }
    let (time, _) = timed(|| scan(root.as_fd(), &known, &options).unwrap());
    report("scan, contents known", time, bytes, files);
    let mut tar = Vec::with_capacity(usize::try_from(bytes).unwrap() * 2);
    let tar_options = TarOptions::default();
    let (time, _) =
        timed(|| write_tar(&found.entries, root.as_fd(), &mut tar, &tar_options).unwrap());
    report("write the tar", time, bytes, files);
    for compression in [Compression::None, Compression::GZIP, Compression::ZSTD] {
        let mut blob = Vec::with_capacity(tar.len() + 1024);
        let (time, _) = timed(|| {
            write_blob(&found.entries, root.as_fd(), compression, &tar_options, &mut blob).unwrap()
        });
        report(&format!("write the blob, {compression:?}"), time, bytes, files);
        // Nothing is deleted before the end: files made soon after many were deleted take longer on
        // ext4 without a journal (1.5 times as long for 20,000 after 40,000, measured).
        let target = temporary.join(format!("{files}-{compression:?}"));
        fs::create_dir(&target).unwrap();
        let target_fd = File::open(&target).unwrap();
        let layer = UnpackOptions::layer();
        let (time, _) = timed(|| {
            let (_, plain) = decompress(Cursor::new(blob)).unwrap();
            read_ahead(plain, |tar| unpack_tar(tar, target_fd.as_fd(), &layer)).unwrap()
        });
        report(&format!("unpack the blob, {compression:?}"), time, bytes, files);
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let done = work();
    (start.elapsed(), done)
}

fn report(what: &str, time: Duration, bytes: u64, files: usize) {
    let seconds = time.as_secs_f64();
    let rate = bytes as f64 / 1e6 / seconds;
    println!("  {what:32} {seconds:7.3} s {rate:9.1} MB/s {:9.0} files/s", files as f64 / seconds);
}
