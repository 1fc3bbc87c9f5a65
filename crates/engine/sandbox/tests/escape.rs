//! Known ways out of a container, each with the result that is expected: refused, or harmless and why.
//!
//! The tricks are in `escape/tricks.rs`, one table. Each runs as root, the strongest user a step can have, in a sandbox of
//! its own. After all of them the host is looked at again. Tricks that need the host's help have tests of their own below.

mod support;
#[path = "escape/trick.rs"]
mod trick;
#[path = "escape/tricks.rs"]
mod tricks;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use ashlar_sandbox::*;
use support::Bed;
use trick::Expect;
use tricks::TRICKS;

/// Lets the probe, which is linked dynamically, run inside.
fn with_probe(spec: &mut Spec) {
    let bind = |path: &Path| Mount {
        target: path.to_owned(),
        kind: MountKind::Bind { source: path.to_owned(), subpath: "".into(), readonly: true },
    };
    let mut probe = bind(Path::new(env!("CARGO_BIN_EXE_ashlar-escape-probe")));
    probe.target = "/probe".into();
    spec.mounts.push(probe);
    for path in
        ["/lib/x86_64-linux-gnu", "/lib64", "/lib/aarch64-linux-gnu", "/lib/ld-linux-aarch64.so.1"]
    {
        if Path::new(path).exists() {
            spec.mounts.push(bind(Path::new(path)));
        }
    }
}

/// What the host looks like where the tricks aim at.
fn host() -> Vec<String> {
    let files = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/overcommit_memory",
        "/proc/swaps",
        "/proc/modules",
    ];
    files.iter().map(|file| std::fs::read_to_string(file).unwrap_or_default()).collect()
}

