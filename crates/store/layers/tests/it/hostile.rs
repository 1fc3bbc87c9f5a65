//! Archives made to do harm: a table of each and of what must come of it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ashlar_layers::{LayerError, Limits, UnpackOptions};

use crate::support::{TarBuilder, unpack};

/// What must come of an archive.
enum Expect {
    /// An error of this sort.
    Refused,
    Malformed,
    Limit,
    /// It unpacks, and this file is in the root with this content.
    Inside(&'static str, &'static str),
}
use Expect::{Inside, Limit, Malformed, Refused};

fn tar() -> TarBuilder {
    TarBuilder::default()
}

fn header_edit(kind: u8, edit: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let mut builder = tar();
    builder.header(kind, b"f", b"", 0, edit);
    builder.end()
}

fn cases() -> Vec<(&'static str, Vec<u8>, Expect)> {
    let deep = "d/".repeat(600);
    let mut truncated_data = tar();
    truncated_data.header(b'0', b"f", b"", 5000, |_| ());
    truncated_data.0.extend_from_slice(&[b'x'; 700]);
    let mut bad_checksum = tar().file("f", "x").end();
    bad_checksum[0] ^= 1;
    let mut huge_pax = tar();
    huge_pax.header(b'x', b"pax", b"", 1 << 33, |_| ());
    let mut huge_name = tar();
    huge_name.header(b'L', b"long", b"", 1 << 33, |_| ());
    let mut huge_file = tar();
    huge_file.header(b'0', b"f", b"", (1 << 33) - 1, |_| ());
    vec![
        ("dot-dot", tar().file("../evil", "x").end(), Refused),
        ("dot-dot inside", tar().file("a/../../evil", "x").end(), Refused),
        ("dot-dot that stays inside", tar().file("a/../b", "x").end(), Refused),
        ("dot-dot directory", tar().dir("..").end(), Refused),
        ("absolute", tar().file("/evil", "x").end(), Inside("evil", "x")),
        ("many slashes", tar().file("//a///evil", "x").end(), Inside("a/evil", "x")),
        (
            "parent is an absolute link",
            tar().symlink("a", "/outside").file("a/evil", "x").end(),
            Inside("outside/evil", "x"),
        ),
        (
            "parent is a link that climbs",
            tar().dir("b").symlink("a", "../../../b").file("a/evil", "x").end(),
            Inside("b/evil", "x"),
        ),
        (
            "parent is a chain of links",
            tar().dir("d").symlink("a", "b").symlink("b", "/d").file("a/e", "x").end(),
            Inside("d/e", "x"),
        ),
        (
            "links in a circle",
            tar().symlink("a", "b").symlink("b", "a").file("a/e", "").end(),
            Refused,
        ),
        (
            "parent is a magic link",
            tar().symlink("a", "/proc/self/root").file("a/evil", "x").end(),
            Inside("proc/self/root/evil", "x"),
        ),
        (
            "parent is a link that climbs to nothing",
            tar().dir("d").symlink("d/a", "../../../b/c").file("d/a/evil", "x").end(),
            Inside("b/c/evil", "x"),
        ),
        (
            "parent is a link to below a link",
            tar().symlink("a", "/c/./d").symlink("c", "e").file("a/evil", "x").end(),
            Inside("e/d/evil", "x"),
        ),
        (
            "parent is a link down and up",
            tar().symlink("a", "c/../d").file("a/evil", "x").end(),
            Refused,
        ),
        (
            "parent is a link that grows",
            tar().symlink("a", "a/b").file("a/evil", "x").end(),
            Refused,
        ),
        (
            "parent is a deep link",
            tar()
                .pax(&[("linkpath", "d/".repeat(1000).as_bytes())])
                .symlink("a", "-")
                .file("a/evil", "x")
                .end(),
            Refused,
        ),
        (
            "parent is a link with a long name",
            tar()
                .pax(&[("linkpath", "d".repeat(300).as_bytes())])
                .symlink("a", "-")
                .file("a/evil", "x")
                .end(),
            Refused,
        ),
        ("file over a link", tar().symlink("f", "/outside").file("f", "x").end(), Inside("f", "x")),
        ("parent is a file", tar().file("f", "x").file("f/evil", "x").end(), Refused),
        ("hard link out", tar().hard_link("f", "../../outside").end(), Refused),
        ("hard link to an absolute path", tar().hard_link("f", "/etc/passwd").end(), Refused),
        ("hard link to nothing", tar().hard_link("f", "g").end(), Refused),
        ("hard link to itself", tar().file("f", "x").hard_link("f", "./f").end(), Refused),
        ("hard link to a directory", tar().dir("d").hard_link("f", "d").end(), Refused),
        (
            "hard link to a link, then written",
            tar().symlink("s", "/outside").hard_link("h", "s").file("h", "x").end(),
            Inside("h", "x"),
        ),
        (
            "hard link through a link out",
            tar().symlink("s", "/..").hard_link("h", "s/outside").end(),
            Refused,
        ),
        ("root is a file", tar().file("./", "").file(".", "x").end(), Refused),
        ("root is a link", tar().symlink(".", "/outside").end(), Refused),
        ("link without a target", tar().symlink("a", "").end(), Refused),
        ("whiteout of dot-dot", tar().file("a/.wh...", "").end(), Refused),
        ("whiteout of itself", tar().file("a/.wh..", "").end(), Refused),
        ("whiteout of nothing", tar().file("a/.wh.", "").end(), Refused),
        ("inside of a whiteout", tar().file(".wh.a/b", "").end(), Refused),
        ("NUL in a PAX path", tar().pax(&[("path", b"a\0b")]).file("f", "").end(), Malformed),
        ("dot-dot in a PAX path", tar().pax(&[("path", b"../f")]).file("f", "").end(), Refused),
        (
            "dot-dot in a long name",
            tar().member(b'L', b"", b"", b"../f\0").file("f", "").end(),
            Refused,
        ),
        (
            "dot-dot in a sparse name",
            tar().pax(&[("GNU.sparse.name", b"../f")]).file("f", "").end(),
            Refused,
        ),
        (
            "long name of a component",
            tar().pax(&[("path", &[b'n'; 256])]).file("f", "").end(),
            Limit,
        ),
        (
            "long path",
            tar().pax(&[("path", "dir/".repeat(1100).as_bytes())]).file("f", "").end(),
            Limit,
        ),
        ("deep path", tar().pax(&[("path", deep.as_bytes())]).file("f", "").end(), Limit),
        ("huge PAX header", huge_pax.0, Limit),
        ("huge long name", huge_name.0, Limit),
        ("huge file", huge_file.0, Limit),
        (
            "huge sparse file",
            tar()
                .pax(&[("GNU.sparse.map", b"0,1"), ("GNU.sparse.size", b"9000000000000000000")])
                .file("f", "x")
                .end(),
            Limit,
        ),
        (
            "sparse segments that overlap",
            tar()
                .pax(&[("GNU.sparse.map", b"0,1,0,1"), ("GNU.sparse.size", b"5")])
                .file("f", "xx")
                .end(),
            Malformed,
        ),
        (
            "sparse segment past the end",
            tar()
                .pax(&[("GNU.sparse.map", b"18446744073709551615,2"), ("GNU.sparse.size", b"5")])
                .file("f", "xx")
                .end(),
            Malformed,
        ),
        (
            "sparse map without end",
            tar()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"5")])
                .file("f", "9\n")
                .end(),
            Malformed,
        ),
        ("PAX size that lies", tar().pax(&[("size", b"-5")]).file("f", "x").end(), Malformed),
        (
            "PAX record too long",
            tar().member(b'x', b"p", b"", b"99 a=b\n").file("f", "").end(),
            Malformed,
        ),
        ("cut within data", truncated_data.0, Malformed),
        ("cut within a header", tar().file("f", "x").0[..300].to_vec(), Malformed),
        ("wrong checksum", bad_checksum, Malformed),
        ("not a tar", b"hello world".repeat(100), Malformed),
        ("unknown type", tar().member(b'Q', b"f", b"", b"").end(), Malformed),
        (
            "size that is no number",
            header_edit(b'0', |h| h.as_mut_bytes()[124..128].fill(b'z')),
            Malformed,
        ),
        ("negative size", header_edit(b'0', |h| h.as_mut_bytes()[124..136].fill(0xff)), Malformed),
        ("owner beyond 32 bits", header_edit(b'0', |h| h.set_uid(1 << 40)), Malformed),
    ]
}

