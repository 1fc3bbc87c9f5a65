//! Where requests for builds may go: a server fetches what its tenants name, and must not be made
//! to read its own machine's services or the cloud's metadata for them.
//!
//! What a name leads to is judged when the connection is made, so that a name which changes its
//! address between look and use wins nothing. Private networks stay reachable: that is where
//! companies have their registries.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Metadata services that do not have link-local addresses: AWS by IPv6, Azure's wire server,
/// Alibaba Cloud and Oracle Cloud.
const METADATA: [IpAddr; 4] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];
/// The variables that name proxies, in both spellings.
const PROXY_VARIABLES: [&str; 6] =
    ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// Where requests for builds may go. Everywhere, unless it is guarded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    /// None: everywhere.
    allowed: Option<Vec<EgressRule>>,
    /// Whether registries and git remotes may be on this machine.
    loopback: bool,
}

/// An exception from a guarded [`Egress`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EgressRule {
    /// Addresses of a network.
    Network(IpNet),
    /// A host, by the name or address that it is asked for by.
    Host {
        /// The name, in lower case, or the address without brackets.
        name: String,
        /// The one port; all when absent.
        port: Option<u16>,
    },
}

/// A text is no exception.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no host or network; write HOST, HOST:PORT, or CIDR such as 127.0.0.0/8")]
pub struct EgressRuleError(String);

/// A host that builds do not reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{host}' is this machine or its link (a loopback, link-local or metadata address), which \
     builds do not reach"
)]
pub struct EgressRefused {
    /// The name or address that was asked for, with its port when that is known.
    pub host: String,
}

/// A host cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// Builds do not reach it.
    #[error(transparent)]
    Refused(#[from] EgressRefused),
    /// Its name has no address.
    #[error("cannot find the address of '{host}'")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl EgressRefused {
    /// What an operator can do about it.
    pub const HINT: &str = "the operator of the server can allow it: --egress-allow HOST:PORT";
}

impl Egress {
    /// Refuses loopback, link-local, unspecified and metadata addresses but for `allowed`.
    pub fn guarded(allowed: impl IntoIterator<Item = EgressRule>) -> Self {
        Self { allowed: Some(allowed.into_iter().collect()), loopback: false }
    }

    /// Lets registries and git remotes be on this machine; files that a build adds from the web
    /// never come from there.
    #[must_use]
    pub fn with_loopback(self) -> Self {
        Self { loopback: true, ..self }
    }

    /// What holds for files that a build adds from the web.
    pub(super) fn for_files(&self) -> Self {
        Self { loopback: false, ..self.clone() }
    }

    /// Says whether anything is refused at all.
    pub fn is_guarded(&self) -> bool {
        self.allowed.is_some()
    }

    /// Says whether a host may be reached whatever its address is.
    pub fn allows_host(&self, host: &str, port: u16) -> bool {
        let Some(allowed) = &self.allowed else { return true };
        allowed.iter().any(|rule| rule.names(host, port))
    }

    /// Says whether an address may be reached.
    pub fn allows_address(&self, address: IpAddr) -> bool {
        let Some(allowed) = &self.allowed else { return true };
        let address = address.to_canonical();
        let inside = |rule: &EgressRule| match rule {
            EgressRule::Network(network) => network.contains(&address),
            EgressRule::Host { .. } => false,
        };
        !is_inward(address)
            || (self.loopback && address.is_loopback())
            || allowed.iter().any(inside)
    }

    /// Returns those addresses that may be reached.
    fn filter(&self, host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, EgressRefused> {
        let any = !found.is_empty();
        let left: Vec<_> = found.into_iter().filter(|a| self.allows_address(a.ip())).collect();
        match left.is_empty() && any {
            true => Err(EgressRefused { host: host.to_owned() }),
            false => Ok(left),
        }
    }

    /// Returns the addresses of a host that may be reached. Blocks.
    ///
    /// # Errors
    /// [`EgressError`]; the list is never empty.
    pub fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, EgressError> {
        let bare = bare(host);
        let unknown = |source| EgressError::Resolve { host: host.to_owned(), source };
        let found: Vec<_> = (bare, port).to_socket_addrs().map_err(unknown)?.collect();
        if found.is_empty() {
            return Err(unknown(io::ErrorKind::NotFound.into()));
        }
        if self.allows_host(host, port) {
            return Ok(found);
        }
        Ok(self.filter(&format!("{host}:{port}"), found)?)
    }
}

impl EgressRule {
    /// Returns the rule that is a host, with its port when the text says one.
    pub fn host(text: &str) -> Option<Self> {
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
                (name, Some(port.parse().ok()?))
            }
            _ => (text, None),
        };
        let name = bare(name).to_ascii_lowercase();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:".contains(&b);
        let fits = !name.is_empty() && name.bytes().all(plain);
        fits.then_some(Self::Host { name, port })
    }

    fn names(&self, host: &str, port: u16) -> bool {
        let Self::Host { name, port: only } = self else { return false };
        name.eq_ignore_ascii_case(bare(host)) && only.is_none_or(|only| only == port)
    }
}

impl FromStr for EgressRule {
    type Err = EgressRuleError;

