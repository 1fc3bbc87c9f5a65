//! Whose word about a request counts.

use std::net::IpAddr;
use std::str::FromStr;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;

use crate::Origin;
use crate::forwarded::{self, Hop};

/// The networks of the proxies whose forwarded headers count. Nobody's do by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// A text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no network; write CIDR such as 10.0.0.0/8 or fd00::/8, or one address")]
pub struct ProxyError(String);

impl TrustedProxies {
    /// Returns proxies that lie in any of the networks.
    pub fn new(networks: impl IntoIterator<Item = Self>) -> Self {
        Self(networks.into_iter().flat_map(|n| n.0).collect())
    }

    /// Says whether an address is one of theirs.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Reads where a request came from. The client is the last address that no trusted proxy is
    /// behind; scheme and host are what the outermost trusted proxy says.
    pub fn origin(&self, parts: &Parts) -> Origin {
        let mut origin = Origin::of_connection(parts);
        if !origin.client.is_some_and(|peer| self.contains(peer)) {
            return origin;
        }
        for hop in forwarded::hops(&parts.headers) {
            let Hop { from, scheme, host } = hop;
            origin.scheme = scheme.unwrap_or(origin.scheme);
            origin.host = host.unwrap_or(origin.host);
            // A proxy that hides who asked it is the last that is known.
            let Some(from) = from else { break };
            origin.client = Some(from);
            if !self.contains(from) {
                break;
            }
        }
        origin.prefix = forwarded::prefix(&parts.headers).unwrap_or_default();
        origin
    }

    /// The middleware: puts an [`Origin`] among a request's extensions, and takes the headers that
    /// it was read from away.
    pub async fn mark(self, request: Request, next: Next) -> Response {
        let (mut parts, body) = request.into_parts();
        let origin = self.origin(&parts);
        parts.extensions.insert(origin);
        for name in forwarded::NAMES {
            parts.headers.remove(name);
        }
        next.run(Request::from_parts(parts, body)).await
    }
}

impl FromStr for TrustedProxies {
    type Err = ProxyError;

    /// Reads one network.
    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        Ok(Self(vec![network.map_err(|_| ProxyError(text.to_owned()))?.trunc()]))
    }
}

#[cfg(test)]
#[path = "proxies_tests.rs"]
mod tests;
