//! Makes namespaces for isolated steps, and keeps a few ready.
//!
//! Nothing of the host is touched before the first isolated step. Then: packets are forwarded
//! (`net.ipv4.ip_forward`), and one nftables table appears, gone again soon after the engine ends. A namespace serves one
//! step and goes with it; its link goes with the namespace.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::thread::UnshareFlags;

use super::netlink::Netlink;
use super::resolvers::Resolvers;
use super::rules::{BLOCKS, Block, LINKS, PREFIX_LENGTH4, PREFIX_LENGTH6};
use super::tools::NFT;
use super::{Attachment, NetworkConfig, loopback};
use crate::SandboxError;
use crate::error::During;

/// Isolated networks of one engine.
pub(crate) struct Isolated {
    config: NetworkConfig,
    engine: Mutex<Option<Engine>>,
}

/// What exists once the first isolated step has come.
struct Engine {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    block: Block,
    /// Holds the block: the kernel frees the name when the engine ends, however it ends.
    claim: UnixListener,
    resolvers: Resolvers,
    pool: Mutex<Pool>,
    taken: Condvar,
}

#[derive(Default)]
struct Pool {
    ready: VecDeque<OwnedFd>,
    next: u32,
    closed: bool,
}

impl Isolated {
    /// Remembers the settings; does nothing yet.
    pub(crate) fn new(config: NetworkConfig) -> Self {
        Self { config, engine: Mutex::new(None) }
    }

    /// Gives out a namespace for one step.
    pub(crate) fn attach(&self) -> Result<Attachment, SandboxError> {
        let shared = self.started()?;
        let ready = lock(&shared.pool).ready.pop_front();
        shared.taken.notify_one();
        let namespace = match ready {
            Some(namespace) => namespace,
            None => shared.make()?,
        };
        Ok(Attachment::Prepared(namespace, shared.resolvers.shown.clone()))
    }

    /// Makes the rules when nobody has yet.
    pub(crate) fn started(&self) -> Result<Arc<Shared>, SandboxError> {
        let mut engine = lock(&self.engine);
        let engine = match &mut *engine {
            Some(engine) => engine,
            none => none.insert(Engine::start(&self.config)?),
        };
        Ok(Arc::clone(&engine.shared))
    }
}

impl Engine {
    /// Makes the rules, and the namespace of the first step.
    fn start(config: &NetworkConfig) -> Result<Self, SandboxError> {
        let (number, claim) = claim_block()?;
        let ipv6 = has_ipv6();
        let block = Block { number, ipv6 };
        let resolvers = Resolvers::find(&config.resolvers);
        forward_packets(ipv6).during("letting the host forward packets")?;
        let rules = block.rules(&config.deny, &resolvers)?;
        let shared = Arc::new(Shared {
            block,
            claim,
            resolvers,
            pool: Mutex::new(Pool::default()),
            taken: Condvar::new(),
        });
        // The kernel takes its time over new rules. Nobody gets the namespace before they hold.
        let first = std::thread::scope(|scope| {
            let making = scope.spawn(|| shared.make());
            NFT.batch(&rules)?;
            making.join().map_err(|_| ended())?
        })?;
        lock(&shared.pool).ready.push_back(first);
        let (for_filler, size) = (Arc::clone(&shared), config.pool);
        std::thread::Builder::new()
            .name("network-pool".into())
            .spawn(move || for_filler.fill(size))
            .during("starting the network pool")?;
        Ok(Self { shared })
    }
}

impl Drop for Engine {
    /// Waits for nothing: the end of a process that made one image is not to take as long as a step. The pool's
    /// thread keeps the block claimed until it has ended, and so does the program that deletes the rules; no other
    /// engine can have made its own in their place.
    fn drop(&mut self) {
        lock(&self.shared.pool).closed = true;
        self.shared.taken.notify_one();
        let delete = format!("delete table inet {}\n", self.shared.block.table());
        // Left behind it would only refuse packets of links that no longer exist; the next engine replaces it.
        let _ = self.shared.claim.try_clone().map(|claim| NFT.leave(&delete, claim.into()));
    }
}

