//! Small files that a sandbox sees and no layer ever holds: secrets, `/etc/resolv.conf`, `/etc/hosts`.
//!
//! They live in a tmpfs of the sandbox's own that is attached nowhere in its tree; each is bound to its place alone.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, openat};
use rustix::io::Result;

use super::api::{INERT, NODEV, RDONLY, attach, bind, new_mount};
use crate::{Dns, Network, Spec};

/// Options tried first: secrets should not be swapped out; kernels before 6.4 don't know the option.
const NO_SWAP: [(&str, &str); 2] = [("mode", "0700"), ("size", "64m")];

/// A tmpfs for the files of one sandbox.
pub(crate) struct Files {
    mount: OwnedFd,
    count: u32,
}

impl Files {
    /// Makes the tmpfs, hidden on the scratch directory.
    pub(crate) fn new(scratch: &Path) -> Result<Self> {
        let mount = match no_swap() {
            Err(rustix::io::Errno::INVAL) => new_mount("tmpfs", &NO_SWAP, INERT)?,
            result => result?,
        };
        let target =
            openat(rustix::fs::CWD, scratch, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        attach(&mount, target)?;
        Ok(Self { mount, count: 0 })
    }

    /// Makes a file and returns a detached mount of it.
    pub(crate) fn add(
        &mut self,
        bytes: &[u8],
        mode: u32,
        owner: (u32, u32),
        readonly: bool,
    ) -> Result<OwnedFd> {
        self.count += 1;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let name = self.count.to_string();
        let file = openat(self.mount.as_fd(), name, flags, Mode::from_raw_mode(0o600))?;
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&file, rest)?..];
        }
        fchown(&file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
        fchmod(&file, Mode::from_raw_mode(mode))?;
        bind(&file, NODEV | if readonly { RDONLY } else { 0 })
    }
}

fn no_swap() -> Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, fsconfig_create, fsmount, fsopen};
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_flag(&context, "noswap")?;
    for (key, value) in NO_SWAP {
        rustix::mount::fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, INERT)
}

/// Writes `/etc/hosts`.
pub(crate) fn hosts(spec: &Spec) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (name, address) in &spec.extra_hosts {
        let _ = writeln!(text, "{address}\t{name}");
    }
    if !spec.hostname.is_empty() {
        let _ = writeln!(text, "127.0.1.1\t{}", spec.hostname);
    }
    text
}

/// Writes `/etc/resolv.conf` from the step's wishes, the host's file and the resolvers that its network can reach.
pub(crate) fn resolv_conf(dns: &Dns, network: Network, host: &str, reachable: &[IpAddr]) -> String {
    let words = |key: &str| -> Vec<String> {
        let mut lines = host.lines().rev().filter_map(|line| line.trim().strip_prefix(key));
        lines.next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let servers: Vec<String> = match (&dns.servers[..], network) {
        ([], Network::Isolated) => reachable.iter().map(IpAddr::to_string).collect(),
        ([], _) => host_servers(host),
        (own, _) => own.iter().map(IpAddr::to_string).collect(),
    };
    let search = if dns.search.is_empty() { words("search ") } else { dns.search.clone() };
    let options = if dns.options.is_empty() { words("options ") } else { dns.options.clone() };
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

/// The resolvers that a resolv.conf names.
pub(crate) fn host_servers(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# comment\nnameserver 192.0.2.1\nnameserver ::1\nsearch a b\noptions x:1\n";

    #[test]
    fn the_host_file_is_the_default() {
        let text = resolv_conf(&Dns::default(), Network::Host, HOST, &[]);
        assert_eq!(text, "nameserver 192.0.2.1\nnameserver ::1\nsearch a b\noptions x:1\n");
    }

    #[test]
    fn an_isolated_step_gets_the_resolvers_it_can_reach() {
        let reachable = ["203.0.113.1".parse().unwrap()];
        let text = resolv_conf(&Dns::default(), Network::Isolated, HOST, &reachable);
        assert!(text.starts_with("nameserver 203.0.113.1\nsearch"), "{text}");
    }

    #[test]
    fn own_wishes_win() {
        let dns = Dns { servers: vec!["9.9.9.9".parse().unwrap()], ..Dns::default() };
        assert!(
            resolv_conf(&dns, Network::Isolated, HOST, &[]).starts_with("nameserver 9.9.9.9\n")
        );
    }
}
