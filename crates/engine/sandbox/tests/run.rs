//! What a step sees and what its caller gets back.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::path::Path;

use ashlar_sandbox::*;
use support::{Bed, busybox_root, chain};

#[test]
fn a_step_runs_and_its_writes_land_in_the_upper_directory() {
    let bed = Bed::new();
    let ran = bed.run(&bed.spec("echo out; echo err >&2; echo x >/made; rm /etc/passwd; exit 3"));
    assert_eq!(ran.exit.code, Some(3));
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("out\n", "err\n"));
    assert_eq!(std::fs::read_to_string(bed.path("upper/made")).unwrap(), "x\n");
    assert!(bed.path("lower/etc/passwd").exists());
}

#[test]
fn the_step_is_pid_1_with_little_else_to_see() {
    let bed = Bed::new();
    // By the shell itself: a pipeline's processes may or may not have begun when the list is made.
    assert_eq!(bed.sh("echo $$; set -- /proc/[0-9]*; echo $#"), "1\n1\n");
    assert_eq!(
        bed.sh("hostname; ls /sys/class/net; ls /dev | tr '\\n' ' '").lines().collect::<Vec<_>>(),
        [
            "buildkitsandbox",
            "lo",
            "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
        ]
    );
    let env = bed.sh("env -u SHLVL -u PWD; pwd; umask; cat /proc/self/oom_score_adj; ulimit -n");
    assert_eq!(env, format!("PATH={PATH_DEFAULT}\n/\n0022\n500\n1024\n"));
}

#[test]
fn root_has_docker_s_capabilities_and_users_have_none() {
    let bed = Bed::new();
    let status = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status | tr -d '\\t'";
    let root = bed.sh(status);
    assert_eq!(
        root,
        "Groups: \nCapInh:0000000000000000\nCapPrm:00000000a80425fb\nCapEff:00000000a80425fb\n\
         CapBnd:00000000a80425fb\nCapAmb:0000000000000000\nNoNewPrivs:0\nSeccomp:2\n"
    );
    let mut spec = bed.spec(status);
    spec.process.user = User { uid: 1000, gid: 1000, groups: vec![5, 7] };
    let user = bed.run(&spec).out;
    assert_eq!(
        user,
        "Groups:5 7 \nCapInh:0000000000000000\nCapPrm:0000000000000000\n\
         CapEff:0000000000000000\nCapBnd:00000000a80425fb\nCapAmb:0000000000000000\n\
         NoNewPrivs:1\nSeccomp:2\n"
    );
}

#[test]
fn an_insecure_step_keeps_every_right() {
    let bed = Bed::new();
    let mut spec = bed.spec(
        "grep -E '^(CapEff|Seccomp:)' /proc/self/status | tr -d '\\t'; mount -t tmpfs x /tmp",
    );
    spec.security = Security::Insecure;
    let ran = bed.run(&spec);
    assert!(ran.exit.success(), "{ran:?}");
    assert!(ran.out.ends_with("Seccomp:0\n"), "{ran:?}");
    assert!(!ran.out.contains("a80425fb"), "{ran:?}");
}

#[test]
fn a_missing_program_is_named_with_docker_s_code() {
    let bed = Bed::new();
    let error = bed.try_run(&Spec::new(bed.rootfs(), ["no-such-program"])).unwrap_err();
    let SandboxError::Exec { code, .. } = &error else { panic!("{error}") };
    assert_eq!(*code, 127);
    assert!(error.to_string().contains("not found in $PATH"), "{error}");
    let error = bed.try_run(&Spec::new(bed.rootfs(), ["/etc/passwd"])).unwrap_err();
    assert!(matches!(error, SandboxError::Exec { code: 126, .. }), "{error}");
    let error = bed.try_run(&Spec::new(bed.rootfs(), [""])).unwrap_err();
    assert!(matches!(error, SandboxError::Invalid(_)), "{error}");
}

