//! What isolated steps reach and what they don't, against services in namespaces made for the test.
//!
//! The "host" of these tests is a network namespace too, so that neither rules nor settings of the machine change.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Command;

use ashlar_sandbox::*;
use support::Bed;

/// Runs a test on a thread whose network namespace plays the host, with a neighbour at 198.51.100.2 and 2001:db8::2.
fn on_a_host(test: impl FnOnce() + Send) {
    for (tool, package) in [("nft", "nftables"), ("ip", "iproute2")] {
        let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
            .iter()
            .any(|directory| std::path::Path::new(directory).join(tool).exists());
        assert!(found, "these tests need {tool}: install the package {package}");
    }
    std::thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare_network();
            let me = rustix::thread::gettid().as_raw_nonzero();
            let host = format!("/proc/{}/task/{me}/ns/net", std::process::id());
            let (ready, neighbour_ready) = std::sync::mpsc::channel();
            let (done, test_done) = std::sync::mpsc::channel::<()>();
            let neighbour = std::thread::spawn(move || {
                unshare_network();
                ip("link set lo up");
                ip(&format!("link add up0 type veth peer name eth0 netns {host}"));
                for address in
                    ["198.51.100.2/24", "198.51.100.3/24", "198.51.100.53/24", "169.254.169.254/32"]
                {
                    ip(&format!("addr add {address} dev up0"));
                }
                ip("addr add 2001:db8::2/64 dev up0 nodad");
                ip("link set up0 up");
                serve("0.0.0.0:80", "neighbour");
                serve("[2001:db8::2]:80", "neighbour6");
                serve("198.51.100.53:53", "resolver");
                ready.send(()).unwrap();
                let _ = test_done.recv();
            });
            neighbour_ready.recv().unwrap();
            ip("link set lo up");
            ip("addr add 198.51.100.1/24 dev eth0");
            ip("addr add 2001:db8::1/64 dev eth0 nodad");
            ip("link set eth0 up");
            ip("route add default via 198.51.100.2");
            ip("route add default via 2001:db8::2");
            serve("0.0.0.0:80", "host");
            serve("[::]:81", "host6");
            serve("127.0.0.1:53", "local resolver");
            test();
            drop(done);
            neighbour.join().unwrap();
        });
        if let Err(panic) = host.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[expect(unsafe_code, reason = "rustix marks every unshare unsafe for the sake of one flag")]
fn unshare_network() {
    // SAFETY: does not unshare the descriptor table.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Greets everybody who connects.
fn serve(address: &str, greeting: &'static str) {
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = (&stream).write_all(greeting.as_bytes());
        }
    });
}

fn bed(change: impl FnOnce(&mut NetworkConfig)) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let mut config = NativeConfig::new(dir.path().join("state"));
    config.network.resolvers = vec!["198.51.100.53".parse().unwrap()];
    change(&mut config.network);
    Bed::with(Box::new(NativeSandbox::new(&config).unwrap()), dir)
}

fn script(bed: &Bed, script: &str) -> String {
    let mut spec = bed.spec(script);
    spec.network = Network::Isolated;
    spec.limits.timeout = Some(std::time::Duration::from_secs(10));
    let ran = bed.run(&spec);
    assert_eq!(ran.exit.limit_hit, None, "{script}: {ran:?}");
    ran.out
}

/// What a step hears when it connects; empty when it can't.
fn connect(bed: &Bed, address: &str, port: u16) -> String {
    script(bed, &format!("nc -w 1 {address} {port} </dev/null 2>/dev/null"))
}

#[test]
fn an_isolated_step_reaches_the_world_and_nothing_of_the_host() {
    on_a_host(|| {
        let bed = bed(|config| config.deny = vec!["198.51.100.3".into()]);
        assert_eq!(connect(&bed, "198.51.100.2", 80), "neighbour");
        assert_eq!(connect(&bed, "2001:db8::2", 80), "neighbour6");
        assert_eq!(connect(&bed, "198.51.100.53", 53), "resolver", "the resolver can be reached");
        assert_eq!(script(&bed, "cat /etc/resolv.conf"), "nameserver 198.51.100.53\n");
        let gateway = script(&bed, "ip route | awk '/default/{print $3}'");
        let gateway6 = script(&bed, "ip -6 route | awk '/default/{print $3}'");
        for (address, port, why) in [
            ("198.51.100.1", 80, "an address of the host"),
            ("2001:db8::1", 81, "an IPv6 address of the host"),
            (gateway.trim(), 80, "the host's end of the link"),
            (gateway6.trim(), 81, "the host's IPv6 end of the link"),
            ("198.51.100.3", 80, "the deny list"),
            ("169.254.169.254", 80, "a metadata service"),
            ("127.0.0.1", 80, "its own loopback, not the host's"),
            ("198.51.100.1", 53, "a resolver of the host that was not named"),
        ] {
            assert_eq!(connect(&bed, address, port), "", "{why}: {address}");
        }
    });
}

