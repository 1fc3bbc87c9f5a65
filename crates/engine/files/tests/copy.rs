//! The rules of `COPY` and `ADD`. Where a row has a remark, dockerd 28.5's BuildKit did the same.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(unreachable_pub, reason = "helpers are shared by several tests")]
mod common;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, SystemTime};

use ashlar_core::Digest;
use ashlar_core::graph::{Copy, FileAction, Mode, Owner, OwnerPart};
use ashlar_files::ops::{Base, FileOpError, Input, Options, apply};
use ashlar_files::{ContextError, Root};
use ashlar_layers::KnownFiles;
use common::{Places, copy, lines, make};

const SOURCE: &[&str] = &[
    "d/ 0750 7:8",
    "d/f 0640 7:8 text",
    "d/sub/ 0700",
    "d/sub/g 0600 deep",
    "d/link -> f",
    "e/ 0755",
    "e/f 0644 other",
    "dl -> d",
    "fl -> d/f",
    "top 0755 top",
];

/// Sources, destination, what the base has, what it has then.
type Row<'a> = (&'a [&'a str], &'a str, &'a [&'a str], &'a [&'a str]);

const D_AT_X: &[&str] =
    &["x/ 0755", "x/f 0640 text", "x/link -> f", "x/sub/ 0700", "x/sub/g 0600 deep"];

const ROWS: &[Row<'_>] = &[
    // One file: to a name, into a directory that is there, into one that the slash asks for.
    (&["d/f"], "/x", &[], &["x 0640 text"]),
    (&["d/f"], "/x", &["x/ 0700"], &["x/ 0700", "x/f 0640 text"]),
    (&["d/f"], "/x/", &[], &["x/ 0755", "x/f 0640 text"]),
    (&["d/f"], "/x/.", &[], &["x/ 0755", "x/f 0640 text"]),
    (&["d/f"], "/a/b/c", &[], &["a/ 0755", "a/b/ 0755", "a/b/c 0640 text"]),
    (&["d/f"], "/x", &["x 0777 old"], &["x 0640 text"]),
    // A directory: its contents; a new destination gets 0755, one that exists keeps its mode.
    (&["d"], "/x", &[], D_AT_X),
    (&["d/"], "/x/", &[], D_AT_X),
    (
        &["d"],
        "/x",
        &["x/ 0711 3:4", "x/sub/ 0777 5:6", "x/sub/keep 0600 k"],
        &[
            "x/ 0711 3:4",
            "x/f 0640 text",
            "x/link -> f",
            "x/sub/ 0700",
            "x/sub/g 0600 deep",
            "x/sub/keep 0600 k",
        ],
    ),
    // Links: a source is followed and keeps its own name, inside of directories they stay links.
    (&["dl"], "/x", &[], D_AT_X),
    (&["fl"], "/x/", &[], &["x/ 0755", "x/fl 0640 text"]),
    (&["d/link"], "/x", &[], &["x 0640 text"]),
    (&["d/../dl/f"], "/x", &[], &["x 0640 text"]),
    // Links in the destination are followed, within the tree, and stay.
    (
        &["top"],
        "/l",
        &["real/ 0755", "l -> /real"],
        &["l -> /real", "real/ 0755", "real/top 0755 top"],
    ),
    (&["top"], "/l", &["l -> /gone"], &["gone 0755 top", "l -> /gone"]),
    (&["top"], "/l", &["l -> gone/deep"], &["gone/ 0755", "gone/deep 0755 top", "l -> gone/deep"]),
    (&["top"], "/l", &["old 0600 old", "l -> ../../old"], &["l -> ../../old", "old 0755 top"]),
    (&["e"], "/l", &["l -> /gone"], &["gone/ 0755", "gone/f 0644 other", "l -> /gone"]),
    // ... but one that a file of a directory replaces is replaced itself.
    (
        &["e"],
        "/x",
        &["x/ 0755", "x/f -> /t", "t 0600 t"],
        &["t 0600 t", "x/ 0755", "x/f 0644 other"],
    ),
    // Several sources, wildcards, and `..`, which stops at the root.
    (&["top", "d/sub"], "/x/", &[], &["x/ 0755", "x/g 0600 deep", "x/top 0755 top"]),
    (&["t*", "*/f"], "/x/", &[], &["x/ 0755", "x/f 0644 other", "x/top 0755 top"]),
    (&["[de]/sub"], "/x/", &[], &["x/ 0755", "x/g 0600 deep"]),
    (&["none*"], "/x/", &[], &[]),
    (&["../../top"], "/../../x", &[], &["x 0755 top"]),
    (&["e"], "/", &["f 0600 old", "k 0600 k"], &["f 0644 other", "k 0600 k"]),
];

