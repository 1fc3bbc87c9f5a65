//! Contexts and trees that mean harm, or change while they are read.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]
#![expect(unreachable_pub, reason = "helpers are shared by several tests")]

mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use ashlar_core::graph::FileAction;
use ashlar_files::ops::{Base, FileOpError, Input, Options, apply};
use ashlar_files::{ContextError, Root};
use ashlar_layers::{KnownFiles, Stop};
use common::{Places, copy, lines};

#[test]
fn links_never_lead_out_of_a_source() {
    let places = Places::new(&["d/f 0644 in"], &["etc/ 0755"]);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let out = outside.path().to_str().unwrap();
    symlink(out, places.source.join("abs")).unwrap();
    symlink(format!("../../../../../../../../..{out}"), places.source.join("rel")).unwrap();
    symlink("/proc/self/root", places.source.join("proc")).unwrap();
    for source in
        ["abs", "abs/secret", "rel", "rel/secret", "rel/*", "proc", "proc/etc", "abs/../x"]
    {
        let found = places.copy_context(copy(&[source], "/x/"));
        let names =
            found.as_ref().map_or(0, |lines| lines.iter().filter(|l| l.contains("secret")).count());
        assert_eq!(names, 0, "{source}: {found:?}");
    }
}

#[test]
fn links_never_lead_out_of_the_tree() {
    let outside = tempfile::tempdir().unwrap();
    let out = outside.path().to_str().unwrap();
    let places = Places::new(&["d/f 0644 in"], &[]);
    symlink(out, places.base.join("abs")).unwrap();
    symlink(format!("../../../../../../..{out}"), places.base.join("rel")).unwrap();
    for destination in ["/abs/", "/abs/g", "/rel/", "/rel/deep/er", "/../../abs/x"] {
        places.copy_context(copy(&["d"], destination)).unwrap();
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(places.base.join(out.trim_start_matches('/')).join("f").exists());
}

#[test]
fn loops_and_dangling_links() {
    let places = Places::new(&["a -> b", "b -> a", "gone -> nowhere", "self -> ."], &[]);
    let links = places.copy_context(copy(&["a"], "/x")).unwrap_err();
    assert!(matches!(links, FileOpError::Source(ContextError::Links { .. })), "{links}");
    assert!(places.copy_context(copy(&["gone"], "/x")).is_err());
    assert!(places.copy_context(copy(&["g*"], "/x")).is_err());
    let all = places.copy_context(copy(&["self"], "/x")).unwrap();
    assert_eq!(all, ["x/ 0755", "x/a -> b", "x/b -> a", "x/gone -> nowhere", "x/self -> ."]);
}

#[test]
fn pipes_do_not_hold_a_build_up() {
    let places = Places::new(&["d/f 0644 x"], &[]);
    assert!(Command::new("mkfifo").arg(places.source.join("pipe")).status().unwrap().success());
    assert_eq!(places.copy_context(copy(&["pipe"], "/x")).unwrap(), ["x special 0644"]);
    assert!(places.context().read("pipe", 10).is_err());
}

#[test]
fn whiteouts_cannot_be_copied() {
    let places = Places::new(&["d/ 0755"], &[]);
    let made = Command::new("mknod").arg(places.source.join("d/w")).args(["c", "0", "0"]).status();
    assert!(made.unwrap().success(), "mknod failed; run the tests as root");
    let error = places.copy_tree(copy(&["d"], "/x")).unwrap_err();
    assert!(matches!(error, FileOpError::Whiteout { .. }), "{error}");
}

#[test]
fn deep_trees_and_long_names_have_a_limit() {
    let places = Places::new(&[], &[]);
    let long = "n".repeat(255);
    let mut dir = places.source.clone();
    for _ in 0..10 {
        dir.push(&long);
        fs::create_dir(&dir).unwrap();
    }
    places.copy_context(copy(&["."], "/")).unwrap();
    assert_eq!(lines(&places.base).len(), 10);
    // Deeper than any path of the kernel reaches: made by going there step by step.
    let script =
        format!("import os\nfor _ in range(30):\n os.mkdir('{long}'); os.chdir('{long}')\n");
    let made = Command::new("python3").arg("-c").arg(script).current_dir(&dir).status();
    assert!(
        made.is_ok_and(|s| s.success()),
        "python3 failed; install the Debian package python3-minimal"
    );
    let error = places.copy_context(copy(&["."], "/")).unwrap_err();
    assert!(matches!(error, FileOpError::Source(ContextError::TooLong { .. })), "{error}");
    assert!(error.to_string().len() < 1000);
    assert!(
        Command::new("rm").arg("-rf").arg(places.source.join(&long)).status().unwrap().success()
    );
}

#[test]
fn names_may_be_any_bytes() {
    let places = Places::new(&[], &[]);
    for name in [&b"\xff\xfe"[..], b"new\nline", b"-rf", b" ", b"\\", b"*"] {
        fs::write(places.source.join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
    }
    let context = places.context();
    let selection = context.select(&copy(&["."], "/")).unwrap();
    let mut names: Vec<_> = selection.key_parts().into_iter().map(|p| p.name).collect();
    names.dedup();
    assert_eq!(names.len(), 2, "bytes that are no text are keyed as a whole: {names:?}");
    places.copy_context(copy(&["."], "/")).unwrap();
    assert_eq!(fs::read_dir(&places.base).unwrap().count(), 6);
}

#[test]
fn a_file_that_changed_since_it_was_keyed_is_noticed() {
    for size in [10, 1_000_000] {
        let places = Places::new(&[], &[]);
        fs::write(places.source.join("f"), vec![b'a'; size]).unwrap();
        let context = places.context();
        context.select(&copy(&["f"], "/x")).unwrap();
        fs::write(places.source.join("f"), vec![b'b'; size]).unwrap();
        let action = FileAction::Copy(Box::new(copy(&["f"], "/x")));
        let error = places.apply(&[action], &[Input::Context(&context)]).unwrap_err();
        assert!(matches!(error, FileOpError::Changed { .. }), "{error}");
    }
}

#[test]
fn work_ends_when_asked_to() {
    let places = Places::new(&["d/f 0644 x"], &[]);
    let stop = Stop::default();
    stop.stop();
    let base = Base::plain(Root::open(&places.base).unwrap());
    let context = places.context();
    let action = FileAction::Copy(Box::new(copy(&["d"], "/x")));
    let options = Options { stop, ..Options::default() };
    let mut known = KnownFiles::new();
    let error = apply(&[action], &base, &[Input::Context(&context)], &mut known, &options);
    assert!(matches!(error, Err(FileOpError::Stopped)));
    assert!(lines(&places.base).is_empty());
}

/// Swaps a directory for a link to a secret place, again and again, until told to end.
fn swap(dir: &Path, outside: &Path, done: &AtomicBool) {
    let (real, link) = (dir.with_extension("real"), dir.with_extension("link"));
    symlink(outside, &link).unwrap();
    while !done.load(Ordering::Relaxed) {
        fs::rename(dir, &real).unwrap();
        fs::rename(&link, dir).unwrap();
        fs::rename(dir, &link).unwrap();
        fs::rename(&real, dir).unwrap();
    }
}

#[test]
fn a_directory_swapped_for_a_link_is_not_followed() {
    const ROUNDS: usize = 300;
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), "secret").unwrap();
    let places = Places::new(&["d/f 0644 fine", "d/sub/f 0644 fine", "k/f 0644 fine"], &[]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&places.source.join("d"), outside.path(), &done));
        let copies = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut copied = 0;
            for i in 0..ROUNDS {
                let source = ["d", ".", "d/sub", "d/f"][i % 4];
                copied +=
                    usize::from(places.copy_context(copy(&[source], &format!("/x{i}/"))).is_ok());
            }
            copied
        }));
        done.store(true, Ordering::Relaxed);
        assert!(copies.unwrap() > 0, "nothing at all was copied");
    });
    let found = lines(&places.base);
    assert!(!found.is_empty() && !found.iter().any(|line| line.contains("secret")));
}