#[test]
fn isolated_steps_can_t_reach_one_another() {
    on_a_host(|| {
        let bed = bed(|_| ());
        let mut spec = bed.spec("");
        spec.network = Network::Isolated;
        let session = bed.sandbox.start(&spec).unwrap();
        let exec = |script: &str| {
            let mut out = String::new();
            let mut output = |_, bytes: &[u8]| out.push_str(&String::from_utf8_lossy(bytes));
            let process = Process::new(["/bin/sh", "-c", script]);
            session.exec(&process, Io::output(&mut output), &Cancel::new().unwrap()).unwrap();
            out
        };
        let show = |family: &str| {
            format!("ip {family} -o addr show eth0 | awk '{{sub(\"/.*\",\"\",$4); print $4}}'")
        };
        let address = exec(&show("-4"));
        let address6 = exec(&show("-6"));
        exec("(while true; do echo sandbox | nc -l -p 80; done) >/dev/null 2>&1 &");
        assert_eq!(
            exec(&format!("sleep 0.2; nc -w 1 {} 80 </dev/null", address.trim())),
            "sandbox\n"
        );
        std::fs::create_dir_all(bed.path("other/upper")).unwrap();
        std::fs::create_dir_all(bed.path("other/work")).unwrap();
        for target in [address.trim(), address6.trim()] {
            let mut spec = bed.spec(&format!("nc -w 1 {target} 80 </dev/null 2>/dev/null"));
            spec.network = Network::Isolated;
            spec.rootfs = Rootfs::Overlay {
                lowers: vec![bed.path("lower")],
                upper: bed.path("other/upper"),
                work: bed.path("other/work"),
                volatile: true,
            };
            assert_eq!(bed.run(&spec).out, "", "{target}");
        }
        // Nor can the world reach a step.
        let mut out = String::new();
        let dial = std::net::TcpStream::connect_timeout(
            &format!("{}:80", address.trim()).parse().unwrap(),
            std::time::Duration::from_millis(500),
        );
        if let Ok(mut stream) = dial {
            let _ = std::io::Read::read_to_string(&mut stream, &mut out);
        }
        assert_eq!(out, "", "nobody can open a connection to a step, the host included");
        session.end().unwrap();
    });
}

#[test]
fn a_resolver_on_the_host_s_loopback_is_reached_through_a_stand_in() {
    on_a_host(|| {
        let bed = bed(|config| config.resolvers = vec!["127.0.0.1".parse().unwrap()]);
        let resolv = script(&bed, "cat /etc/resolv.conf");
        let stand_in = resolv.trim().strip_prefix("nameserver ").unwrap();
        assert_eq!(connect(&bed, stand_in, 53), "local resolver");
        assert_eq!(connect(&bed, stand_in, 80), "");
        assert_eq!(connect(&bed, "127.0.0.1", 53), "");
    });
}

#[test]
fn forged_addresses_go_nowhere() {
    on_a_host(|| {
        let bed = bed(|_| ());
        // A step can't change its address, having no CAP_NET_ADMIN.
        let out = script(
            &bed,
            "ip addr add 198.51.100.77/24 dev eth0 2>&1; ip link set eth0 down 2>&1; ip addr",
        );
        assert!(!out.contains("198.51.100.77") && out.contains("not permitted"), "{out}");
    });
}

#[test]
fn rules_and_links_go_with_the_engine() {
    on_a_host(|| {
        let bed = bed(|_| ());
        assert_eq!(connect(&bed, "198.51.100.2", 80), "neighbour");
        let tables = || {
            let output = Command::new("nft").args(["list", "tables"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert!(tables().contains("ashlar_0"));
        drop(bed);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !tables().is_empty() {
            assert!(std::time::Instant::now() < deadline, "{}", tables());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let links = || {
            let output = Command::new("ip").args(["-br", "link"]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        // The kernel takes namespaces down in its own time.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while links().contains("ash") {
            assert!(std::time::Instant::now() < deadline, "{}", links());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
}

#[test]
fn a_step_without_network_has_only_its_own_loopback() {
    let bed = Bed::new();
    let out = bed.sh("ip -br addr | awk '{print $1}'; ip route; (echo me | nc -l -p 7 &); sleep 0.2; nc 127.0.0.1 7 </dev/null");
    assert!(out.ends_with("me\n") && !out.contains("eth") && !out.contains("default"), "{out}");
}
