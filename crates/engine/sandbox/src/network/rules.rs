//! The packet rules of isolated networks, as one nftables table for each engine.
//!
//! A step's packets come in over its own link. To the host itself (`input`) only questions to the resolver pass. Through
//! the host (`forward`) everything passes but: a forged source, the addresses never reachable, the operator's deny list,
//! and other sandboxes' links. Nobody can open a connection to a step.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::resolvers::Resolvers;
use crate::SandboxError;

/// The network that all isolated links of a host share: blocks of it belong to one engine each.
const POOL4: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 0);
/// The same for IPv6.
const POOL6: Ipv6Addr = Ipv6Addr::new(0xfd61, 0x7368, 0x6c61, 0, 0, 0, 0, 0);
/// A stand-in inside the pool for a resolver on the host's loopback.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 213, 255, 253);
/// Engines with isolated networks that one host can have at once.
pub(crate) const BLOCKS: u32 = 63;
/// Links of one engine.
pub(crate) const LINKS: u32 = 256;
/// Bits that both ends of a link have in common.
pub(crate) const PREFIX_LENGTH4: u8 = 30;
/// The same for IPv6.
pub(crate) const PREFIX_LENGTH6: u8 = 126;
/// First letters of every link of every engine.
pub(crate) const PREFIX: &str = "ash";

/// Never reachable: this network, loopback, link-local with the metadata services of clouds, multicast, reserved, pool.
const NEVER4: &str =
    "0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 240.0.0.0/4, 10.213.0.0/16";
/// Never reachable: loopback, mapped and translated IPv4, link-local, a cloud's metadata service, multicast, pool.
const NEVER6: &str = "::/127, ::ffff:0:0/96, 64:ff9b::/96, 2002::/16, fe80::/10, fd00:ec2::254/128, ff00::/8, \
                      fd61:7368:6c61::/48";

/// Names and addresses of one engine's links.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    /// Which block of the pool.
    pub(crate) number: u32,
    /// Whether steps get IPv6.
    pub(crate) ipv6: bool,
}

impl Block {
    /// The name of the table.
    pub(crate) fn table(&self) -> String {
        format!("ashlar_{}", self.number)
    }

    /// The name of a link on the host's side.
    pub(crate) fn link(&self, index: u32) -> String {
        format!("{PREFIX}{}.{index}", self.number)
    }

    /// The host's and the step's address on a link.
    pub(crate) fn addresses4(&self, index: u32) -> (Ipv4Addr, Ipv4Addr) {
        let base = POOL4.to_bits() + self.number * LINKS * 4 + index * 4;
        (Ipv4Addr::from_bits(base + 1), Ipv4Addr::from_bits(base + 2))
    }

    /// The host's and the step's address on a link.
    pub(crate) fn addresses6(&self, index: u32) -> (Ipv6Addr, Ipv6Addr) {
        let base = POOL6.to_bits() + (u128::from(self.number) << 64) + u128::from(index) * 4;
        (Ipv6Addr::from_bits(base + 1), Ipv6Addr::from_bits(base + 2))
    }

