//! Finds the resolvers that isolated steps get.

use std::net::{IpAddr, Ipv4Addr};

use super::rules::RESOLVER;
use crate::mounts::files::host_servers;

/// Where systemd-resolved writes the real resolvers, beside the loopback one of `/etc/resolv.conf`; that one refuses
/// packets that did not come from the loopback device.
const SYSTEMD_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// What to tell a step, and which loopback resolver stands behind the stand-in address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resolvers {
    /// Addresses for the step's `/etc/resolv.conf`.
    pub(crate) shown: Vec<IpAddr>,
    /// The host's own resolver on loopback, reached through [`RESOLVER`].
    pub(crate) loopback: Option<Ipv4Addr>,
}

impl Resolvers {
    /// Takes the operator's, else the host's.
    pub(crate) fn find(configured: &[IpAddr]) -> Self {
        if !configured.is_empty() {
            return Self::from(configured.to_vec());
        }
        let read = |path| std::fs::read_to_string(path).map(|text| parse(&text));
        let host = read("/etc/resolv.conf").unwrap_or_default();
        if host.iter().all(|address| is_stub(*address))
            && let Ok(upstream) = read(SYSTEMD_UPSTREAM)
        {
            return Self::from(upstream);
        }
        Self::from(host)
    }

    fn from(addresses: Vec<IpAddr>) -> Self {
        let mut found = Self::default();
        for address in addresses {
            match address {
                IpAddr::V4(v4) if v4.is_loopback() => {
                    if found.loopback.replace(v4).is_none() {
                        found.shown.push(RESOLVER.into());
                    }
                }
                IpAddr::V6(v6) if v6.is_loopback() => {}
                other => found.shown.push(other),
            }
        }
        found
    }
}

fn parse(text: &str) -> Vec<IpAddr> {
    host_servers(text).iter().filter_map(|word| word.parse().ok()).collect()
}

fn is_stub(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.octets()[..3] == [127, 0, 0] && v4.octets()[3] >= 53)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_resolvers_get_a_stand_in() {
        let found = Resolvers::from(parse("nameserver 127.0.0.1\nnameserver 192.0.2.3\n"));
        assert_eq!(found.shown, [IpAddr::from(RESOLVER), "192.0.2.3".parse().unwrap()]);
        assert_eq!(found.loopback, Some(Ipv4Addr::LOCALHOST));
    }
}