#[test]
fn input_reaches_the_step() {
    let bed = Bed::new();
    let mut out = Vec::new();
    let mut output = |_, bytes: &[u8]| out.extend_from_slice(bytes);
    let text = vec![b'x'; 300_000];
    let io = Io { stdin: Stdin::Bytes(text), output: &mut output };
    let exit = bed.sandbox.run(&bed.spec("wc -c"), io, &Cancel::new().unwrap()).unwrap();
    assert!(exit.success());
    assert_eq!(String::from_utf8(out).unwrap().trim(), "300000");
}

#[test]
fn signals_have_their_default_actions() {
    let bed = Bed::new();
    // Rust ignores SIGPIPE; a step that inherited that would print an error and end with 1 or more.
    assert_eq!(
        bed.sh("grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -d '\\t'"),
        "SigBlk:0000000000000000\nSigIgn:0000000000000000\n"
    );
}

#[test]
fn more_layers_than_mount_options_could_hold() {
    let bed = Bed::new();
    let mut lowers = Vec::new();
    for number in 0..150 {
        let layer = bed.path(&format!("a-layer-with-quite-a-long-name-indeed-{number:0>100}"));
        std::fs::create_dir(&layer).unwrap();
        std::fs::write(layer.join(format!("file{number}")), "").unwrap();
        std::fs::write(layer.join("top"), number.to_string()).unwrap();
        lowers.push(layer);
    }
    lowers.push(bed.path("lower"));
    let mut spec = bed.spec("cat /top; ls -d /file* | wc -l");
    spec.rootfs = Rootfs::Overlay {
        lowers,
        upper: bed.path("upper"),
        work: bed.path("work"),
        volatile: false,
    };
    assert_eq!(bed.run(&spec).out, "0150\n");
}

#[test]
fn a_directory_can_be_the_root_read_only_too() {
    let bed = Bed::new();
    let mut spec = bed.spec("touch /x 2>&1");
    spec.rootfs = Rootfs::Directory { path: bed.path("lower"), readonly: true };
    // The mount points of a read-only root have to exist.
    for file in ["etc/resolv.conf", "etc/hosts"] {
        std::fs::write(bed.path("lower").join(file), "").unwrap();
    }
    let ran = bed.run(&spec);
    assert!(ran.out.contains("Read-only file system"), "{ran:?}");
}