#[test]
fn every_trick_has_the_expected_result() {
    let before = host();
    let mut wrong = Vec::new();
    for trick in TRICKS {
        let bed = Bed::new();
        let mut spec = bed.spec(trick.script);
        with_probe(&mut spec);
        // A step with a limit also sees its cgroups.
        spec.limits.memory_bytes = Some(1 << 30);
        spec.limits.timeout = Some(std::time::Duration::from_secs(20));
        let ran = bed.run(&spec);
        let all = format!("{}{}", ran.out, ran.err);
        let holds = match trick.expect {
            Expect::Refused(words) => {
                !all.is_empty()
                    && all.lines().all(|line| words.iter().any(|word| line.contains(word)))
            }
            Expect::Harmless { output, why } => {
                assert!(!why.is_empty());
                all.trim() == output
            }
            Expect::Killed => ran.exit.signal == Some(libc::SIGSYS) && all.is_empty(),
        };
        if !holds {
            wrong.push(format!(
                "{}: {:?} but got {:?} ({:?})",
                trick.name, trick.expect, all, ran.exit.signal
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(TRICKS.len() >= 40, "{} tricks", TRICKS.len());
    assert_eq!(before, host(), "the host has changed");
}

#[test]
fn abstract_sockets_of_the_host_are_out_of_reach() {
    let name = format!("ashlar-escape-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let bed = Bed::new();
    let mut spec = bed.spec(&format!("/probe connect-abstract {name}"));
    with_probe(&mut spec);
    assert_eq!(bed.run(&spec).out, "connection refused\n");
    // The trick itself works: on the host's network, which a build has to be allowed to use, it connects.
    spec.network = Network::Host;
    assert_eq!(bed.run(&spec).out, "connected\n");
}

#[test]
fn descriptors_of_the_engine_don_t_leak() {
    let bed = Bed::new();
    let secret = std::fs::File::open("/etc/hostname").unwrap();
    // Without close-on-exec, as a careless library would leave it.
    let leaky = rustix::io::fcntl_dupfd_cloexec(&secret, 100).unwrap();
    rustix::io::fcntl_setfd(&leaky, rustix::io::FdFlags::empty()).unwrap();
    assert_eq!(
        bed.sh("ls /proc/self/fd | tr '\\n' ' '"),
        "0 1 2 3 ",
        "3 is the directory that ls reads"
    );
    let session = bed.sandbox.start(&bed.spec("")).unwrap();
    let mut out = String::new();
    let mut output = |_, bytes: &[u8]| out.push_str(&String::from_utf8_lossy(bytes));
    let process =
        Process::new(["/bin/sh", "-c", "ls /proc/1/fd 2>&1 | wc -l; ls /proc/self/fd | wc -l"]);
    session.exec(&process, Io::output(&mut output), &Cancel::new().unwrap()).unwrap();
    drop(session);
    assert_eq!(out, "0\n4\n");
}

/// Somebody with a writable mount swaps a directory for a link to `/` while another sandbox mounts below it.
#[test]
fn a_swapped_symlink_never_leads_a_mount_out() {
    let bed = Bed::new();
    let shared = bed.path("shared");
    std::fs::create_dir_all(shared.join("a/inner")).unwrap();
    std::fs::write(shared.join("a/inner/mark"), "inside").unwrap();
    std::os::unix::fs::symlink("/", shared.join("b")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let dir = std::fs::File::open(&shared).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&dir, "a", &dir, "b", flags).unwrap();
            }
        });
        let mut seen = [0; 2];
        for _ in 0..60 {
            let mut spec = bed
                .spec("cat /m/mark 2>/dev/null; ls /m; ls /cache/a /cache/b >/dev/null 2>&1; true");
            // Both as a source and as a destination.
            spec.mounts = vec![
                Mount {
                    target: "/cache".into(),
                    kind: MountKind::Bind {
                        source: shared.clone(),
                        subpath: "".into(),
                        readonly: false,
                    },
                },
                Mount {
                    target: "/m".into(),
                    kind: MountKind::Bind {
                        source: shared.clone(),
                        subpath: "a/inner".into(),
                        readonly: true,
                    },
                },
                Mount {
                    target: "/cache/a/x".into(),
                    kind: MountKind::Tmpfs { size_bytes: None, mode: 0o755 },
                },
            ];
            match bed.try_run(&spec) {
                Ok(ran) => {
                    assert_eq!(ran.out, "insidemark\n");
                    seen[0] += 1;
                }
                // `/inner` does not exist in the shared directory, which is what `/` means there.
                Err(SandboxError::Mount { .. }) => seen[1] += 1,
                Err(error) => panic!("{}", support::chain(&error)),
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(seen[0] > 0, "no run won the race: {seen:?}");
    });
    assert!(!Path::new("/x").exists(), "a mount point was made on the host");
}

#[test]
fn sources_of_mounts_can_t_climb() {
    let bed = Bed::new();
    std::fs::create_dir(bed.path("shared")).unwrap();
    std::fs::write(bed.path("outside"), "outside").unwrap();
    std::os::unix::fs::symlink("../outside", bed.path("shared/relative")).unwrap();
    std::os::unix::fs::symlink(bed.path("outside"), bed.path("shared/absolute")).unwrap();
    std::os::unix::fs::symlink("/proc/self/root", bed.path("shared/magic")).unwrap();
    for subpath in ["../outside", "relative", "absolute", "magic/etc", "../../../../etc/passwd"] {
        let mut spec = bed.spec("cat /m");
        let source = bed.path("shared");
        spec.mounts = vec![Mount {
            target: "/m".into(),
            kind: MountKind::Bind { source, subpath: subpath.into(), readonly: true },
        }];
        let error = bed.try_run(&spec).expect_err(subpath);
        assert!(matches!(error, SandboxError::Mount { .. }), "{subpath}: {error}");
    }
    // A destination climbs no further than its own root.
    let mut spec = bed.spec("ls -d /up /tmp/up 2>/dev/null");
    spec.mounts = vec![Mount {
        target: "/tmp/../../../../up".into(),
        kind: MountKind::Tmpfs { size_bytes: None, mode: 0o755 },
    }];
    assert_eq!(bed.run(&spec).out, "/up\n");
    assert!(!Path::new("/up").exists());
}

#[test]
fn a_setuid_program_gives_a_user_nothing() {
    let bed = Bed::new();
    bed.sh("cp /bin/busybox /tmp/busybox && chmod 4755 /tmp/busybox");
    let mut spec = bed.spec("/tmp/busybox id -u; grep NoNewPrivs /proc/self/status | tr -d '\\t'");
    spec.process.user = User { uid: 1000, gid: 1000, groups: Vec::new() };
    assert_eq!(bed.run(&spec).out, "1000\nNoNewPrivs:1\n");
}

#[test]
fn processes_and_environment_of_the_host_don_t_show() {
    let marker = format!("{}", 200_000 + std::process::id());
    let mut child = std::process::Command::new("/bin/busybox")
        .args(["sleep", &marker])
        .env("ASHLAR_ESCAPE_MARK", &marker)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let bed = Bed::new();
    let script = format!(
        "cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -c 'MARK={marker}'; \
         kill -9 {pid} 2>&1; kill -9 -1; echo still here",
        pid = child.id()
    );
    let out = bed.run(&bed.spec(&script)).out;
    assert!(out.starts_with("0\n") && out.contains("No such process"), "{out}");
    assert!(child.try_wait().unwrap().is_none(), "the host's process was killed");
    child.kill().unwrap();
    child.wait().unwrap();
}