impl Shared {
    /// Keeps the pool full until it is closed.
    fn fill(&self, size: usize) {
        let mut pool = lock(&self.pool);
        while !pool.closed {
            if pool.ready.len() >= size {
                pool = self.taken.wait(pool).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(pool);
            let made = self.make();
            pool = lock(&self.pool);
            match made {
                Ok(namespace) => pool.ready.push_back(namespace),
                // The step that finds the pool empty tries again and reports it; this thread waits for one to come.
                Err(_) if !pool.closed => {
                    pool = self.taken.wait(pool).unwrap_or_else(PoisonError::into_inner);
                }
                Err(_) => {}
            }
        }
    }

    /// Makes a namespace with a link to the host.
    fn make(&self) -> Result<OwnedFd, SandboxError> {
        let (namespace, inside) = new_namespace()?;
        // Links of steps that still run are in the way; their numbers are passed over.
        for _ in 0..LINKS {
            let number = {
                let mut pool = lock(&self.pool);
                pool.next = (pool.next + 1) % LINKS;
                pool.next
            };
            if !Path::new("/proc/sys/net/ipv4/conf").join(self.block.link(number)).exists() {
                self.connect(&namespace, number)
                    .during("linking a network namespace to the host")?;
                self.furnish(&inside, number).during("setting up a network namespace")?;
                return Ok(namespace);
            }
        }
        Err(SandboxError::Invalid(format!("more than {LINKS} isolated steps at once")))
    }

    /// Makes link `number` and the host's end of it.
    fn connect(&self, namespace: &OwnedFd, number: u32) -> std::io::Result<()> {
        let link = self.block.link(number);
        let outside = Netlink::open()?;
        outside.add_pair(&link, namespace)?;
        let index = outside.index(&link)?;
        if has_ipv6_addresses() {
            outside.no_own_addresses(index)?;
        }
        outside.add_address(index, self.block.addresses4(number).0.into(), PREFIX_LENGTH4)?;
        if self.block.ipv6 {
            outside.add_address(index, self.block.addresses6(number).0.into(), PREFIX_LENGTH6)?;
        }
        outside.up(index)?;
        if self.resolvers.loopback.is_some() {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{link}/route_localnet"), "1")?;
        }
        Ok(())
    }

    /// Sets up the step's end of link `number`.
    fn furnish(&self, inside: &Netlink, number: u32) -> std::io::Result<()> {
        let index = inside.index("eth0")?;
        if has_ipv6_addresses() {
            inside.no_own_addresses(index)?;
        }
        let (host, step) = self.block.addresses4(number);
        inside.add_address(index, step.into(), PREFIX_LENGTH4)?;
        inside.up(index)?;
        inside.add_default_route(index, host.into())?;
        if self.block.ipv6 {
            let (host, step) = self.block.addresses6(number);
            inside.add_address(index, step.into(), PREFIX_LENGTH6)?;
            inside.add_default_route(index, host.into())?;
        }
        Ok(())
    }
}

/// Whether the kernel knows IPv6 at all.
fn has_ipv6_addresses() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Claims a block of the address pool against other engines of this host, by a name that only one socket can have.
fn claim_block() -> Result<(u32, UnixListener), SandboxError> {
    for number in 0..BLOCKS {
        let name = format!("ashlar-network-{number}");
        let address = SocketAddr::from_abstract_name(name).during("naming a network block")?;
        match UnixListener::bind_addr(&address) {
            Ok(claim) => return Ok((number, claim)),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error).during("claiming a network block"),
        }
    }
    Err(SandboxError::Invalid(format!("more than {BLOCKS} engines with isolated networks")))
}

/// Steps get IPv6 where the host has a way out for it.
fn has_ipv6() -> bool {
    // Of the thread's own namespace, which `/proc/net` is not. Without IPv6 there is no such file.
    let routes = std::fs::read_to_string("/proc/thread-self/net/ipv6_route");
    routes.is_ok_and(|routes| routes.lines().any(is_default_route))
}

/// Whether a line of `ipv6_route` is a default route that leads somewhere: target, its prefix length, source, its
/// length, next hop, metric, two counters, flags, device; all but the device in hexadecimal.
fn is_default_route(line: &str) -> bool {
    /// `RTF_REJECT`: what takes this route is refused.
    const REJECT: u32 = 0x200;
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let flags = fields.get(8).and_then(|flags| u32::from_str_radix(flags, 16).ok());
    fields.get(1) == Some(&"00") && flags.is_some_and(|flags| flags & REJECT == 0)
}

/// Turns forwarding on. With IPv6 that would make the host deaf to its own router's announcements, unless told not to.
fn forward_packets(ipv6: bool) -> std::io::Result<()> {
    set("/proc/sys/net/ipv4/ip_forward", "1")?;
    if !ipv6 {
        return Ok(());
    }
    for device in std::fs::read_dir("/proc/sys/net/ipv6/conf")?.flatten() {
        let file = device.path().join("accept_ra");
        if std::fs::read_to_string(&file).is_ok_and(|text| text.trim() == "1") {
            std::fs::write(file, "2")?;
        }
    }
    set("/proc/sys/net/ipv6/conf/all/forwarding", "1")
}

/// Writes a kernel setting unless it has the value already.
fn set(path: &str, value: &str) -> std::io::Result<()> {
    if std::fs::read_to_string(path)?.trim() == value {
        return Ok(());
    }
    std::fs::write(path, value)
}

/// Makes a network namespace with its loopback up, and a socket that speaks of its devices.
fn new_namespace() -> Result<(OwnedFd, Netlink), SandboxError> {
    let thread = std::thread::spawn(|| {
        // SAFETY: the flags don't include FILES, the one that can break descriptors of other threads.
        #[expect(
            unsafe_code,
            reason = "rustix marks every unshare unsafe for the sake of one flag"
        )]
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .during("making a network namespace")?;
        loopback::configure().during("bringing up the loopback device")?;
        let inside = Netlink::open().during("opening a socket of the network namespace")?;
        let file = std::fs::File::open("/proc/thread-self/ns/net");
        Ok((OwnedFd::from(file.during("opening the network namespace")?), inside))
    });
    thread.join().map_err(|_| ended())?
}

/// A thread of ours panicked.
fn ended() -> SandboxError {
    SandboxError::Invalid("the network thread ended; a bug".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_that_lead_somewhere() {
        let zeros = "0".repeat(32);
        let route = |length: &str, flags: &str, device: &str| {
            format!(
                "{zeros} {length} {zeros} 00 {zeros} 00000400 00000001 00000000 {flags} {device}"
            )
        };
        assert!(is_default_route(&route("00", "00000003", "eth0")));
        assert!(!is_default_route(&route("00", "00200200", "lo")), "refuses everything");
        assert!(!is_default_route(&route("40", "00000001", "eth0")), "leads to one network");
        assert!(!is_default_route("") && !is_default_route("x 00"));
    }
}