#[test]
fn hostile_archives_do_no_harm() {
    for (name, archive, expect) in cases() {
        for options in [UnpackOptions::layer(), UnpackOptions::archive("")] {
            // Names that begin with .wh. are ordinary in added archives.
            if name.contains("whiteout") && options.mode == ashlar_layers::UnpackMode::Archive {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("x/root");
            fs::create_dir_all(&root).unwrap();
            fs::write(dir.path().join("x/outside"), "mine").unwrap();
            let limits = Limits { content_bytes: 1 << 30, ..Limits::default() };
            let options = UnpackOptions { limits, ..options };
            let result = unpack(&archive, &root, &options);
            check(name, &expect, result, &root);
            assert_eq!(fs::read_dir(dir.path().join("x")).unwrap().count(), 2, "{name}");
            let outside = dir.path().join("x/outside");
            assert_eq!(fs::read_to_string(&outside).unwrap(), "mine", "{name}");
            assert_eq!(fs::metadata(&outside).unwrap().nlink(), 1, "{name}");
        }
    }
}

fn check<T>(name: &str, expect: &Expect, result: Result<T, LayerError>, root: &Path) {
    let error = result.err();
    if let Some(error) = &error {
        assert!(error.is_input(), "{name}: {error:?}");
    }
    match (expect, error) {
        (Refused, Some(LayerError::Refused { .. }))
        | (Malformed, Some(LayerError::Malformed { .. }))
        | (Limit, Some(LayerError::Limit { .. })) => {}
        (Inside(path, content), None) => {
            let meta = fs::symlink_metadata(root.join(path)).unwrap();
            assert!(meta.is_file(), "{name}");
            assert_eq!(fs::read_to_string(root.join(path)).unwrap(), *content, "{name}");
        }
        (_, other) => panic!("{name}: got {other:?}"),
    }
}

#[test]
fn too_many_members_are_too_many() {
    let archive = (0..20).fold(tar(), |tar, n| tar.file(&n.to_string(), "")).end();
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { members: 10, ..Limits::default() };
    let options = UnpackOptions { limits, ..UnpackOptions::layer() };
    let error = unpack(&archive, dir.path(), &options).unwrap_err();
    assert!(error.to_string().contains("limit of 10"), "{error}");
}

#[test]
fn every_cut_of_an_archive_is_noticed_or_clean() {
    let archive = tar().dir("d").file("d/f", &"x".repeat(700)).symlink("s", "d").end();
    for len in 0..archive.len() {
        let dir = tempfile::tempdir().unwrap();
        let result = unpack(&archive[..len], dir.path(), &UnpackOptions::layer());
        // Without end mark an archive may end after any member.
        let is_boundary = [0, 512, 512 + 512 + 1024, 512 + 512 + 1024 + 512].contains(&len);
        let past_the_mark = len >= 512 + 512 + 1024 + 512 + 512;
        assert_eq!(result.is_ok(), is_boundary || past_the_mark, "cut at {len}");
    }
}

#[test]
fn random_damage_never_panics_or_escapes() {
    let archive = tar()
        .dir("d")
        .pax(&[("path", b"d/long"), ("SCHILY.xattr.user.a", b"1\n2")])
        .file("d/f", "content")
        .hard_link("h", "d/long")
        .symlink("s", "d")
        .file("s/g", "x")
        .end();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..1500 {
        let mut broken = archive.clone();
        for _ in 0..3 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = (state >> 8) as usize % broken.len();
            broken[at] = state as u8;
            // Mend the checksum, so that the damage gets further than to it.
            let block = at / 512 * 512;
            let header = tar::Header::from_byte_slice(&broken[block..block + 512]);
            let mut header = header.clone();
            header.set_cksum();
            if state & 64 == 0 {
                broken[block..block + 512].copy_from_slice(header.as_bytes());
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let limits = Limits { content_bytes: 1 << 24, ..Limits::default() };
        let options = UnpackOptions { devices: false, limits, ..UnpackOptions::layer() };
        drop(unpack(&broken, &root, &options));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
