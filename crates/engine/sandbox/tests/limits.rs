//! A step that goes wild costs only its own run, and the exit names the limit that it hit.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::{Duration, Instant};

use ashlar_sandbox::*;
use support::{Bed, Ran};

const MIB: u64 = 1024 * 1024;

fn run(script: &str, change: impl FnOnce(&Bed, &mut Spec)) -> Ran {
    let bed = Bed::new();
    let mut spec = bed.spec(script);
    // No test may hang because a limit fails.
    spec.limits.timeout = Some(Duration::from_secs(30));
    change(&bed, &mut spec);
    let ran = bed.run(&spec);
    assert_eq!(bed.sh("echo fine"), "fine\n", "the next step is not affected");
    ran
}

#[test]
fn a_fork_bomb_hits_the_pids_limit() {
    let ran = run("bomb() { bomb | bomb & bomb; }; bomb", |_, spec| spec.limits.pids = Some(64));
    assert_eq!(ran.exit.limit_hit, Some(LimitHit::Pids { limit: 64 }), "{:?}", ran.exit);
    assert!(ran.exit.wall < Duration::from_secs(10), "{:?}", ran.exit);
}

#[test]
fn a_step_that_fills_memory_hits_the_memory_limit() {
    let script = "head -c 200m /dev/zero | tail | wc -c; exit 9";
    let ran = run(script, |_, spec| spec.limits.memory_bytes = Some(32 * MIB));
    let Some(LimitHit::Memory { limit, peak }) = ran.exit.limit_hit else { panic!("{ran:?}") };
    assert_eq!(limit, 32 * MIB);
    assert!((20 * MIB..=33 * MIB).contains(&peak), "{peak}");
}

#[test]
fn a_process_killed_inside_a_pipe_is_told_though_the_step_ends_well() {
    let script = "tail -c 200000000 /dev/zero | wc -c; true";
    let ran = run(script, |_, spec| spec.limits.memory_bytes = Some(32 * MIB));
    // Where the kernel can kill the whole group there is no survivor to end well.
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert!(matches!(ran.exit.limit_hit, Some(LimitHit::Memory { .. })), "{ran:?}");
        return;
    }
    assert_eq!((ran.exit.code, ran.exit.limit_hit), (Some(0), None), "{ran:?}");
    let survived = ran.exit.limit_survived;
    assert!(matches!(survived, Some(LimitHit::Memory { limit, .. }) if limit == 32 * MIB));
    let ran = run("true", |_, spec| spec.limits.memory_bytes = Some(32 * MIB));
    assert_eq!(ran.exit.limit_survived, None);
}

#[test]
fn a_tmpfs_counts_as_memory() {
    let ran = run("head -c 100m /dev/zero >/dev/shm/x", |_, spec| {
        spec.limits.memory_bytes = Some(32 * MIB);
        spec.shm_bytes = 512 * MIB;
    });
    assert!(matches!(ran.exit.limit_hit, Some(LimitHit::Memory { .. })), "{ran:?}");
}

#[test]
fn a_step_that_fills_its_disk_hits_the_disk_limit() {
    let ran = run("while true; do head -c 1m /dev/zero >>/fill; done", |bed, spec| {
        spec.disk_paths = vec![bed.path("upper")];
        spec.limits.disk_bytes = Some(8 * MIB);
    });
    let Some(LimitHit::Disk { limit, used }) = ran.exit.limit_hit else { panic!("{ran:?}") };
    assert!(limit == 8 * MIB && used > limit, "{used}");
}

#[test]
fn a_step_ends_before_the_disk_is_full() {
    let ran = run("sleep 1000", |bed, spec| {
        spec.disk_paths = vec![bed.path("upper")];
        spec.limits.disk_free_bytes = Some(u64::MAX);
    });
    assert_eq!(ran.exit.limit_hit, Some(LimitHit::DiskFree { floor: u64::MAX }), "{ran:?}");
}

#[test]
fn a_flood_of_output_is_cut_exactly() {
    let ran = run("yes", |_, spec| spec.limits.output_bytes = Some(100_001));
    assert_eq!(ran.exit.limit_hit, Some(LimitHit::Output { limit: 100_001 }));
    assert_eq!(ran.out.len(), 100_001);
}

#[test]
fn output_just_within_its_limit_is_no_hit() {
    let ran = run("head -c 5000 /dev/zero", |_, spec| spec.limits.output_bytes = Some(5000));
    assert!(ran.exit.success(), "{:?}", ran.exit);
    assert_eq!(ran.out.len(), 5000);
}

#[test]
fn a_step_that_never_ends_hits_the_time_limit() {
    let limit = Duration::from_millis(300);
    let ran = run("sleep 1000 & sleep 1000", |_, spec| spec.limits.timeout = Some(limit));
    assert_eq!(ran.exit.limit_hit, Some(LimitHit::Time { limit }));
    assert!(ran.exit.wall < limit + Duration::from_secs(1), "{:?}", ran.exit);
}