#[test]
fn mounts_of_every_kind() {
    let bed = Bed::new();
    let source = bed.path("source");
    std::fs::create_dir_all(source.join("inner/deep")).unwrap();
    std::fs::write(source.join("inner/deep/file"), "bound").unwrap();
    std::fs::create_dir(bed.path("scratch")).unwrap();
    let mount = |target: &str, kind| Mount { target: target.into(), kind };
    let bind = |subpath: &str, readonly| MountKind::Bind {
        source: source.clone(),
        subpath: subpath.into(),
        readonly,
    };
    let layers = |scratch| MountKind::Layers {
        lowers: vec![source.clone()],
        subpath: "inner".into(),
        scratch,
    };
    let socket = std::os::unix::net::UnixListener::bind(bed.path("agent")).unwrap();
    let mut spec = bed.spec(
        "cat /ro/deep/file /file; touch /ro/x || echo ro; touch /rw/new && echo rw; \
         touch /lro/x || echo lro; touch /lrw/thrown && echo lrw; \
         df /t | tail -1 | awk '{print $2}'; stat -c %a:%u:%g /run/secrets/s; cat /run/secrets/s; \
         test -S /agent.sock && echo socket; cat /etc/hosts | grep extra; cat /dev/ashlar/ca-bundle.crt; echo $SSL_CERT_FILE; df -k /dev/shm | tail -1 | awk '{print $2}'",
    );
    spec.mounts = vec![
        mount("/ro", bind("inner", true)),
        mount("/file", bind("inner/deep/file", true)),
        mount("/rw", bind("", false)),
        mount("/lro", layers(None)),
        mount("/lrw", layers(Some(bed.path("scratch")))),
        mount("/t", MountKind::Tmpfs { size_bytes: Some(1 << 20), mode: 0o1777 }),
        mount(
            "/run/secrets/s",
            MountKind::Content { bytes: Secret(b"hush\n".to_vec()), mode: 0o400, uid: 5, gid: 6 },
        ),
        mount("/agent.sock", MountKind::Socket { source: bed.path("agent") }),
    ];
    spec.extra_hosts = vec![("extra".into(), "192.0.2.7".parse().unwrap())];
    std::fs::write(bed.path("ca"), "CA\n").unwrap();
    spec.ca_bundle = Some(bed.path("ca"));
    let ran = bed.run(&spec);
    drop(socket);
    assert_eq!(
        ran.out,
        "boundboundro\nrw\nlro\nlrw\n1024\n400:5:6\nhush\nsocket\n192.0.2.7\textra\nCA\n\
         /dev/ashlar/ca-bundle.crt\n65536\n",
        "{ran:?}"
    );
    assert!(source.join("new").exists());
    assert!(!source.join("inner/thrown").exists());

    // Every mount point that had to be made is reported, and none stays.
    let made: Vec<_> =
        ran.exit.created_mountpoints.iter().map(|m| m.path.to_str().unwrap()).collect();
    assert_eq!(
        made,
        [
            "etc/resolv.conf",
            "etc/hosts",
            "ro",
            "file",
            "rw",
            "lro",
            "lrw",
            "t",
            "run",
            "run/secrets",
            "run/secrets/s",
            "agent.sock",
        ]
    );
    remove_leftovers(&bed.path("upper"), &ran.exit.created_mountpoints).unwrap();
    let left: Vec<_> = walk(&bed.path("upper"));
    assert_eq!(left, ["etc"], "copied up by the kernel, with its old times");
    let mtime = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
    assert_eq!(mtime(&bed.path("upper/etc")), mtime(&bed.path("lower/etc")));
}

