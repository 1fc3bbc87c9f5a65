//! Time of one step that does nothing: overlay root, all namespaces, cgroup, `/bin/true`, and down again.
//!
//! `cargo bench -p ashlar-sandbox`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people")]

use std::path::Path;
use std::time::{Duration, Instant};

use ashlar_sandbox::*;

const RUNS: usize = 200;

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let lower = dir.path().join("lower");
    for name in ["lower/bin", "lower/proc", "lower/sys", "lower/dev", "lower/etc", "upper", "work"]
    {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.exists(), "needs /bin/busybox: install the package busybox-static");
    std::fs::copy(busybox, lower.join("bin/true")).unwrap();
    let sandbox = NativeSandbox::new(&NativeConfig::new(dir.path().join("state"))).unwrap();
    // The memory of a real engine, which clone3 has to make a copy-on-write copy of.
    for ballast_mib in [0, 100] {
        let ballast = vec![1u8; ballast_mib << 20];
        let kinds = [(Network::None, None), (Network::Host, None), (Network::Host, Some(1 << 30))];
        for (network, memory) in kinds {
            let mut spec = Spec::new(
                Rootfs::Overlay {
                    lowers: vec![lower.clone()],
                    upper: dir.path().join("upper"),
                    work: dir.path().join("work"),
                    volatile: true,
                },
                ["/bin/true"],
            );
            spec.network = network;
            // A step with a limit is also shown its cgroups.
            spec.limits.memory_bytes = memory;
            let mut times: Vec<Duration> = (0..RUNS).map(|_| one(&sandbox, &spec)).collect();
            times.sort();
            println!(
                "step, network {network:?}, memory {memory:?}, engine {ballast_mib} MiB: median {:?}, p95 {:?}",
                times[RUNS / 2],
                times[RUNS * 95 / 100]
            );
        }
        drop(ballast);
    }
}

fn one(sandbox: &NativeSandbox, spec: &Spec) -> Duration {
    let started = Instant::now();
    let exit = sandbox.run(spec, Io::output(&mut |_, _| ()), &Cancel::new().unwrap()).unwrap();
    assert!(exit.success(), "{exit:?}");
    started.elapsed()
}
