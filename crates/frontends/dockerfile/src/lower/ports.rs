//! `EXPOSE` port specifications: `[ip:][host:]port[-port][/protocol]`.

use std::net::IpAddr;

/// What one specification comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports {
    /// `port/protocol`, ranges written out.
    pub(super) ports: Vec<String>,
    /// Whether the protocol is not in lower case.
    pub(super) odd_case: bool,
    /// Whether it names an address or a port of the host.
    pub(super) maps: bool,
}

pub(super) fn parse(text: &str) -> Result<Ports, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (ip, host, container) = match parts.as_slice() {
        [container] => (String::new(), "", *container),
        [host, container] => (String::new(), *host, *container),
        [ip @ .., host, container] => (ip.join(":"), *host, *container),
        [] => (String::new(), "", ""),
    };
    let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
    if range.is_empty() {
        return Err(format!("invalid port: {text:?}: no port specified"));
    }
    let lower = protocol.to_ascii_lowercase();
    let protocol_name = match lower.as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => lower.as_str(),
        _ => return Err(format!("invalid port: {text:?}: invalid proto: {protocol}")),
    };
    check_ip(&ip)?;
    let (first, last) = self::range(range).ok_or(format!("invalid containerPort: {range}"))?;
    if !host.is_empty() {
        let (from, to) = self::range(host).ok_or(format!("invalid hostPort: {host}"))?;
        if last != first && to - from != last - first {
            return Err(format!(
                "invalid ranges specified for container and host Ports: {range} and {host}"
            ));
        }
    }
    Ok(Ports {
        ports: (first..=last).map(|p| format!("{p}/{protocol_name}")).collect(),
        odd_case: protocol != lower,
        maps: !ip.is_empty() || !host.is_empty(),
    })
}

fn check_ip(ip: &str) -> Result<(), String> {
    let inner = ip.strip_prefix('[').and_then(|i| i.strip_suffix(']')).unwrap_or(ip);
    if inner.is_empty() && ip.is_empty() || inner.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("invalid IP address: {ip}"))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |t: &str| t.strip_prefix('+').unwrap_or(t).parse::<u16>().ok();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_out() {
        assert_eq!(parse("80").unwrap().ports, ["80/tcp"]);
        assert_eq!(parse("1-3/udp").unwrap().ports, ["1/udp", "2/udp", "3/udp"]);
        let mapped = parse("127.0.0.1:8080:80/TCP").unwrap();
        assert_eq!(
            (mapped.ports, mapped.odd_case, mapped.maps),
            (vec!["80/tcp".into()], true, true)
        );
        for bad in ["", "x", "80/foo", "3-1", "70000", "1:2-3:4", "a:b:c", "/tcp", "-1"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
