//! Disk limits that the kernel enforces, on an ext4 image with project quotas of its own.
//!
//! A kernel built without quota formats mounts no such image. There the same step has to be stopped by the watch, and the
//! test says that the quota itself stayed unverified.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ashlar_sandbox::*;
use support::{Bed, Ran};

const MIB: u64 = 1024 * 1024;
const LIMIT: u64 = 8 * MIB;
/// What the kernel grants the overlay's own directories on top.
const OWN_BYTES: u64 = 64 * 1024;

/// A mounted ext4 image; unmounted when dropped.
struct Disk {
    point: PathBuf,
    quotas: bool,
    _dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (image, point) = (dir.path().join("image"), dir.path().join("disk"));
        std::fs::create_dir(&point).unwrap();
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(256 * MIB).unwrap();
        let quota = ["-O", "quota,project", "-E", "quotatype=prjquota"];
        tool("mkfs.ext4", "e2fsprogs", &["-q", "-F"], &quota, &[&image]).unwrap();
        let mounted = tool("mount", "mount", &["-o", "loop,prjquota"], &[], &[&image, &point]);
        let quotas = mounted.is_ok();
        if let Err(error) = mounted {
            // A plain image tells whether it is the quota that this kernel lacks, or loop devices.
            tool("mkfs.ext4", "e2fsprogs", &["-q", "-F"], &[], &[&image]).unwrap();
            tool("mount", "mount", &["-o", "loop"], &[], &[&image, &point]).unwrap();
            #[expect(clippy::print_stderr, reason = "whoever runs the tests has to know")]
            {
                eprintln!("UNVERIFIED: this kernel has no project quotas on ext4: {error}");
            }
        }
        Self { point, quotas, _dir: dir }
    }

    /// A bed whose layers lie on the disk.
    fn bed(&self) -> Bed {
        let dir = tempfile::tempdir_in(&self.point).unwrap();
        let config = NativeConfig::new(dir.path().join("state"));
        Bed::with(Box::new(NativeSandbox::new(&config).unwrap()), dir)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.point).status();
    }
}

fn tool(
    name: &str,
    package: &str,
    first: &[&str],
    more: &[&str],
    paths: &[&Path],
) -> Result<(), String> {
    let output = Command::new(name).args(first).args(more).args(paths).output();
    let output = output.unwrap_or_else(|error| {
        panic!("these tests need {name}: install the package {package} ({error})")
    });
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn spec(bed: &Bed, script: &str) -> Spec {
    let mut spec = bed.spec(script);
    spec.disk_paths = vec![bed.path("upper")];
    spec.limits.disk_bytes = Some(LIMIT);
    spec.limits.timeout = Some(Duration::from_secs(30));
    spec
}

fn hit_the_limit(ran: &Ran) -> bool {
    matches!(ran.exit.limit_hit, Some(LimitHit::Disk { limit: LIMIT, .. }))
}

#[test]
fn a_write_beyond_the_limit_is_refused_at_once() {
    let disk = Disk::new();
    let bed = disk.bed();
    // With a limit that is only polled, all of it would be written long before it is measured.
    let ran = bed.run(&spec(&bed, "head -c 100m /dev/zero >/fill; sleep 1; exit 9"));
    assert!(hit_the_limit(&ran), "{ran:?}");
    let written = std::fs::metadata(bed.path("upper/fill")).unwrap().blocks() * 512;
    if !disk.quotas {
        assert!(written > LIMIT, "{written}");
        return;
    }
    assert!(written <= LIMIT + OWN_BYTES, "{written}");
    // The next one has its own.
    assert_eq!(disk.bed().sh("echo fine"), "fine\n");
}

#[test]
fn a_step_that_cleans_up_before_it_fails_is_explained_too() {
    let disk = Disk::new();
    if !disk.quotas {
        // Nothing refuses the write, so the step succeeds between two measurements or is stopped by one.
        let bed = disk.bed();
        let ran = bed.run(&spec(&bed, "head -c 1m /dev/zero >/fill && rm /fill"));
        assert!(ran.exit.success(), "{ran:?}");
        return;
    }
    let bed = disk.bed();
    let ran = bed.run(&spec(&bed, "head -c 100m /dev/zero >/fill || { rm /fill; exit 9; }"));
    assert!(hit_the_limit(&ran), "{ran:?}");
}

#[test]
fn layers_work_as_ever_below_a_quota() {
    let disk = Disk::new();
    let bed = disk.bed();
    let script = "set -e; echo more >>/etc/passwd; mv /etc/passwd /etc/p; ln /etc/p /tmp/l; \
        mkdir -p /a/b; mv /tmp/l /a/b/; mv /a /c; rm /bin/ls; rm -rf /root; mkdir /root; \
        echo x >/root/x; mv /root/x /c/b/; mknod /c/pipe p; ln -s x /c/link; mv /c/link /c/b/; \
        cat /c/b/l | tail -n 1; head -c 4m /dev/zero >/four";
    let ran = bed.run(&spec(&bed, script));
    assert!(ran.exit.success(), "{ran:?}");
    assert_eq!(ran.out, "more\n");
    // What goes on with the layer meets neither the limit nor the project.
    let outside = bed.path("outside");
    std::fs::write(&outside, vec![1; 16 << 20]).unwrap();
    std::fs::rename(&outside, bed.path("upper/c/b/outside")).unwrap();
    std::fs::hard_link(bed.path("upper/four"), bed.path("link")).unwrap();
    // So does a look into a failed step, which gets a fresh work directory.
    std::fs::remove_dir_all(bed.path("work")).unwrap();
    std::fs::create_dir(bed.path("work")).unwrap();
    let again = "set -e; echo x >>/etc/group; chmod 700 /bin/busybox; mv /four /c/b/four; \
        head -c 20m /dev/zero >/root/more";
    let mut unlimited = bed.spec(again);
    unlimited.limits.timeout = Some(Duration::from_secs(30));
    let ran = bed.run(&unlimited);
    assert!(ran.exit.success(), "{ran:?}");
}

#[test]
fn steps_at_the_same_time_have_limits_of_their_own() {
    let disk = Arc::new(Disk::new());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let disk = Arc::clone(&disk);
            std::thread::spawn(move || {
                let bed = disk.bed();
                let ran = bed.run(&spec(&bed, "head -c 6m /dev/zero >/six"));
                assert!(ran.exit.success(), "{ran:?}");
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn sessions_keep_their_limit_to_the_end() {
    let disk = Disk::new();
    let bed = disk.bed();
    let session = bed.sandbox.start(&spec(&bed, "")).unwrap();
    let run = |script: &str| {
        let mut output = |_: Stream, _: &[u8]| ();
        let process = Process::new(["/bin/sh", "-c", script]);
        session.exec(&process, Io::output(&mut output), &Cancel::new().unwrap()).unwrap()
    };
    assert!(run("head -c 6m /dev/zero >/one").success());
    let exit = run("head -c 6m /dev/zero >/two; sleep 1; exit 9");
    assert!(matches!(exit.limit_hit, Some(LimitHit::Disk { .. })), "{exit:?}");
}