#[test]
fn copies_as_buildkit_does() {
    for (sources, destination, before, after) in ROWS {
        let places = Places::new(SOURCE, before);
        let got = places.copy_context(copy(sources, destination));
        let got = got.unwrap_or_else(|e| panic!("{sources:?} to {destination}: {e}"));
        assert_eq!(got, *after, "{sources:?} to {destination}, before: {before:?}");
    }
}

#[test]
fn what_stands_in_the_way_is_an_error() {
    let fail = |sources: &[&str], destination: &str, before: &[&str]| {
        Places::new(SOURCE, before).copy_context(copy(sources, destination)).unwrap_err()
    };
    let not_dir = |e| matches!(e, FileOpError::NotDirectory { .. });
    assert!(matches!(fail(&["d/f"], "/x/", &["x/f/ 0755"]), FileOpError::IsDirectory { .. }));
    assert!(not_dir(fail(&["d"], "/x", &["x 0600 file"])));
    assert!(not_dir(fail(&["d/f"], "/x/y", &["x 0600 file"])));
    assert!(not_dir(fail(&["d/f"], "/x/", &["x 0600 file"])));
    assert!(not_dir(fail(&["d"], "/x", &["x/ 0755", "x/sub 0600 file"])));
    assert!(not_dir(fail(&["d"], "/x", &["x/ 0755", "y/ 0755", "x/sub -> /y"])));
    assert!(matches!(fail(&["d/f"], "/l/x", &["l -> l"]), FileOpError::Links { .. }));
    let missing = fail(&["gone"], "/x", &[]);
    assert!(matches!(missing, FileOpError::Source(ContextError::NotFound { excluded: false, .. })));
    assert!(missing.is_input() && missing.to_string().contains("'gone'"));
}

#[test]
fn owners_and_modes_are_set_on_everything() {
    let owner = |user, group| Some(Owner { user, group });
    let places = Places::new(SOURCE, &["etc/passwd 0644 app:x:10:20::/:"]);
    let named = Copy {
        owner: owner(OwnerPart::Name("app".into()), None),
        mode: Some(Mode::Bits(0o4711)),
        ..copy(&["d"], "/p/x")
    };
    let got = places.copy_context(named).unwrap();
    let want = [
        "p/ 0711 10:20",
        "p/x/ 0711 10:20",
        "p/x/f 4711 10:20 text",
        "p/x/link -> f 10:20",
        "p/x/sub/ 4711 10:20",
        "p/x/sub/g 4711 10:20 deep",
    ];
    assert_eq!(got[2..], want);
    let symbolic = Copy { mode: Some(Mode::Symbolic("go=u,o-w".into())), ..copy(&["d"], "/x") };
    let got = Places::new(SOURCE, &[]).copy_context(symbolic).unwrap();
    let want = ["x/ 0755", "x/f 0664 text", "x/link -> f", "x/sub/ 0775", "x/sub/g 0664 deep"];
    assert_eq!(got, want);
    let unknown = Copy { owner: owner(OwnerPart::Name("who".into()), None), ..copy(&["d"], "/x") };
    let got = Places::new(SOURCE, &["x/ 0755 3:4"]).copy_context(unknown).unwrap();
    assert_eq!(got[1], "x/f 0640 text");
}

