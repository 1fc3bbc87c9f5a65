//! Copies through a real overlay mount: what ends up in its upper directory, and reuse of an
//! earlier layer. Needs root.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(unreachable_pub, reason = "helpers are shared by several tests")]
#![expect(dead_code, reason = "each test uses its own part of the helpers")]

mod common;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ashlar_core::graph::{Copy, FileAction, Mode, Owner};
use ashlar_files::ops::{Applied, Base, Input, Options, Reuse, apply};
use ashlar_files::{Context, Root};
use ashlar_layers::{Entries, KnownFiles, ScanOptions, Stop, scan};
use common::{Places, copy, lines, make};

/// A draft over a base; unmounted at the end.
struct Draft {
    dir: tempfile::TempDir,
}

impl Draft {
    fn new(lower: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["upper", "work", "merged"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let draft = Self { dir };
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            draft.at("upper").display(),
            draft.at("work").display()
        );
        let mount = ["-t", "overlay", "overlay", "-o", &options];
        let done = Command::new("mount").args(mount).arg(draft.at("merged")).status();
        assert!(done.is_ok_and(|s| s.success()), "cannot mount an overlay; run the tests as root");
        draft
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(
        &self,
        actions: &[FileAction],
        context: &Context,
        reuse: Option<Reuse<'_>>,
    ) -> (Applied, KnownFiles) {
        let root = |name| Root::open(&self.at(name)).unwrap();
        let base = Base::overlay(root("merged"), root("upper"));
        let mut known = KnownFiles::new();
        let options = Options { reuse, stop: Stop::default() };
        let done = apply(actions, &base, &[Input::Context(context)], &mut known, &options).unwrap();
        (done, known)
    }

    fn scan(&self, known: &KnownFiles) -> Entries {
        let upper = fs::File::open(self.at("upper")).unwrap();
        scan(upper.as_fd(), known, &ScanOptions::default()).unwrap().entries
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.at("merged")).status());
    }
}

fn action(copy: Copy) -> FileAction {
    FileAction::Copy(Box::new(copy))
}

const SOURCE: &[&str] =
    &["s/ 0755", "s/a 0644 1", "s/sub/ 0750", "s/sub/b 0600 2", "s/sub/deep/c 0644 3"];
const BASE: &[&str] =
    &["app/ 0711 3:4", "app/a 0600 old", "app/keep 0600 k", "lib -> app", "gone/x/y 0644 z"];

#[test]
fn the_upper_directory_has_what_changed_and_no_more() {
    let places = Places::new(SOURCE, BASE);
    let draft = Draft::new(&places.base);
    let remove = FileAction::Remove { path: "/gone".into(), missing_ok: false };
    let actions = [action(copy(&["s"], "/lib/")), remove, action(copy(&["s/sub"], "/gone/x"))];
    let (done, known) = draft.run(&actions, &places.context(), None);
    assert_eq!((done.files, done.linked, done.bytes), (5, 0, 5));
    let want = [
        "app/ 0711 3:4",
        "app/a 0644 1",
        "app/sub/ 0750",
        "app/sub/b 0600 2",
        "app/sub/deep/ 0755",
        "app/sub/deep/c 0644 3",
        "gone/ 0755",
        "gone/x/ 0755",
        "gone/x/b 0600 2",
        "gone/x/deep/ 0755",
        "gone/x/deep/c 0644 3",
    ];
    assert_eq!(lines(&draft.at("upper")), want);
    let entries = draft.scan(&known);
    let scanned = scan(
        fs::File::open(draft.at("upper")).unwrap().as_fd(),
        &KnownFiles::new(),
        &ScanOptions::default(),
    );
    assert_eq!(entries, scanned.unwrap().entries, "the digests that came out are the files'");
    // A new mount shows the same, without what was removed.
    let merged = Command::new("mount").args(["-o", "remount"]).arg(draft.at("merged")).status();
    assert!(merged.unwrap().success());
    assert!(!draft.at("merged/gone/x/y").exists() && draft.at("merged/app/keep").exists());
}

#[test]
fn actions_see_what_earlier_ones_wrote_directly() {
    let places = Places::new(SOURCE, BASE);
    let draft = Draft::new(&places.base);
    let owner = Owner::default();
    let actions = [
        action(copy(&["s/a"], "/new/dir/name")),
        action(copy(&["s/sub"], "/new/dir/other")),
        FileAction::Symlink { target: "/new/dir/other".into(), path: "/new/link".into() },
        action(copy(&["s/a"], "/new/link/")),
        action(copy(&["s/a"], "/new/dir/name2")),
        action(Copy { mode: Some(Mode::Bits(0o600)), ..copy(&["s/a"], "/new/dir/name") }),
        FileAction::Mkfile { path: "/new/link/b".into(), mode: 0o644, data: b"made".into(), owner },
        FileAction::Remove { path: "/new/dir/other/deep".into(), missing_ok: false },
        action(copy(&["s"], "/new/dir/other/deep")),
        FileAction::Remove { path: "/new/dir/name2".into(), missing_ok: false },
    ];
    draft.run(&actions, &places.context(), None);
    let want = [
        "new/ 0755",
        "new/dir/ 0755",
        "new/dir/name 0600 1",
        "new/dir/other/ 0755",
        "new/dir/other/a 0644 1",
        "new/dir/other/b 0644 made",
        "new/dir/other/deep/ 0755",
        "new/dir/other/deep/a 0644 1",
        "new/dir/other/deep/sub/ 0750",
        "new/dir/other/deep/sub/b 0600 2",
        "new/dir/other/deep/sub/deep/ 0755",
        "new/dir/other/deep/sub/deep/c 0644 3",
        "new/link -> /new/dir/other",
    ];
    assert_eq!(lines(&draft.at("upper")), want);
}

#[test]
fn unchanged_files_are_linked_from_the_earlier_layer() {
    let places = Places::new(SOURCE, &["app/ 0755"]);
    make(&places.source, &["s/twin = s/a", "s/sub/exec 0755 4"]);
    let first = Draft::new(&places.base);
    let actions = [action(copy(&["s"], "/x"))];
    let (_, known) = first.run(&actions, &places.context(), None);
    let entries = first.scan(&known);
    make(&places.source, &["s/sub/b 0600 changed", "s/sub/exec 0700 4"]);
    let second = Draft::new(&places.base);
    let layer = first.at("upper");
    let reuse = Reuse { layer: Root::open(&layer).unwrap(), entries: &entries };
    let (done, known) = second.run(&actions, &places.context(), Some(reuse));
    // `a` and `deep/c`; the twin is a second name of `a` in the new layer too.
    assert_eq!((done.linked, done.files), (2, 2));
    let inode =
        |draft: &Draft, name: &str| fs::metadata(draft.at("upper").join(name)).unwrap().ino();
    for (name, same) in
        [("x/a", true), ("x/sub/deep/c", true), ("x/sub/b", false), ("x/sub/exec", false)]
    {
        assert_eq!(inode(&first, name) == inode(&second, name), same, "{name}");
    }
    assert_eq!(inode(&second, "x/a"), inode(&second, "x/twin"));
    let plain = Draft::new(&places.base);
    let (_, plain_known) = plain.run(&actions, &places.context(), None);
    assert_eq!(second.scan(&known).identity(), plain.scan(&plain_known).identity());
    assert_eq!(lines(&first.at("upper"))[3], "x/sub/b 0600 2");
}
