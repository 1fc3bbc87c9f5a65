//! Measures contexts and copies: 50,000 files of 64 bytes cold, unchanged, and with one changed;
//! one file of 1 GiB. Through an overlay mount when run as root. Medians of a few runs.
//!
//! `cargo bench -p ashlar-files [-- files|big]`; `ASHLAR_BENCH_DIR` says where (default: /var/tmp).

#![expect(clippy::print_stdout, reason = "printing is what a measurement is for")]

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ashlar_core::graph::{Copy, FileAction};
use ashlar_files::ops::{Applied, Base, Input, Options, Reuse, apply};
use ashlar_files::{Context, IgnoreNothing, Root};
use ashlar_layers::{Entries, KnownFiles, Node, ScanOptions, Stop, scan};

const RUNS: usize = 3;
const DIRECTORIES: usize = 500;
const FILES_EACH: usize = 100;
const BIG_BYTES: usize = 1 << 30;

fn main() {
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    let place = std::env::var_os("ASHLAR_BENCH_DIR").unwrap_or_else(|| "/var/tmp".into());
    let dir = tempfile::tempdir_in(place).expect("a directory to measure in");
    if wanted.as_deref().is_none_or(|w| w == "files") {
        many_files(&dir.path().join("files"));
    }
    if wanted.as_deref().is_none_or(|w| w == "big") {
        one_big_file(&dir.path().join("big"));
    }
}

/// A source, a place for digests, and drafts with overlay mounts.
struct Bench {
    dir: PathBuf,
    drafts: usize,
}

impl Bench {
    fn new(dir: &Path) -> Self {
        for name in ["source", "lower", "cache"] {
            fs::create_dir_all(dir.join(name)).expect("a directory");
        }
        Self { dir: dir.to_owned(), drafts: 0 }
    }

    fn context(&self) -> Context {
        let source = self.dir.join("source");
        let cache = self.dir.join("cache");
        Context::open(&source, Arc::new(IgnoreNothing), &cache, Stop::default()).expect("a context")
    }

    fn select(&self, name: &str) -> Context {
        let context = self.context();
        let (selection, took) = timed(|| context.select(&copy()).expect("a selection"));
        let (parts, keyed) = timed(|| selection.key_parts().len());
        let (_, saved) = timed(|| context.save().expect("a saved cache"));
        let stats = selection.stats();
        println!("{name}: select {took:?}, {parts} key parts {keyed:?}, save {saved:?}, {stats:?}");
        context
    }

    fn copy(
        &mut self,
        name: &str,
        context: &Context,
        earlier: Option<(&Path, &Entries)>,
    ) -> (PathBuf, KnownFiles) {
        self.drafts += 1;
        let draft = self.dir.join(format!("draft{}", self.drafts));
        let (upper, merged) = (draft.join("upper"), draft.join("merged"));
        for name in ["upper", "merged", "work"] {
            fs::create_dir_all(draft.join(name)).expect("a directory");
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            self.dir.join("lower").display(),
            upper.display(),
            draft.join("work").display()
        );
        let mount = ["-t", "overlay", "overlay", "-o", &options];
        let mounted = Command::new("mount").args(mount).arg(&merged).status();
        let mounted = mounted.is_ok_and(|s| s.success());
        let root = |p: &Path| Root::open(p).expect("a root");
        let base = match mounted {
            true => Base::overlay(root(&merged), root(&upper)),
            false => Base::plain(root(&upper)),
        };
        let reuse = earlier.map(|(layer, entries)| Reuse { layer: root(layer), entries });
        let action = FileAction::Copy(Box::new(copy()));
        let mut known = KnownFiles::new();
        let options = Options { reuse, stop: Stop::default() };
        let (done, took): (Applied, _) = timed(|| {
            apply(&[action], &base, &[Input::Context(context)], &mut known, &options)
                .expect("a copy")
        });
        drop(base);
        if mounted {
            Command::new("umount").arg(&merged).status().expect("umount");
        }
        println!("{name}: copy {took:?}, {done:?}, overlay: {mounted}");
        (upper, known)
    }
}

fn many_files(dir: &Path) {
    let mut bench = Bench::new(dir);
    for i in 0..DIRECTORIES {
        let sub = dir.join(format!("source/d{i}"));
        fs::create_dir_all(&sub).expect("a directory");
        for j in 0..FILES_EACH {
            fs::write(sub.join(format!("f{j}")), format!("{:064}", i * FILES_EACH + j))
                .expect("a file");
        }
    }
    // Files younger than the file system's clock can tell are hashed again the next time.
    std::thread::sleep(Duration::from_millis(100));
    for run in 0..RUNS {
        drop(fs::remove_dir_all(dir.join("cache")));
        let context = bench.select("50,000 files, cold");
        let (upper, known) = bench.copy("50,000 files, cold", &context, None);
        bench.select("50,000 files, unchanged");
        let root = Root::open(&upper).expect("a root");
        let dir_fd = fs::File::open(root.place()).expect("an open directory");
        let scanned = || scan(dir_fd.as_fd(), &known, &ScanOptions::default()).expect("a scan");
        let (scanned, took) = timed(scanned);
        println!("50,000 files: scan of the layer {took:?}, {} files read", scanned.files_read);
        let entries = scanned.entries;
        assert!(entries.as_slice().iter().any(|e| matches!(e.node, Node::File { .. })));
        fs::write(dir.join("source/d7/f7"), format!("{:064}", run)).expect("a changed file");
        let context = bench.select("50,000 files, one changed");
        bench.copy("50,000 files, one changed", &context, Some((&upper, &entries)));
    }
}

fn one_big_file(dir: &Path) {
    let mut bench = Bench::new(dir);
    let block: Vec<u8> =
        (0..1_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut file = fs::File::create(dir.join("source/big")).expect("a file");
    for _ in 0..BIG_BYTES / block.len() {
        std::io::Write::write_all(&mut file, &block).expect("a written block");
    }
    drop(file);
    for _ in 0..RUNS {
        drop(fs::remove_dir_all(dir.join("cache")));
        let context = bench.select("1 GiB, cold");
        let (upper, _) = bench.copy("1 GiB, cold", &context, None);
        fs::remove_dir_all(upper.parent().expect("a parent")).expect("a removed draft");
    }
    println!("peak memory: {}", peak_memory());
}

fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.unwrap_or("unknown").trim().to_owned()
}

fn copy() -> Copy {
    Copy { sources: vec![".".into()], destination: "/app/".into(), ..Copy::default() }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}