#[test]
fn a_strict_copy_refuses_owners_that_the_tree_lacks() {
    let accounts = ["etc/passwd 0644 app:x:10:20::/:", "etc/group 0644 web:x:30:"];
    let name = |name: &str| OwnerPart::Name(name.into());
    let copied = |user, group| {
        let owner = Some(Owner { user, group });
        let copy = Copy { owner, strict_owner: true, ..copy(&["d/f"], "/x") };
        Places::new(SOURCE, &accounts).copy_context(copy)
    };
    let last = |lines: Vec<String>| lines.last().cloned().unwrap();
    assert_eq!(last(copied(name("app"), Some(name("web"))).unwrap()), "x 0640 10:30 text");
    assert_eq!(last(copied(OwnerPart::Id(7), None).unwrap()), "x 0640 7:7 text");
    for (owner, said) in [
        ((name("who"), None), "the user 'who'"),
        ((name("app"), Some(name("who"))), "the group 'who'"),
        ((OwnerPart::Id(7), Some(name("who"))), "the group 'who'"),
    ] {
        let error = copied(owner.0, owner.1).unwrap_err();
        assert!(error.is_input() && error.to_string().contains(said), "{error}");
    }
}

#[test]
fn trees_keep_owners_and_contexts_do_not() {
    let got = Places::new(SOURCE, &[]).copy_tree(copy(&["d"], "/x")).unwrap();
    let want = ["x/ 0755", "x/f 0640 7:8 text", "x/link -> f", "x/sub/ 0700", "x/sub/g 0600 deep"];
    assert_eq!(got, want);
}

#[test]
fn exclude_leaves_out_and_spares() {
    let exclude = |patterns: &[&str]| {
        let exclude = patterns.iter().map(|p| (*p).to_owned()).collect();
        let places = Places::new(SOURCE, &[]);
        places.copy_context(Copy { exclude, ..copy(&["d"], "/x") }).unwrap()
    };
    assert_eq!(exclude(&["sub"]), ["x/ 0755", "x/f 0640 text", "x/link -> f"]);
    let no_g = ["x/ 0755", "x/f 0640 text", "x/link -> f", "x/sub/ 0700"];
    assert_eq!(exclude(&["**/g"]), no_g);
    assert_eq!(exclude(&["**", "!sub/g"]), ["x/ 0755", "x/sub/ 0700", "x/sub/g 0600 deep"]);
}

#[test]
fn parents_are_made_from_the_pivot_on() {
    let parents = |source: &str| {
        let places = Places::new(SOURCE, &[]);
        places.copy_context(Copy { parents: true, ..copy(&[source], "/x/") })
    };
    let full = ["x/ 0755", "x/d/ 0750", "x/d/sub/ 0700", "x/d/sub/g 0600 deep"];
    assert_eq!(parents("d/sub/g").unwrap(), full);
    assert_eq!(parents("./d/s*/g").unwrap(), full);
    assert_eq!(parents("d/./sub/g").unwrap(), ["x/ 0755", "x/sub/ 0700", "x/sub/g 0600 deep"]);
    assert_eq!(parents("**/g").unwrap(), full);
    assert!(parents("d/./gone").is_err());
    assert_eq!(parents("d/./gone*").unwrap(), Vec::<String>::new());
}

#[test]
fn whole_directories_and_literal_names() {
    let places = Places::new(SOURCE, &["x/ 0755"]);
    let whole = Copy { whole_directory: true, ..copy(&["e"], "/x") };
    assert_eq!(places.copy_context(whole).unwrap(), ["x/ 0755", "x/e/ 0755", "x/e/f 0644 other"]);
    let places = Places::new(&["a*b 0644 star", "aXb 0644 x"], &[]);
    let literal = Copy { literal: true, ..copy(&["a*b"], "/x/") };
    assert_eq!(places.copy_context(literal).unwrap(), ["x/ 0755", "x/a*b 0644 star"]);
    let missing = Copy { missing_ok: true, ..copy(&["gone"], "/x/") };
    assert_eq!(Places::new(SOURCE, &[]).copy_context(missing).unwrap(), Vec::<String>::new());
}

