//! The tars that are written: deterministic, complete, readable by others.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;

use ashlar_core::Digest;
use ashlar_layers::{Compression, LayerError, TarOptions, decompress, write_blob, write_tar};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::support::{entries, tar_of};

/// A capability set as the kernel stores it: version 2, `cap_net_bind_service` effective.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn sample(root: &Path) {
    fs::create_dir_all(root.join("dir/empty")).unwrap();
    fs::write(root.join("dir/file"), "content").unwrap();
    fs::hard_link(root.join("dir/file"), root.join("dir/link")).unwrap();
    std::os::unix::fs::symlink("../x/é".to_owned() + &"y".repeat(150), root.join("sym")).unwrap();
    fs::write(root.join("n".repeat(200)), "long").unwrap();
    fs::create_dir_all(root.join("p".repeat(90))).unwrap();
    fs::write(root.join("p".repeat(90)).join("q".repeat(60)), "prefix").unwrap();
    fs::write(root.join("dir/capable"), "x").unwrap();
    std::os::unix::fs::chown(root.join("dir/capable"), Some(3_000_000), Some(5)).unwrap();
    let no_flags = XattrFlags::empty();
    rustix::fs::setxattr(root.join("dir/capable"), "security.capability", CAPABILITY, no_flags)
        .unwrap();
    rustix::fs::setxattr(root.join("dir/capable"), "user.a", b"1\n\xff", no_flags).unwrap();
    rustix::fs::mknodat(CWD, root.join("gone"), FileType::CharacterDevice, Mode::empty(), 0)
        .unwrap();
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    rustix::fs::chmod(root.join("dir/file"), Mode::from_raw_mode(0o6711)).unwrap();
    rustix::fs::setxattr(root.join("dir"), "trusted.overlay.opaque", b"y", no_flags).unwrap();
    let outside = root.with_extension("outside");
    fs::write(&outside, "shared between layers").unwrap();
    fs::hard_link(&outside, root.join("shared")).unwrap();
    // A store made of hard links must not show in the archive.
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    fs::File::options().write(true).open(root.join("shared")).unwrap().set_modified(old).unwrap();
}

#[test]
fn another_reader_sees_everything() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    sample(&root);
    let bytes = tar_of(&root, &TarOptions::default());
    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let kind = entry.header().entry_type().as_byte() as char;
        assert_eq!(entry.header().username().unwrap(), Some(""));
        match path.as_str() {
            "dir/capable" => {
                // That crate cuts records at newlines, which the third one has in its value.
                let pax = entry.pax_extensions().unwrap().unwrap().take(2);
                let pax: Vec<_> = pax.map(Result::unwrap).collect();
                assert_eq!(pax[0].key().unwrap(), "uid");
                assert_eq!(pax[0].value_bytes(), b"3000000");
                assert_eq!(pax[1].key().unwrap(), "SCHILY.xattr.security.capability");
                assert_eq!(pax[1].value_bytes(), CAPABILITY);
            }
            "dir/file" => assert_eq!(entry.header().mode().unwrap(), 0o6711),
            "dir/link" => {
                assert_eq!(entry.link_name().unwrap().unwrap().to_str(), Some("dir/file"))
            }
            "shared" => {
                assert_eq!(entry.header().mtime().unwrap(), 1_000_000_000);
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                assert_eq!(content, "shared between layers");
            }
            _ => {}
        }
        seen.push(format!("{kind}{path}"));
    }
    let (p, q, n) = ("p".repeat(90), "q".repeat(60), "n".repeat(200));
    let want = [
        "5dir/",
        "0dir/.wh..wh..opq",
        "0dir/capable",
        "5dir/empty/",
        "0dir/file",
        "1dir/link",
        "6fifo",
        "0.wh.gone",
        &format!("0{n}"),
        &format!("5{p}/"),
        &format!("0{p}/{q}"),
        "0shared",
        "2sym",
    ];
    assert_eq!(seen, want);
}

#[test]
fn gnu_tar_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    sample(&root);
    let path = dir.path().join("layer.tar");
    fs::write(&path, tar_of(&root, &TarOptions::default())).unwrap();
    let out = std::process::Command::new("tar").arg("-tvf").arg(&path).output();
    let out = out.expect("this test needs the package 'tar'");
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    assert_eq!(String::from_utf8(out.stdout).unwrap().lines().count(), 13);
}

#[test]
fn the_same_tree_made_twice_is_the_same_tar() {
    let dir = tempfile::tempdir().unwrap();
    let epoch = TarOptions { source_date_epoch: Some(1_100_000_000), ..TarOptions::default() };
    let digests: Vec<_> = ["one", "another"]
        .iter()
        .map(|name| {
            let root = dir.path().join(name);
            fs::create_dir(&root).unwrap();
            sample(&root);
            // Made in another order, the inodes and directory blocks differ.
            if *name == "another" {
                fs::rename(root.join("dir/file"), root.join("zzz")).unwrap();
                fs::rename(root.join("zzz"), root.join("dir/file")).unwrap();
                let late = std::time::SystemTime::now() + std::time::Duration::from_secs(100_000);
                fs::File::open(root.join("dir")).unwrap().set_modified(late).unwrap();
            }
            (Digest::of(tar_of(&root, &epoch)), entries(&root).identity())
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn blobs_decompress_to_the_tar() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    sample(&root);
    let text: Vec<u8> = (0..800_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
    fs::write(root.join("big"), text).unwrap();
    let plain = tar_of(&root, &TarOptions::default());
    for compression in [Compression::None, Compression::GZIP, Compression::ZSTD] {
        let mut blob = Vec::new();
        let fs = fs::File::open(&root).unwrap();
        let options = TarOptions::default();
        let made =
            write_blob(&entries(&root), fs.as_fd(), compression, &options, &mut blob).unwrap();
        assert_eq!((made.diff_id, made.digest), (Digest::of(&plain), Digest::of(&blob)));
        assert_eq!((made.tar_bytes, made.bytes), (plain.len() as u64, blob.len() as u64));
        let mut back = Vec::new();
        decompress(blob.as_slice()).unwrap().1.read_to_end(&mut back).unwrap();
        assert!(back == plain);
    }
}

#[test]
fn what_a_tar_cannot_say_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".wh.odd"), "x").unwrap();
    let found = entries(dir.path());
    let root = fs::File::open(dir.path()).unwrap();
    let write = |found| write_tar(found, root.as_fd(), &mut Vec::new(), &TarOptions::default());
    assert!(matches!(write(&found), Err(LayerError::Unrepresentable { .. })));
    fs::rename(dir.path().join(".wh.odd"), dir.path().join("f")).unwrap();
    let found = entries(dir.path());
    fs::write(dir.path().join("f"), "").unwrap();
    assert!(matches!(write(&found), Err(LayerError::Changed { .. })));
}
