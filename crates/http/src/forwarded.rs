//! What proxies say about the request that they passed on.
//!
//! Source: RFC 7239 for `Forwarded`; the `X-Forwarded-*` headers as nginx, HAProxy, Envoy, Traefik
//! and the clouds' load balancers write them. Entries are added at the right, so whatever a client
//! made up stands to the left of what its first trusted proxy said.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, header};

use crate::origin::{Scheme, is_host};

/// The headers that are read here, and removed whoever sent them: nothing behind the middleware
/// takes them at their word by mistake.
pub(crate) const NAMES: [HeaderName; 5] = [
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-proto"),
];
/// Proxies in a row that are looked at; what stands further left is not read.
const HOPS_MAX: usize = 32;
/// The longest prefix, in bytes.
const PREFIX_BYTES_MAX: usize = 256;

/// What one proxy said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hop {
    /// Who had sent the request to the proxy; none when it said no address.
    pub(crate) from: Option<IpAddr>,
    pub(crate) scheme: Option<Scheme>,
    pub(crate) host: Option<String>,
}

/// Returns the hops that the headers tell of, nearest to us first.
pub(crate) fn hops(headers: &HeaderMap) -> Vec<Hop> {
    match headers.contains_key(header::FORWARDED) {
        true => standard(headers),
        false => customary(headers),
    }
}

/// Returns the prefix that the proxies cut off the path.
pub(crate) fn prefix(headers: &HeaderMap) -> Option<String> {
    let prefix = entries(headers, "x-forwarded-prefix").next()?;
    let prefix = prefix.trim_end_matches('/');
    is_prefix(prefix).then(|| prefix.to_owned())
}

/// Says whether a text is empty or a path without a slash at its end that means one thing only.
pub(crate) fn is_prefix(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let mut segments = text.split('/');
    text.len() <= PREFIX_BYTES_MAX
        && segments.next() == Some("")
        && segments.all(|s| !s.is_empty() && s != "." && s != ".." && s.bytes().all(plain))
}

fn standard(headers: &HeaderMap) -> Vec<Hop> {
    let hop = |element: String| {
        let mut hop = Hop::default();
        for pair in split(&element, ';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let value = unquoted(value.trim());
            match name.trim().to_ascii_lowercase().as_str() {
                "for" => hop.from = address(&value),
                "proto" => hop.scheme = Scheme::parse(&value),
                "host" => hop.host = Some(value).filter(|v| is_host(v)),
                _ => {}
            }
        }
        hop
    };
    entries(headers, header::FORWARDED.as_str()).map(hop).collect()
}

fn customary(headers: &HeaderMap) -> Vec<Hop> {
    let all = |name: &str| entries(headers, name).collect::<Vec<_>>();
    let [from, schemes, hosts] =
        ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"].map(all);
    // A proxy that overwrites instead of adding leaves fewer entries: the leftmost is then the
    // word of all proxies further out.
    let at = |list: &[String], n: usize| list.get(n).or(list.last()).cloned();
    let hop = |n: usize| Hop {
        from: from.get(n).and_then(|text| address(text)),
        scheme: at(&schemes, n).and_then(|text| Scheme::parse(&text)),
        host: at(&hosts, n).filter(|text| is_host(text)),
    };
    let count = from.len().max(usize::from(!schemes.is_empty() || !hosts.is_empty()));
    (0..count).map(hop).collect()
}

/// Returns a list header's entries from the right, over all of its lines.
fn entries(headers: &HeaderMap, name: &str) -> impl Iterator<Item = String> {
    let lines: Vec<_> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    let mut entries: Vec<String> = Vec::new();
    for line in lines.into_iter().rev() {
        entries.extend(split(line, ',').into_iter().rev());
        if entries.len() >= HOPS_MAX {
            break;
        }
    }
    entries.into_iter().take(HOPS_MAX)
}

/// Splits at a separator outside of quotes.
fn split(text: &str, at: char) -> Vec<String> {
    let (mut parts, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for c in text.chars() {
        if c == at && !quoted {
            parts.push(String::new());
            continue;
        }
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts.iter().map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect()
}

fn unquoted(value: &str) -> String {
    let inner = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    inner.map_or_else(|| value.to_owned(), |v| v.replace('\\', ""))
}

/// Reads an address with or without a port: `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse().ok().map(|a: SocketAddr| a.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}