#[test]
fn times_links_and_special_files_come_along() {
    let places = Places::new(&["d/ 0755", "d/a 0644 same", "d/z = d/a", "d/sub/ 0755"], &[]);
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let set = |name: &str| {
        fs::File::open(places.source.join(name)).unwrap().set_modified(old).unwrap();
    };
    assert!(Command::new("mkfifo").arg(places.source.join("d/pipe")).status().unwrap().success());
    let _socket = UnixListener::bind(places.source.join("d/sock")).unwrap();
    ["d/a", "d/sub", "d"].into_iter().for_each(set);
    places.copy_context(copy(&["d"], "/x")).unwrap();
    let meta = |name: &str| fs::symlink_metadata(places.base.join(name)).unwrap();
    for name in ["x", "x/a", "x/sub"] {
        assert_eq!(meta(name).modified().unwrap(), old, "{name}");
    }
    assert_eq!((meta("x/a").ino(), meta("x/a").nlink()), (meta("x/z").ino(), 2));
    assert!(meta("x/pipe").file_type().is_fifo());
    assert!(meta("x/sock").is_file() && meta("x/sock").len() == 0);
}

#[test]
fn capabilities_stay_with_trees_only() {
    let places = Places::new(&["d/ 0755", "d/prog 0755 x"], &[]);
    let set =
        Command::new("setcap").arg("cap_net_raw+ep").arg(places.source.join("d/prog")).status();
    assert!(
        set.is_ok_and(|s| s.success()),
        "setcap failed; install the Debian package libcap2-bin"
    );
    let name = c"security.capability";
    let has = |p: &str| {
        let mut value = [0_u8; 64];
        rustix::fs::getxattr(places.base.join(p), name, &mut value[..]).is_ok()
    };
    let owner = Some(Owner { user: OwnerPart::Id(5), group: None });
    places.copy_tree(Copy { owner, ..copy(&["d"], "/tree") }).unwrap();
    places.copy_context(copy(&["d"], "/context")).unwrap();
    assert!(has("tree/prog") && !has("context/prog"));
}

#[test]
fn large_and_sparse_files_are_copied_and_known() {
    let places = Places::new(&[], &[]);
    let big: Vec<u8> = (0..3_000_000_u32).map(|i| ((i * 7) >> 3) as u8).collect();
    fs::write(places.source.join("big"), &big).unwrap();
    let sparse = fs::File::create(places.source.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"mid", 40_000_000).unwrap();
    sparse.set_len(80_000_000).unwrap();
    let mut zeros = vec![0; 80_000_000];
    zeros[40_000_000..40_000_003].copy_from_slice(b"mid");
    for as_tree in [false, true] {
        let root = Root::open(&places.source).unwrap();
        let context = places.context();
        let input = if as_tree { Input::Tree(&root) } else { Input::Context(&context) };
        let mut known = KnownFiles::new();
        let base = Base::plain(Root::open(&places.base).unwrap());
        let action = FileAction::Copy(Box::new(copy(&["big", "sparse"], "/x/")));
        apply(&[action], &base, &[input], &mut known, &Options::default()).unwrap();
        assert_eq!(fs::read(places.base.join("x/big")).unwrap(), big);
        assert_eq!(fs::read(places.base.join("x/sparse")).unwrap(), zeros);
        assert!(fs::metadata(places.base.join("x/sparse")).unwrap().blocks() < 1000);
        assert_eq!(known.get(b"x/big"), Some(Digest::of(&big)));
        assert_eq!(known.get(b"x/sparse"), Some(Digest::of(&zeros)));
    }
}

#[test]
fn archives_are_unpacked_by_add_only() {
    let places = Places::new(&["t/ 0755", "t/x/ 0711", "t/x/a 0600 33:44 in"], &["un/ 0700"]);
    let tar = places.source.join("t.txt");
    let packed = Command::new("tar")
        .args(["--numeric-owner", "-czf"])
        .arg(&tar)
        .arg("-C")
        .arg(places.source.join("t"))
        .arg("x")
        .status();
    assert!(packed.is_ok_and(|s| s.success()), "tar failed; install the Debian package tar");
    let add =
        Copy { unpack: true, mode: Some(Mode::Bits(0o700)), ..copy(&["t.txt", "t/x/a"], "/un/") };
    let got = places.copy_context(add).unwrap();
    assert_eq!(got, ["un/ 0700", "un/a 0700 in", "un/x/ 0711", "un/x/a 0600 33:44 in"]);
    let owned = Copy {
        unpack: true,
        owner: Some(Owner { user: OwnerPart::Id(9), group: None }),
        ..copy(&["t.txt"], "/new/deep")
    };
    let got = places.copy_context(owned).unwrap();
    let want =
        ["new/ 0755 9:9", "new/deep/ 0755 9:9", "new/deep/x/ 0711 9:9", "new/deep/x/a 0600 9:9 in"];
    assert_eq!(got[..4], want);
}

