//! The same contract by another runtime: runc of Debian.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::{Duration, Instant};

use ashlar_sandbox::*;
use support::Bed;

fn bed() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let config = RuntimeConfig::runc(dir.path().join("state"));
    let sandbox = match RuntimeSandbox::new(&config) {
        Ok(sandbox) => sandbox,
        Err(error) => panic!("{error}"),
    };
    Bed::with(Box::new(sandbox), dir)
}

#[test]
fn a_step_runs_with_the_same_rights() {
    let bed = bed();
    let script = "echo x >/made; grep -E '^(CapEff|CapBnd|CapInh|CapAmb|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t'; echo err >&2; exit 3";
    let ran = bed.run(&bed.spec(script));
    assert_eq!(ran.exit.code, Some(3), "{ran:?}");
    assert_eq!(
        ran.out,
        "CapInh:0000000000000000\nCapEff:00000000a80425fb\nCapBnd:00000000a80425fb\n\
         CapAmb:0000000000000000\nNoNewPrivs:0\nSeccomp:2\n"
    );
    assert_eq!(ran.err, "err\n");
    assert!(bed.path("upper/made").exists());
    remove_leftovers(&bed.path("upper"), &ran.exit.created_mountpoints).unwrap();
    assert!(!bed.path("upper/etc/resolv.conf").exists());
}

#[test]
fn mounts_and_input_reach_it() {
    let bed = bed();
    let mut spec = bed.spec("cat; cat /run/secrets/s; touch /ro/x 2>&1; cat $SSL_CERT_FILE; hostname; echo 1 >/proc/sys/kernel/core_pattern; wc -c </proc/keys");
    std::fs::create_dir(bed.path("source")).unwrap();
    std::fs::write(bed.path("ca"), "CA\n").unwrap();
    spec.ca_bundle = Some(bed.path("ca"));
    spec.mounts = vec![
        Mount {
            target: "/run/secrets/s".into(),
            kind: MountKind::Content {
                bytes: Secret(b"hush\n".to_vec()),
                mode: 0o400,
                uid: 0,
                gid: 0,
            },
        },
        Mount {
            target: "/ro".into(),
            kind: MountKind::Bind {
                source: bed.path("source"),
                subpath: "".into(),
                readonly: true,
            },
        },
    ];
    // What comes of one stream may stand in the middle of what comes of the other.
    let (mut out, mut err) = (String::new(), String::new());
    let mut output = |stream, bytes: &[u8]| {
        let text = if stream == Stream::Stdout { &mut out } else { &mut err };
        text.push_str(&String::from_utf8_lossy(bytes));
    };
    let io = Io { stdin: Stdin::Bytes(b"typed\n".to_vec()), output: &mut output };
    bed.sandbox.run(&spec, io, &Cancel::new().unwrap()).unwrap();
    assert!(out.starts_with("typed\nhush\n"), "{out}");
    assert!(out.ends_with("CA\nbuildkitsandbox\n0\n"), "{out}");
    assert_eq!((out + &err).matches("Read-only file system").count(), 2, "{err}");
}

#[test]
fn limits_and_cancel_hold() {
    let bed = bed();
    let mut spec = bed.spec("head -c 200m /dev/zero | tail | wc -c; exit 9");
    spec.limits.memory_bytes = Some(32 << 20);
    let ran = bed.run(&spec);
    assert!(matches!(ran.exit.limit_hit, Some(LimitHit::Memory { .. })), "{ran:?}");

    let mut spec = bed.spec("sleep 1000");
    let limit = Duration::from_millis(500);
    spec.limits.timeout = Some(limit);
    let ran = bed.run(&spec);
    assert_eq!(ran.exit.limit_hit, Some(LimitHit::Time { limit }), "{ran:?}");

    let cancel = Cancel::new().unwrap();
    let mut called = None;
    let mut output = |_, _: &[u8]| {
        cancel.cancel();
        called = Some(Instant::now());
    };
    let spec = bed.spec("setsid sleep 1000 & echo up; sleep 1000");
    let exit = bed.sandbox.run(&spec, Io::output(&mut output), &cancel).unwrap();
    assert!(exit.cancelled, "{exit:?}");
    assert!(called.unwrap().elapsed() < Duration::from_secs(2));
}

#[test]
fn several_processes_share_one_session() {
    let bed = bed();
    let session = bed.sandbox.start(&bed.spec("")).unwrap();
    let exec = |script: &str| {
        let mut out = String::new();
        let mut output = |_, bytes: &[u8]| out.push_str(&String::from_utf8_lossy(bytes));
        let process = Process::new(["/bin/sh", "-c", script]);
        session.exec(&process, Io::output(&mut output), &Cancel::new().unwrap()).unwrap();
        out
    };
    assert_eq!(exec("echo data >/tmp/x; id -u"), "0\n");
    assert_eq!(exec("cat /tmp/x"), "data\n");
    session.end().unwrap();
}
