//! A Docker daemon that is one test's own, to be stopped by it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use ashlar_buildkit::Address;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::doors::Pki;
use crate::world::{peers, peers_home, script};

/// A daemon with a classic store, which listens on a unix socket and, with TLS, at a port.
pub(crate) struct OwnDaemon {
    dir: TempDir,
    registry: String,
    port: String,
    pki: Pki,
}

/// The ports that are taken; the system gives none of them to those that ask for any.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Returns the address of a port at which nobody listens, and that nobody else takes before a daemon
/// does, which may be a while: each process begins to look for them elsewhere.
fn free_port() -> String {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 10 + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (number % PORTS.len() as u32) as u16;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap().to_string();
        }
    }
}

impl OwnDaemon {
    pub(crate) fn start() -> Self {
        peers();
        let dir = TempDir::with_prefix_in("own-", "/var/tmp").unwrap();
        let own = Self { dir, registry: free_port(), port: free_port(), pki: Pki::new() };
        own.pki.write_server(&own.dir.path().join("tls"));
        own.script(&["start", "classic"]);
        own
    }

    fn script(&self, args: &[&str]) {
        let root = std::env::var_os("ASHLAR_PEERS_ROOT");
        let root = root.map_or_else(|| peers_home().join("root"), PathBuf::from);
        let env = [
            ("ASHLAR_PEERS_DIR", self.dir.path().to_str().unwrap()),
            ("ASHLAR_PEERS_ROOT", root.to_str().unwrap()),
            ("ASHLAR_PEERS_REGISTRY", &self.registry),
            ("ASHLAR_PEERS_TLS", &self.port),
        ];
        script(args, &env);
    }

    pub(crate) fn socket(&self) -> Address {
        let path = self.dir.path().join("classic/docker.sock");
        path.to_str().unwrap().parse().unwrap()
    }

    /// Returns the address of its port with certificates of this folder, or none.
    pub(crate) fn port_with(&self, certificates: Option<&Pki>) -> Address {
        let query = certificates.map_or_else(String::new, |p| format!("?certs={}", p.folder()));
        format!("tcp://{}{query}", self.port).parse().unwrap()
    }

    pub(crate) fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Tells the daemon to end as the system does when it goes down; does not wait.
    pub(crate) fn terminate(&self) {
        let text = std::fs::read_to_string(self.dir.path().join("pids/dockerd-classic")).unwrap();
        let pid = text.split_whitespace().next().unwrap().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    }
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        // A second panic would hide the first one.
        if thread::panicking() {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.script(&["stop", "--wipe"]);
            }));
        } else {
            self.script(&["stop", "--wipe"]);
        }
    }
}