#[test]
fn the_destination_is_the_root_of_what_add_unpacks() {
    let places = Places::new(&["t/l/planted 0644 x"], &["etc/ 0755", "un/ 0755", "un/old -> /etc"]);
    let tar = places.source.join("t.tar");
    // First a link that leads out, then a file behind it; and a file behind a link of the tree.
    let script = "ln -s /etc link && tar -cf \"$1\" link && rm link && mv l link && \
                  tar -rf \"$1\" link/planted && mv link old && tar -rf \"$1\" old/planted";
    let mut shell = Command::new("sh");
    shell.args(["-ec", script, "sh"]).arg(&tar).current_dir(places.source.join("t"));
    let packed = shell.status();
    assert!(packed.is_ok_and(|s| s.success()), "tar failed; install the Debian package tar");
    let got = places.copy_context(Copy { unpack: true, ..copy(&["t.tar"], "/un/") }).unwrap();
    assert!(got.contains(&"un/etc/planted 0644 x".to_owned()), "{got:?}");
    assert_eq!(got.iter().filter(|line| line.contains("planted")).count(), 1, "{got:?}");
}

#[test]
fn simple_actions_see_each_other() {
    let places = Places::new(
        &[],
        &["etc/group 0644 g:x:77:", "old/ 0755", "old/sub/f 0644 x", "l -> /deep"],
    );
    let owner = Owner { user: OwnerPart::Id(3), group: Some(OwnerPart::Name("g".into())) };
    let mkdir = |path: &str, parents| FileAction::Mkdir {
        path: path.into(),
        mode: 0o1777,
        parents,
        owner: owner.clone(),
    };
    let mkfile = |path: &str| FileAction::Mkfile {
        path: path.into(),
        mode: 0o640,
        data: b"made".to_vec(),
        owner: Owner::default(),
    };
    let remove = |path: &str, missing_ok| FileAction::Remove { path: path.into(), missing_ok };
    let link = |path: &str| FileAction::Symlink { target: "a".into(), path: path.into() };
    let run = |actions: &[FileAction]| places.apply(actions, &[]);
    run(&[mkdir("/l/dir", true), mkfile("/l/dir/a"), link("/l/dir/b"), remove("/old", false)])
        .unwrap();
    let want =
        ["deep/ 0755 3:77", "deep/dir/ 1777 3:77", "deep/dir/a 0640 made", "deep/dir/b -> a"];
    assert_eq!(lines(&places.base)[..4], want);
    run(&[
        mkdir("/deep", false),
        mkfile("/deep/dir/b"),
        remove("/gone/x", true),
        remove("/l", false),
    ])
    .unwrap();
    assert_eq!(lines(&places.base)[2], "deep/dir/a 0640 made");
    assert!(matches!(run(&[remove("/gone", false)]), Err(FileOpError::Missing { .. })));
    assert!(matches!(run(&[remove("/", true)]), Err(FileOpError::RootDirectory)));
    assert!(matches!(run(&[mkdir("/x/y", false)]), Err(FileOpError::Missing { .. })));
    assert!(matches!(run(&[mkfile("/deep")]), Err(FileOpError::IsDirectory { .. })));
    assert!(matches!(run(&[link("/deep")]), Err(FileOpError::Exists { .. })));
    assert!(matches!(
        run(&[FileAction::Copy(Box::new(copy(&["x"], "/y")))]),
        Err(FileOpError::Input { index: 0 })
    ));
}

#[test]
fn many_files_are_shared_out_and_all_arrive() {
    let places = Places::new(&[], &[]);
    let names: Vec<String> = (0..3000).map(|i| format!("d{}/f{i} 0644 {i}", i % 7)).collect();
    make(&places.source, &names.iter().map(String::as_str).collect::<Vec<_>>());
    places.copy_context(copy(&["."], "/")).unwrap();
    assert_eq!(lines(&places.base), lines(&places.source));
}
