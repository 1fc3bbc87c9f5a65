//! Archives and compressions as other tools make them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use ashlar_layers::{Format, UnpackOptions, decompress, read_ahead};

use crate::support::{entries, unpack};

fn gnu_tar(dir: &Path, arguments: &[&str]) -> Vec<u8> {
    let out =
        Command::new("tar").arg("-C").arg(dir).args(arguments).args(["-cf", "-", "."]).output();
    let out = out.expect("this test needs the package 'tar'");
    assert!(out.status.success(), "{out:?}");
    out.stdout
}

fn sample(root: &Path) {
    let long = "long-".repeat(45);
    fs::create_dir_all(root.join(&long)).unwrap();
    fs::write(root.join(&long).join(&long), "x").unwrap();
    std::os::unix::fs::symlink(&long, root.join("link")).unwrap();
    fs::write(root.join("a"), "a").unwrap();
    fs::hard_link(root.join("a"), root.join("b")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    for n in 0..60_u64 {
        use std::os::unix::fs::FileExt as _;
        sparse.write_all_at(&[n as u8 + 1; 5000], n * 100_000).unwrap();
    }
    sparse.set_len(7_000_000).unwrap();
    fs::write(root.join("all-hole"), "").unwrap();
    fs::File::options().write(true).open(root.join("all-hole")).unwrap().set_len(50_000).unwrap();
}

#[test]
fn every_format_of_gnu_tar_unpacks_to_the_same() {
    let source = tempfile::tempdir().unwrap();
    sample(source.path());
    let want = entries(source.path());
    let formats: [&[&str]; 6] = [
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=pax"],
        &["--format=pax", "--sparse", "--sparse-version=0.0"],
        &["--format=pax", "--sparse", "--sparse-version=0.1"],
        &["--format=pax", "--sparse", "--sparse-version=1.0"],
    ];
    for format in formats {
        let tar = gnu_tar(source.path(), format);
        let dir = tempfile::tempdir().unwrap();
        let unpacked = unpack(&tar, dir.path(), &UnpackOptions::layer()).unwrap();
        let got = entries(dir.path());
        // The root directory of a temporary directory has mode 0700, which "./" carries over.
        assert_eq!(got.identity(), want.identity(), "{format:?}");
        for entry in want.as_slice() {
            assert_eq!(got.find(&entry.path).unwrap().mtime, entry.mtime, "{format:?}");
            if let ashlar_layers::Node::File { content, .. } = &entry.node {
                assert_eq!(unpacked.known.get(&entry.path), Some(*content), "{format:?}");
            }
        }
        if format.contains(&"--sparse") {
            use std::os::unix::fs::MetadataExt as _;
            let blocks = fs::metadata(dir.path().join("sparse")).unwrap().blocks();
            assert!(blocks * 512 < 2_000_000, "{format:?}: holes are kept");
        }
    }
}

fn through(program: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|_| panic!("this test needs the program '{program}'"));
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success());
    output.stdout
}

#[test]
fn every_compression_is_recognised() {
    let text: Vec<u8> = (0..200_000_u32).flat_map(|n| n.to_le_bytes()).collect();
    let packed = [
        (Format::Plain, text.clone()),
        (Format::Gzip, through("gzip", &text)),
        (Format::Bzip2, through("bzip2", &text)),
        (Format::Xz, through("xz", &text)),
        (Format::Zstd, zstd::encode_all(text.as_slice(), 3).unwrap()),
    ];
    for (format, bytes) in packed {
        // Two in a row are one stream in every one of the formats.
        let twice = [bytes.as_slice(), &bytes].concat();
        let (found, mut plain) = decompress(twice.as_slice()).unwrap();
        let mut back = Vec::new();
        plain.read_to_end(&mut back).unwrap();
        assert_eq!(found, format);
        assert!(back == [text.as_slice(), &text].concat(), "{format:?}");
        if format != Format::Plain {
            let cut = &bytes[..bytes.len() - 3];
            let read = decompress(cut).unwrap().1.read_to_end(&mut Vec::new());
            assert!(read.is_err(), "{format:?} cut short");
            let read =
                decompress(&bytes[..8]).and_then(|(_, mut r)| r.read_to_end(&mut Vec::new()));
            assert!(read.is_err(), "{format:?} cut at once");
        }
    }
}

#[test]
fn reading_ahead_gives_the_bytes_and_their_digest() {
    for len in [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000] {
        let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let (read, digest) = read_ahead(bytes.as_slice(), |input| {
            let mut head = vec![0; len / 2];
            input.read_exact(&mut head).unwrap();
            Ok(head)
        })
        .unwrap();
        assert!(read == bytes[..len / 2]);
        assert_eq!(digest, ashlar_core::Digest::of(&bytes));
    }
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
    }
    assert!(read_ahead(Broken, |_| Ok(())).is_err());
}
