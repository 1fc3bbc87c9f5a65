use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Mutex;

use ashlar_core::journal::{Event, Sink};
use tokio::sync::mpsc::unbounded_channel;

use super::*;

struct Nobody;

impl Sink for Nobody {
    fn event(&self, _: Event) {}
}

fn transfer(place: &std::path::Path, wish: Wish) -> Transfer {
    Transfer {
        name: "context".into(),
        place: place.to_owned(),
        wish,
        counts: Arc::new(Counts::new(Arc::new(Nobody))),
        stop: Stop::default(),
    }
}

/// Runs a transfer whose daemon asks for all these.
fn run(transfer: Transfer, asks: &[Ask]) -> (Result<(), SyncError>, Vec<Packet>) {
    let (to, asked) = unbounded_channel();
    asks.iter().for_each(|a| to.send(*a).unwrap());
    drop(to);
    let packets = Mutex::new(Vec::new());
    let send = |packet| {
        packets.lock().unwrap().push(packet);
        true
    };
    let result = transfer.run(asked, &send);
    (result, packets.into_inner().unwrap())
}

#[test]
fn entries_are_told_in_order_and_files_sent_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    std::fs::write(dir.path().join("d/f"), vec![b'x'; PIECE_BYTES + 1]).unwrap();
    std::fs::write(dir.path().join("d.txt"), "").unwrap();
    std::fs::hard_link(dir.path().join("d/f"), dir.path().join("same")).unwrap();
    symlink("d/f", dir.path().join("to")).unwrap();
    let odd = std::fs::Permissions::from_mode(0o4751);
    std::fs::set_permissions(dir.path().join("d.txt"), odd).unwrap();
    let transfer = transfer(dir.path(), Wish::default());
    let counts = Arc::clone(&transfer.counts);
    let (result, packets) = run(transfer, &[Ask::File(1), Ask::Done]);
    result.unwrap();
    let stats: Vec<&Stat> = packets.iter().filter_map(|p| p.stat.as_ref()).collect();
    let told: Vec<(&str, u32, &str)> =
        stats.iter().map(|s| (s.path.as_str(), s.mode & !0o777, s.linkname.as_str())).collect();
    let want = [
        ("d", 1 << 31, ""),
        ("d/f", 0, ""),
        ("d.txt", 1 << 23, ""),
        ("same", 0, "d/f"),
        ("to", 1 << 27, "d/f"),
    ];
    assert_eq!(told, want);
    assert_eq!(stats[2].mode & 0o777, 0o751);
    let data: Vec<usize> = packets
        .iter()
        .filter(|p| p.r#type == i32::from(PacketType::PacketData))
        .map(|p| p.data.len())
        .collect();
    assert_eq!(data, [PIECE_BYTES, 1, 0]);
    assert_eq!(packets.last().unwrap().r#type, i32::from(PacketType::PacketFin));
    let want = Sent { listed: 5, files: 1, bytes: PIECE_BYTES as u64 + 1 };
    assert_eq!(counts.sent(), want);
}

#[test]
fn a_daemon_gets_no_file_that_it_was_not_told_of_and_none_twice() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "x").unwrap();
    std::fs::write(dir.path().join("secret"), "y").unwrap();
    let wish = || Wish { exclude: vec!["secret".into()], ..Wish::default() };
    for asks in [&[Ask::File(1)][..], &[Ask::File(0), Ask::File(0)], &[Ask::File(u32::MAX)]] {
        let (result, packets) = run(transfer(dir.path(), wish()), asks);
        assert!(matches!(result, Err(SyncError::NoSuchFile(_))), "{asks:?}");
        assert!(packets.iter().all(|p| p.data != b"y"));
    }
}

#[test]
fn followed_paths_take_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", ".dockerignore"] {
        std::fs::write(dir.path().join(name), name).unwrap();
    }
    let wish = Wish { follow: vec!["b".into(), "gone".into()], ..Wish::default() };
    let (result, packets) = run(transfer(dir.path(), wish), &[Ask::Done]);
    result.unwrap();
    let told: Vec<&str> =
        packets.iter().filter_map(|p| p.stat.as_ref()).map(|s| s.path.as_str()).collect();
    assert_eq!(told, ["b"]);
}