fn walk(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

#[test]
fn leftovers_that_the_step_made_its_own_stay() {
    let bed = Bed::new();
    let mut spec = bed.spec("mkdir -p /a/b; umount /a/b 2>/dev/null; touch /a/kept");
    spec.mounts = vec![Mount {
        target: "/a/b".into(),
        kind: MountKind::Tmpfs { size_bytes: None, mode: 0o755 },
    }];
    let ran = bed.run(&spec);
    remove_leftovers(&bed.path("upper"), &ran.exit.created_mountpoints).unwrap();
    assert_eq!(walk(&bed.path("upper/a")), ["kept"]);
}

#[test]
fn the_working_directory_is_made() {
    let bed = Bed::new();
    let mut spec = bed.spec("pwd");
    spec.process.cwd = "/new/dir".into();
    assert_eq!(bed.run(&spec).out, "/new/dir\n");
}

#[test]
fn dangling_links_on_the_way_to_a_mount_point_stay_inside() {
    let bed = Bed::new();
    std::os::unix::fs::symlink("/else/where", bed.path("lower/link")).unwrap();
    std::os::unix::fs::symlink("../../../../../../up", bed.path("lower/etc/up")).unwrap();
    let tmpfs = || MountKind::Tmpfs { size_bytes: None, mode: 0o755 };
    let mut spec = bed.spec("grep -c -E ' /else/where/x | /up/y ' /proc/mounts");
    spec.mounts = vec![
        Mount { target: "/link/x".into(), kind: tmpfs() },
        Mount { target: "/etc/up/y".into(), kind: tmpfs() },
    ];
    assert_eq!(bed.run(&spec).out, "2\n");
    assert!(!Path::new("/else").exists() && !Path::new("/up").exists());
}

#[test]
fn a_link_in_place_of_proc_is_refused() {
    let bed = Bed::new();
    std::fs::remove_dir(bed.path("lower/proc")).unwrap();
    std::os::unix::fs::symlink("/etc", bed.path("lower/proc")).unwrap();
    let error = bed.try_run(&bed.spec("true")).unwrap_err();
    assert!(chain(&error).contains("/proc"), "{}", chain(&error));
}

#[test]
fn several_processes_share_one_session() {
    let bed = Bed::new();
    let session = bed.sandbox.start(&bed.spec("")).unwrap();
    let cancel = Cancel::new().unwrap();
    let exec = |script: &str| {
        let mut out = String::new();
        let mut output = |_, bytes: &[u8]| out.push_str(&String::from_utf8_lossy(bytes));
        let process = Process::new(["/bin/sh", "-c", script]);
        let exit = session.exec(&process, Io::output(&mut output), &cancel).unwrap();
        assert!(exit.success(), "{exit:?} {out}");
        out
    };
    assert_eq!(exec("echo data >/tmp/x; sleep 1000 & echo $$"), "2\n");
    assert_eq!(exec("cat /tmp/x; pidof sleep | wc -w"), "data\n1\n");
    // Pid 1 holds nothing of the engine, and an orphan that ends is reaped.
    assert_eq!(
        exec(
            "cat /proc/1/cmdline | tr '\\0' '\\n'; (sleep 0.01 &); sleep 0.1; ps | grep -c '\\[sleep\\]' || true"
        ),
        "ashlar-init\n0\n"
    );
    std::thread::scope(|scope| {
        let server = scope.spawn(|| exec("echo served | nc -l -p 8080"));
        let client = scope.spawn(|| exec("until sleep 0.5 | nc 127.0.0.1 8080; do true; done"));
        server.join().unwrap();
        assert_eq!(client.join().unwrap().lines().last(), Some("served"));
    });
    let cancelled = Cancel::new().unwrap();
    cancelled.cancel();
    let process = Process::new(["sleep", "1000"]);
    let exit = session.exec(&process, Io::output(&mut |_, _| ()), &cancelled).unwrap();
    assert!(exit.cancelled && exit.signal == Some(9), "{exit:?}");
    session.end().unwrap();
    assert_eq!(std::fs::read_to_string(bed.path("upper/tmp/x")).unwrap(), "data\n");
}

#[test]
fn a_terminal_is_the_sandbox_s_own() {
    let bed = Bed::new();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, b"tty; stty size; exit 7\n").unwrap();
    let mut out = String::new();
    let mut output = |_, bytes: &[u8]| out.push_str(&String::from_utf8_lossy(bytes));
    let terminal = Terminal { input: reader, size: || (33, 44) };
    let io = Io { stdin: Stdin::Terminal(terminal), output: &mut output };
    let spec = Spec::new(bed.rootfs(), ["/bin/sh"]);
    let exit = bed.sandbox.run(&spec, io, &Cancel::new().unwrap()).unwrap();
    assert_eq!(exit.code, Some(7), "{out}");
    assert!(out.contains("/dev/pts/0"), "{out}");
    assert!(out.contains("33 44"), "{out}");
}

#[test]
fn many_sandboxes_run_at_once() {
    let bed = Bed::new();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let bed = &bed;
            scope.spawn(move || {
                let mut spec = bed.spec("echo $0 >/tmp/out; cat /tmp/out");
                let dir = bed.path(&format!("n{number}"));
                busybox_root(&dir.join("lower"));
                std::fs::create_dir_all(dir.join("upper")).unwrap();
                std::fs::create_dir_all(dir.join("work")).unwrap();
                spec.rootfs = Rootfs::Overlay {
                    lowers: vec![dir.join("lower")],
                    upper: dir.join("upper"),
                    work: dir.join("work"),
                    volatile: false,
                };
                spec.process.args.push(number.to_string().into());
                assert_eq!(bed.run(&spec).out, format!("{number}\n"));
            });
        }
    });
}
