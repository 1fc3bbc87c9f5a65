//! What members become on disk.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use ashlar_core::Digest;
use ashlar_layers::{LayerError, Node, UnpackOptions};

use crate::support::{TarBuilder, entries, unpack};

fn layer(tar: TarBuilder) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    unpack(&tar.end(), dir.path(), &UnpackOptions::layer()).unwrap();
    dir
}

fn node(dir: &Path, path: &str) -> Option<Node> {
    entries(dir).find(path.as_bytes()).map(|entry| entry.node.clone())
}

#[test]
fn whiteouts_take_overlays_form() {
    let dir =
        layer(TarBuilder::default().dir("a").file("a/.wh.gone", "").file("a/.wh..wh..opq", ""));
    assert_eq!(node(dir.path(), "a/gone"), Some(Node::Whiteout));
    assert_eq!(node(dir.path(), "a"), Some(Node::Directory { opaque: true }));
}

#[test]
fn what_a_layer_removes_and_makes_again_hides_what_was_below() {
    let orders = [
        TarBuilder::default().file(".wh.a", "").dir("a").file("a/f", "x"),
        TarBuilder::default().dir("a").file("a/f", "x").file(".wh.a", ""),
        TarBuilder::default().file(".wh.a", "").file("a/f", "x"),
    ];
    for tar in orders {
        let dir = layer(tar);
        assert_eq!(node(dir.path(), "a"), Some(Node::Directory { opaque: true }));
        assert_eq!(fs::read_to_string(dir.path().join("a/f")).unwrap(), "x");
    }
    for tar in [
        TarBuilder::default().file("f", "x").file(".wh.f", ""),
        TarBuilder::default().file(".wh.f", "").file("f", "x"),
    ] {
        assert_eq!(fs::read_to_string(layer(tar).path().join("f")).unwrap(), "x");
    }
}

#[test]
fn aufs_leftovers_are_skipped() {
    let dir = layer(TarBuilder::default().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn overlay_attributes_of_an_archive_are_not_believed() {
    let tar = TarBuilder::default()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"s"),
            ("SCHILY.xattr.user.kept", b"a\nb\0c"),
        ])
        .dir("d");
    let dir = layer(tar);
    let found = entries(dir.path());
    let entry = found.find(b"d").unwrap();
    assert_eq!(entry.node, Node::Directory { opaque: false });
    assert_eq!(entry.xattrs, [(b"user.kept".to_vec(), b"a\nb\0c".to_vec())]);
    let mut buffer = [0; 64];
    let path = dir.path().join("d");
    assert!(rustix::fs::getxattr(path, "trusted.overlay.redirect", &mut buffer[..]).is_err());
}

#[test]
fn the_last_of_two_members_wins() {
    let dir =
        layer(TarBuilder::default().file("f", "first").file("./f", "last").dir("d").file("d", "x"));
    assert_eq!(fs::read_to_string(dir.path().join("f")).unwrap(), "last");
    assert_eq!(fs::read_to_string(dir.path().join("d")).unwrap(), "x");
}

#[test]
fn digests_of_unpacked_files_are_those_of_their_bytes() {
    // The link is replaced and its old target is written through another link.
    let tar = TarBuilder::default()
        .file("b/x", "1")
        .symlink("a", "b")
        .file("a/x", "2")
        .file("f", "old")
        .hard_link("g", "f")
        .file("f", "new")
        .hard_link("h", "a/x")
        .end();
    let dir = tempfile::tempdir().unwrap();
    let unpacked = unpack(&tar, dir.path(), &UnpackOptions::layer()).unwrap();
    for (path, content) in [("b/x", "2"), ("f", "new"), ("g", "old"), ("h", "2")] {
        assert_eq!(fs::read_to_string(dir.path().join(path)).unwrap(), content, "{path}");
        if let Some(known) = unpacked.known.get(path.as_bytes()) {
            assert_eq!(known, Digest::of(content), "{path}");
        }
    }
    assert_eq!(unpacked.known.get(b"f"), Some(Digest::of("new")));
    assert_eq!(unpacked.archive_bytes, tar.len() as u64);
}

#[test]
fn an_added_archive_goes_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("opt/real")).unwrap();
    let opt = fs::metadata(dir.path().join("opt/real")).unwrap();
    std::os::unix::fs::symlink("/opt/real", dir.path().join("srv")).unwrap();
    let mut tar = TarBuilder::default();
    tar.header(b'5', b"./", b"", 0, |header| header.set_mode(0o700));
    let tar = tar.dir("sub").file("sub/.wh.f", "kept").file("top", "x").end();
    let options = UnpackOptions { owner: Some((5, 6)), ..UnpackOptions::archive("srv/") };
    unpack(&tar, dir.path(), &options).unwrap();
    let target = dir.path().join("opt/real");
    assert_eq!(fs::read_to_string(target.join("sub/.wh.f")).unwrap(), "kept");
    assert_eq!(fs::metadata(target.join("top")).unwrap().uid(), 5);
    assert_eq!(fs::metadata(target.join("sub")).unwrap().gid(), 6);
    // The archive's own "." says nothing about a directory that was there.
    assert_eq!(fs::metadata(&target).unwrap().mode(), opt.mode());
    assert_eq!(fs::metadata(&target).unwrap().uid(), opt.uid());
}

#[test]
fn devices_are_made_only_where_allowed() {
    let device = |major, minor| {
        let mut tar = TarBuilder::default();
        tar.header(b'3', b"dev/x", b"", 0, |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        });
        tar.end()
    };
    let dir = tempfile::tempdir().unwrap();
    unpack(&device(1, 3), dir.path(), &UnpackOptions::layer()).unwrap();
    assert!(fs::metadata(dir.path().join("dev/x")).unwrap().file_type().is_char_device());
    let archive = UnpackOptions::archive("");
    let with_devices = UnpackOptions { devices: true, ..UnpackOptions::archive("") };
    unpack(&device(1, 3), &dir.path().join("dev"), &with_devices).unwrap();
    assert!(fs::metadata(dir.path().join("dev/dev/x")).unwrap().file_type().is_char_device());
    for (number, options) in [((1, 3), &archive), ((0, 0), &archive), ((0, 0), &with_devices)] {
        let dir = tempfile::tempdir().unwrap();
        let error = unpack(&device(number.0, number.1), dir.path(), options);
        assert!(matches!(error, Err(LayerError::Refused { .. })));
    }
    let dir = tempfile::tempdir().unwrap();
    unpack(&device(0, 0), dir.path(), &UnpackOptions::layer()).unwrap();
    assert_eq!(node(dir.path(), "dev/x"), Some(Node::Whiteout));
}

#[test]
fn a_stopped_unpacking_ends() {
    let options = UnpackOptions::layer();
    options.stop.stop();
    let dir = tempfile::tempdir().unwrap();
    let result = unpack(&TarBuilder::default().file("f", "").end(), dir.path(), &options);
    assert!(matches!(result, Err(LayerError::Stopped)));
}