    /// The commands that make the table anew.
    pub(crate) fn rules(
        &self,
        deny: &[String],
        resolvers: &Resolvers,
    ) -> Result<String, SandboxError> {
        let (deny4, deny6) = split(deny)?;
        let resolver_rules = accept_resolvers(&resolvers.shown);
        let table = self.table();
        let mine = format!("iifname \"{PREFIX}{}.*\"", self.number);
        let mut text = String::new();
        let _ = write!(
            text,
            r#"table inet {table}
delete table inet {table}
table inet {table} {{
  set denied4 {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {NEVER4}{deny4} }}; }}
  set denied6 {{ type ipv6_addr; flags interval; auto-merge; elements = {{ {NEVER6}{deny6} }}; }}
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    {mine} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    {mine} fib saddr . iif oif 0 drop
  }}
  chain to_resolver {{
    type nat hook prerouting priority dstnat; policy accept;
{redirect}  }}
  chain input {{
    type filter hook input priority filter - 5; policy accept;
    {mine} jump to_host
  }}
  chain to_host {{
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    ct status dnat ct original ip daddr {RESOLVER} accept
{resolver_rules}    drop
  }}
  chain forward {{
    type filter hook forward priority filter - 5; policy accept;
    {mine} jump outward
    oifname "{PREFIX}{number}.*" ct state != {{ established, related }} drop
  }}
  chain outward {{
    ct state {{ established, related }} accept
    oifname "{PREFIX}*" drop
{resolver_rules}    ip daddr @denied4 drop
    ip6 daddr @denied6 drop
  }}
  chain translate {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {first}/22 oifname != "{PREFIX}*" masquerade
    ip6 saddr {first6}/64 oifname != "{PREFIX}*" masquerade
  }}
}}
"#,
            redirect = redirect(&mine, resolvers.loopback),
            number = self.number,
            first = Ipv4Addr::from_bits(self.addresses4(0).0.to_bits() - 1),
            first6 = Ipv6Addr::from_bits(self.addresses6(0).0.to_bits() - 1),
        );
        Ok(text)
    }
}

fn redirect(mine: &str, loopback: Option<Ipv4Addr>) -> String {
    let Some(address) = loopback else { return String::new() };
    format!(
        "    {mine} ip daddr {RESOLVER} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {address}\n"
    )
}

fn accept_resolvers(shown: &[IpAddr]) -> String {
    let mut text = String::new();
    for address in shown {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        let _ = writeln!(
            text,
            "    {family} daddr {address} meta l4proto {{ tcp, udp }} th dport 53 accept"
        );
    }
    text
}

/// Checks the operator's list and splits it by family, as additions to the sets.
fn split(deny: &[String]) -> Result<(String, String), SandboxError> {
    let (mut v4, mut v6) = (String::new(), String::new());
    for entry in deny {
        let (address, length) = entry.split_once('/').unwrap_or((entry, ""));
        let address: Option<IpAddr> = address.parse().ok();
        let length: Option<u8> = if length.is_empty() { Some(0) } else { length.parse().ok() };
        match (address, length) {
            (Some(IpAddr::V4(_)), Some(0..=32)) => v4 += &format!(", {entry}"),
            (Some(IpAddr::V6(_)), Some(0..=128)) => v6 += &format!(", {entry}"),
            _ => {
                return Err(SandboxError::Invalid(format!(
                    "the deny list of isolated networks has {entry:?}, which is neither an address nor a network \
                     such as 10.0.0.0/8"
                )));
            }
        }
    }
    Ok((v4, v6))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: Block = Block { number: 3, ipv6: true };

    #[test]
    fn links_have_names_and_addresses_of_their_own() {
        assert_eq!(BLOCK.link(7), "ash3.7");
        assert_eq!(BLOCK.addresses4(7).0.to_string(), "10.213.12.29");
        assert_eq!(BLOCK.addresses6(7).1.to_string(), "fd61:7368:6c61:3::1e");
        let last = Block { number: BLOCKS - 1, ipv6: true };
        assert!(last.addresses4(LINKS - 1).1 < RESOLVER);
        assert!(last.link(LINKS - 1).len() <= 15);
    }

    #[test]
    fn a_deny_list_is_checked_before_it_becomes_rules() {
        let rules = |entry: &str| BLOCK.rules(&[entry.to_owned()], &Resolvers::default());
        assert!(rules("192.168.0.0/16").unwrap().contains("10.213.0.0/16, 192.168.0.0/16 }"));
        assert!(rules("2001:db8::/32").unwrap().contains("::/48, 2001:db8::/32 }"));
        for bad in ["", "host", "10.0.0.0/33", "10.0.0.0/8 }; accept"] {
            assert!(rules(bad).is_err(), "{bad}");
        }
    }
}