    fn from_str(text: &str) -> Result<Self, EgressRuleError> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        if let Ok(network) = network {
            return Ok(Self::Network(network.trunc()));
        }
        let bad = || EgressRuleError(text.chars().take(200).collect());
        Self::host(text).ok_or_else(bad)
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => write!(f, "{network}"),
            Self::Host { name, port: None } => f.write_str(name),
            Self::Host { name, port: Some(port) } if name.contains(':') => {
                write!(f, "[{name}]:{port}")
            }
            Self::Host { name, port: Some(port) } => write!(f, "{name}:{port}"),
        }
    }
}

/// Returns an address of IPv6 without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

/// Says whether an address is of this machine, or of something that only its link reaches.
fn is_inward(address: IpAddr) -> bool {
    if METADATA.contains(&address) {
        return true;
    }
    match address.to_canonical() {
        // All of 0.0.0.0/8 is "this host" (RFC 1122).
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unicast_link_local()
                || embedded(v6).is_some_and(|v4| is_inward(v4.into()))
        }
    }
}

/// Returns the address of IPv4 that a gateway would take one of IPv6 for: NAT64 (RFC 6052), 6to4
/// (RFC 3056), and the old compatible form (RFC 4291).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match parts {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => {
            Some(v4(high, low))
        }
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// Resolves names for a client, and gives only addresses that may be reached.
pub(super) struct GuardedNames {
    egress: Arc<Egress>,
    /// Hosts of the operator's proxies, which judge for themselves.
    proxies: Arc<[String]>,
}

impl GuardedNames {
    /// `with_proxies` when the client may go through the proxies that the environment names.
    pub(super) fn new(egress: &Egress, with_proxies: bool) -> Self {
        let variables = PROXY_VARIABLES.iter().filter(|_| with_proxies);
        let proxies = variables.filter_map(|name| proxy_host(&std::env::var(name).ok()?));
        Self { egress: Arc::new(egress.clone()), proxies: proxies.collect() }
    }
}

fn proxy_host(text: &str) -> Option<String> {
    let url = match text.contains("://") {
        true => reqwest::Url::parse(text).ok()?,
        false => reqwest::Url::parse(&format!("http://{text}")).ok()?,
    };
    url.host_str().map(str::to_ascii_lowercase)
}

impl Resolve for GuardedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, proxies) = (Arc::clone(&self.egress), Arc::clone(&self.proxies));
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<_> = tokio::net::lookup_host((host, 0)).await?.collect();
            let found = match proxies.iter().any(|p| p.eq_ignore_ascii_case(host)) {
                true => found,
                false => egress.filter(host, found)?,
            };
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(rules: &[&str]) -> Egress {
        Egress::guarded(rules.iter().map(|r| r.parse().unwrap()))
    }

    #[test]
    fn this_machine_and_its_link_are_refused_in_every_spelling() {
        let egress = guarded(&[]);
        for inward in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "::",
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::1",
        ] {
            assert!(!egress.allows_address(inward.parse().unwrap()), "{inward}");
            assert!(Egress::default().allows_address(inward.parse().unwrap()), "{inward}");
        }
        for outward in
            ["10.0.0.1", "192.168.1.1", "172.16.0.1", "1.1.1.1", "fd00::1", "2606:4700::1"]
        {
            assert!(egress.allows_address(outward.parse().unwrap()), "{outward}");
        }
    }

    #[test]
    fn loopback_is_for_registries_and_git_where_it_is_allowed() {
        let egress = guarded(&[]).with_loopback();
        for (address, allowed) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("64:ff9b::7f00:1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(egress.allows_address(address), allowed, "{address}");
            assert!(!egress.for_files().allows_address(address), "{address}");
        }
    }

    #[test]
    fn exceptions_are_hosts_with_or_without_ports_and_networks() {
        let egress = guarded(&["127.0.0.1:5000", "[::1]:80", "Registry.Example", "127.1.0.0/16"]);
        for (host, port, allowed) in [
            ("127.0.0.1", 5000, true),
            ("127.0.0.1", 5001, false),
            ("[::1]", 80, true),
            ("::1", 81, false),
            ("registry.example", 1, true),
            ("x.registry.example", 1, false),
        ] {
            assert_eq!(egress.allows_host(host, port), allowed, "{host}:{port}");
        }
        assert!(egress.allows_address([127, 1, 2, 3].into()));
        assert!(!egress.allows_address([127, 2, 2, 3].into()));
        for bad in ["", "a b", "http://x", "host:port", "host:99999", "1.2.3.4/40", "[::1"] {
            assert!(bad.parse::<EgressRule>().is_err(), "{bad}");
        }
        for text in ["127.0.0.1:5000", "[::1]:80", "registry.example", "10.0.0.0/8"] {
            assert_eq!(text.parse::<EgressRule>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_are_judged_by_what_they_lead_to() {
        let refused = guarded(&[]).addresses("localhost", 80).unwrap_err();
        assert!(matches!(refused, EgressError::Refused(_)), "{refused}");
        let allowed = guarded(&["localhost:80"]).addresses("localhost", 80).unwrap();
        assert!(allowed.iter().all(|a| a.ip().is_loopback() && a.port() == 80));
        assert!(guarded(&["127.0.0.0/8"]).addresses("127.0.0.1", 1).is_ok());
    }
}