#[test]
fn a_cpu_quota_slows_a_step_down() {
    let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
    let ran = run(busy, |_, spec| spec.limits.cpus = Some(0.2));
    assert!(ran.exit.success());
    let share = ran.exit.cpu_time.as_secs_f64() / ran.exit.wall.as_secs_f64();
    assert!(share < 0.35, "used {share} of a core, {:?}", ran.exit);
}

/// Language runtimes read them there.
#[test]
fn limits_are_seen_in_the_step_s_own_cgroup() {
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null; \
        cat cpu*/cpu.cfs_quota_us cpu.max 2>/dev/null | cut -d' ' -f1 | sort -u; \
        awk '/ - cgroup/ && $4 != \"/\"' /proc/self/mountinfo; cut -d: -f3 /proc/self/cgroup | sort -u";
    let ran = run(script, |_, spec| {
        spec.limits.memory_bytes = Some(64 * MIB);
        spec.limits.cpus = Some(0.5);
    });
    assert_eq!(ran.out, format!("{}\n50000\n/\n", 64 * MIB), "{ran:?}");
    let ran = run(script, |_, spec| spec.limits.memory_bytes = Some(64 * MIB));
    let unlimited = ran.out.lines().nth(1).unwrap();
    assert!(["-1", "max"].contains(&unlimited), "{ran:?}");
}

#[test]
fn memory_use_is_reported_without_a_limit() {
    let ran = run("head -c 30m /dev/zero >/dev/shm/x", |_, _| ());
    let peak = ran.exit.peak_memory.unwrap();
    assert!((30 * MIB..200 * MIB).contains(&peak), "{peak}");
    assert!(ran.exit.cpu_time > Duration::ZERO);
}

#[test]
fn ulimits_are_those_asked_for() {
    let ran = run("ulimit -n; ulimit -Hn; ulimit -c", |_, spec| {
        let nofile = UlimitKind::from_name("nofile").unwrap();
        spec.ulimits = vec![Ulimit { resource: nofile, soft: Some(77), hard: Some(88) }];
    });
    assert_eq!(ran.out, "77\n88\n0\n");
}

/// Cancels a tree of processes, some of which left their session and ignore signals, and looks for their pids.
#[test]
fn a_cancelled_tree_is_gone_within_a_second() {
    let bed = Bed::new();
    let cancel = Cancel::new().unwrap();
    let marker = format!("{}", 100_000 + std::process::id());
    let script = format!(
        "trap '' TERM INT HUP; for i in 1 2 3 4 5; do setsid sh -c 'trap \"\" TERM HUP; sleep {marker} & sleep {marker}' & done; \
         sleep 0.3; echo up; sleep {marker}"
    );
    let spec = bed.spec(&script);
    let mut called = None;
    let mut living = 0;
    let mut output = |_, _: &[u8]| {
        living = processes_with(&marker);
        cancel.cancel();
        called = Some(Instant::now());
    };
    let exit = bed.sandbox.run(&spec, Io::output(&mut output), &cancel).unwrap();
    let took = called.unwrap().elapsed();
    assert!(exit.cancelled && exit.signal == Some(9), "{exit:?}");
    assert!(living >= 10, "only {living} processes to cancel");
    assert_eq!(processes_with(&marker), 0);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_token_cancelled_before_starts_nothing() {
    let bed = Bed::new();
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    let result = bed.sandbox.run(&bed.spec("true"), Io::output(&mut |_, _| ()), &cancel);
    assert!(matches!(result, Err(SandboxError::Cancelled)));
}

#[test]
fn nothing_stays_behind() {
    let bed = Bed::new();
    let groups = || -> usize {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let line =
            own.lines().find(|line| line.contains(":memory:")).expect("a v1 or hybrid machine");
        let path = line.rsplit(':').next().unwrap();
        let parent = format!("/sys/fs/cgroup/memory{path}/ashlar");
        let mine = format!("{}.", std::process::id());
        let names = std::fs::read_dir(parent).unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().starts_with(&mine)).count()
    };
    bed.sh("sleep 1000 & true");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(bed.dir.path().to_str().unwrap()), "a mount shows on the host");
    // Dropping the sandbox waits for its groups; other tests of this process may still have some.
    let descriptors = || std::fs::read_dir("/proc/self/task").unwrap().count();
    assert!(descriptors() < 200);
    drop(bed);
    let deadline = Instant::now() + Duration::from_secs(60);
    while groups() > 0 {
        assert!(Instant::now() < deadline, "{} cgroups stay", groups());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Counts the host's processes whose command line has the marker.
fn processes_with(marker: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.starts_with("sleep") && line.contains(marker)).count()
}
