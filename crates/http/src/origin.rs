//! Where a request came from, and how links lead back there.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Uri, header};

/// The longest host with its port, in bytes: a DNS name has at most 253.
const HOST_BYTES_MAX: usize = 262;
/// What stands in links for a host that was not said, or that is none.
const HOST_UNKNOWN: &str = "localhost";

/// How the client speaks to the outermost proxy, or to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Encrypted; the proxy in front does that.
    Https,
}

impl Scheme {
    /// Reads a scheme; `ws` and `wss` are those of the connection that they begin on.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "http" | "ws" => Some(Self::Http),
            "https" | "wss" => Some(Self::Https),
            _ => None,
        }
    }

    /// Returns the word in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Where a request came from, as far as it can be believed: the middleware of
/// [`crate::TrustedProxies`] puts it among the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// How the client speaks.
    pub scheme: Scheme,
    /// The host that the client asked for, with its port when it said one.
    pub host: String,
    /// What the proxies cut off in front of the path: empty, or `/a/b` without a slash at the end.
    pub prefix: String,
    /// The client's address; none on a connection that does not have one.
    pub client: Option<IpAddr>,
}

impl Origin {
    /// Returns a request's origin. Without the middleware it is what the connection says.
    pub fn of(parts: &Parts) -> Self {
        parts.extensions.get().cloned().unwrap_or_else(|| Self::of_connection(parts))
    }

    /// Returns what connection and request line say, no proxy being trusted.
    pub(crate) fn of_connection(parts: &Parts) -> Self {
        let said = parts.headers.get(header::HOST).and_then(|h| h.to_str().ok());
        let said = said.or_else(|| parts.uri.authority().map(|a| a.as_str()));
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Self {
            scheme: Scheme::Http,
            host: said.filter(|h| is_host(h)).unwrap_or(HOST_UNKNOWN).to_owned(),
            prefix: String::new(),
            client: peer.map(|ConnectInfo(peer)| peer.ip().to_canonical()),
        }
    }

    /// Returns an absolute link to a path of this server, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    /// Returns a link to a path of this server for pages and redirects, without scheme and host.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Says whether the client's connection is encrypted.
    pub fn is_secure(&self) -> bool {
        self.scheme == Scheme::Https
    }
}

/// Scheme, host and prefix, without a slash at the end.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.host, self.prefix)
    }
}

impl<S: Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

/// Says whether a text can stand between `://` and the path of a link: a name or address with or
/// without a port, and nothing that changes what the link means.
pub(crate) fn is_host(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    if text.is_empty() || text.len() > HOST_BYTES_MAX || !text.bytes().all(plain) {
        return false;
    }
    let parsed = Uri::builder().scheme("http").authority(text).path_and_query("/").build();
    parsed.is_ok_and(|uri| uri.host().is_some_and(|h| !h.is_empty()))
}
