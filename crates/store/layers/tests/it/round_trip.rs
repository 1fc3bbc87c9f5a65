//! Random trees: what is written, unpacked and read again is the same.

use std::fs;
use std::path::Path;

use ashlar_core::Digest;
use ashlar_layers::{Entries, Entry, Node, TarOptions, UnpackOptions};
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use crate::support::{entries, tar_of, unpack};

/// What to make at one path; parents are made where they are missing.
#[derive(Debug, Clone)]
struct Item {
    path: String,
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    xattr: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
enum Kind {
    File(Vec<u8>),
    Dir { opaque: bool },
    Symlink(String),
    LinkToFirstFile,
    Fifo,
    Whiteout,
    Device(u32, u32),
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Kind::File),
        3 => any::<bool>().prop_map(|opaque| Kind::Dir { opaque }),
        2 => "[a-zé/.]{1,150}".prop_map(Kind::Symlink),
        2 => Just(Kind::LinkToFirstFile),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Whiteout),
        1 => (1..5000_u32, 0..1_000_000_u32).prop_map(|(major, minor)| Kind::Device(major, minor)),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let name = prop_oneof![4 => "[a-c]{1,2}", 1 => "[a-zé \n-]{1,120}"];
    let path = proptest::collection::vec(name, 1..4).prop_map(|parts| parts.join("/"));
    let owner = prop_oneof![Just((0, 0)), (0..5_000_000_u32, 0..100_u32)];
    let xattr = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100));
    (path, kind(), 0..0o7777_u32, owner, -10_000..9_000_000_000_i64, xattr).prop_map(
        |(path, kind, mode, owner, mtime, xattr)| Item { path, kind, mode, owner, mtime, xattr },
    )
}

fn make(root: &Path, item: &Item, first_file: &mut Option<String>) {
    let path = root.join(&item.path);
    if fs::create_dir_all(path.parent().unwrap()).is_err() || path.symlink_metadata().is_ok() {
        return;
    }
    let node = |kind, device| {
        rustix::fs::mknodat(CWD, &path, kind, Mode::empty(), device).unwrap();
    };
    match &item.kind {
        Kind::File(content) => {
            fs::write(&path, content).unwrap();
            first_file.get_or_insert_with(|| item.path.clone());
        }
        Kind::Dir { opaque } => {
            fs::create_dir(&path).unwrap();
            if *opaque {
                let flags = XattrFlags::empty();
                rustix::fs::setxattr(&path, "trusted.overlay.opaque", b"y", flags).unwrap();
            }
        }
        Kind::Symlink(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
        Kind::LinkToFirstFile => {
            if let Some(file) = first_file {
                fs::hard_link(root.join(file), &path).unwrap();
            }
            return;
        }
        Kind::Fifo => node(FileType::Fifo, 0),
        Kind::Whiteout => return node(FileType::CharacterDevice, 0),
        Kind::Device(major, minor) => {
            node(FileType::BlockDevice, rustix::fs::makedev(*major, *minor));
        }
    }
    let (uid, gid) = (Some(Uid::from_raw(item.owner.0)), Some(Gid::from_raw(item.owner.1)));
    rustix::fs::chownat(CWD, &path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    if !matches!(item.kind, Kind::Symlink(_)) {
        rustix::fs::chmod(&path, Mode::from_raw_mode(item.mode)).unwrap();
    }
    if let (Kind::File(_) | Kind::Dir { .. }, Some(value)) = (&item.kind, &item.xattr) {
        rustix::fs::setxattr(&path, "user.test", value, XattrFlags::empty()).unwrap();
    }
    let time = Timespec { tv_sec: item.mtime, tv_nsec: 500 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn written_and_unpacked_is_the_same(items in proptest::collection::vec(item(), 0..25)) {
        let source = tempfile::tempdir().unwrap();
        let mut first_file = None;
        items.iter().for_each(|item| make(source.path(), item, &mut first_file));
        let want = entries(source.path());
        let tar = tar_of(source.path(), &TarOptions::default());
        let target = tempfile::tempdir().unwrap();
        let unpacked = unpack(&tar, target.path(), &UnpackOptions::layer()).unwrap();
        let got = entries(target.path());
        // A whiteout's own time, mode and owner mean nothing and are not kept.
        let plain = |entries: &Entries| -> Vec<Entry> {
            let mut list = entries.as_slice().to_vec();
            for entry in &mut list {
                if entry.node == Node::Whiteout {
                    (entry.mode, entry.uid, entry.gid, entry.mtime) = (0, 0, 0, 0);
                }
                if entry.path.is_empty() {
                    entry.mtime = 0;
                }
            }
            list
        };
        prop_assert_eq!(plain(&got), plain(&want));
        prop_assert_eq!(got.identity(), want.identity());
        prop_assert_eq!(Digest::of(tar_of(target.path(), &TarOptions::default())), Digest::of(&tar));
        for entry in want.as_slice() {
            if let Node::File { content, .. } = entry.node {
                prop_assert_eq!(unpacked.known.get(&entry.path), Some(content));
            }
        }
        let record = want.encode();
        prop_assert_eq!(Entries::decode(&record).unwrap(), want);
        for cut in [0, 1, record.len() / 2, record.len() - 1] {
            prop_assert!(Entries::decode(&record[..cut]).is_err());
        }
    }
}
