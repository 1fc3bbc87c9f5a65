//! Where a daemon is: `unix:///run/docker.sock`, a path, or `tcp://host:port` with certificates.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::tls::Certificates;

/// The longest address that is looked at, in bytes.
const ADDRESS_BYTES_MAX: usize = 4096;

/// Where a BuildKit daemon listens. Shown without the places of certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub(crate) place: Place,
    /// How TLS is done; plain TCP when absent.
    pub(crate) certificates: Option<Certificates>,
}

/// The socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp { host: String, port: u16 },
}

/// A text is no address of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not the address of a BuildKit daemon: {reason}; write unix:///var/run/docker.sock, \
     a path, or tcp://host:port?ca=FILE&cert=FILE&key=FILE"
)]
pub struct AddressError {
    text: String,
    reason: &'static str,
}

impl Address {
    /// Returns the address with certificates from a folder (`ca.pem`, `cert.pem`, `key.pem`, as
    /// `DOCKER_CERT_PATH` has them) if it is a TCP address that names none of its own.
    #[must_use]
    pub fn or_certificates_in(mut self, folder: &Path) -> Self {
        if self.certificates.is_none() && matches!(self.place, Place::Tcp { .. }) {
            self.certificates = Some(Certificates::in_folder(folder));
        }
        self
    }

    /// Says whether everybody who can reach the port can use it and read along.
    pub fn is_open(&self) -> bool {
        match &self.place {
            Place::Unix(_) => false,
            Place::Tcp { host, .. } => self.certificates.is_none() && !is_loopback(host),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|a| a.is_loopback())
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let bad = |reason| AddressError { text: text.chars().take(200).collect(), reason };
        if text.len() > ADDRESS_BYTES_MAX || text.chars().any(char::is_control) {
            return Err(bad("it is too long or has control characters"));
        }
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return unix(path).ok_or_else(|| bad("the path must be absolute"));
        }
        if text.starts_with('/') {
            return unix(text).ok_or_else(|| bad("the path must be absolute"));
        }
        let Some(rest) = text.strip_prefix("tcp://") else {
            return Err(bad("it begins neither with unix:// nor with tcp://"));
        };
        let (authority, query) = rest.split_once('?').map_or((rest, None), |(a, q)| (a, Some(q)));
        let (host, port) = authority.rsplit_once(':').ok_or_else(|| bad("the port is missing"))?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(|| bad("the port is wrong"))?;
        if host.is_empty() || host.contains(['/', '@', '#']) {
            return Err(bad("the host is wrong"));
        }
        let certificates = query.map(certificates).transpose().map_err(bad)?.flatten();
        Ok(Self { place: Place::Tcp { host: host.to_owned(), port }, certificates })
    }
}

fn unix(path: &str) -> Option<Address> {
    let absolute = path.starts_with('/') && path.len() > 1;
    absolute.then(|| Address { place: Place::Unix(path.into()), certificates: None })
}

/// Reads `ca=FILE&cert=FILE&key=FILE&servername=NAME` or `certs=FOLDER`.
fn certificates(query: &str) -> Result<Option<Certificates>, &'static str> {
    let mut found = Certificates::default();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or("write name=value after the ?")?;
        if value.is_empty() {
            return Err("a value after the ? is empty");
        }
        match name {
            "ca" => found.ca = Some(value.into()),
            "cert" => found.cert = Some(value.into()),
            "key" => found.key = Some(value.into()),
            "servername" => found.server_name = Some(value.to_owned()),
            "certs" => {
                let server_name = found.server_name.take();
                found = Certificates { server_name, ..Certificates::in_folder(Path::new(value)) };
            }
            _ => return Err("after the ? only ca, cert, key, certs and servername are known"),
        }
    }
    if found.cert.is_some() != found.key.is_some() {
        return Err("cert and key belong together");
    }
    Ok((found != Certificates::default()).then_some(found))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unix(path) => write!(f, "unix://{}", path.display()),
            Place::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Place::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_certificates() {
        let table = [
            ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
            ("/run/buildkit/buildkitd.sock", "unix:///run/buildkit/buildkitd.sock"),
            ("tcp://build:2376?ca=/c/ca.pem&cert=/c/c.pem&key=/c/k.pem", "tcp://build:2376"),
            ("tcp://[::1]:1234?certs=/c", "tcp://[::1]:1234"),
        ];
        for (text, shown) in table {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        let address: Address = "tcp://h:1?certs=/c&servername=x".parse().unwrap();
        let certificates = address.certificates.unwrap();
        assert_eq!(certificates.key.as_deref(), Some(Path::new("/c/key.pem")));
        assert_eq!(certificates.server_name.as_deref(), Some("x"));
    }

    #[test]
    fn wrong_addresses_say_what_is_wrong() {
        for (text, says) in [
            ("docker.sock", "neither with unix"),
            ("unix://docker.sock", "absolute"),
            ("tcp://host", "port is missing"),
            ("tcp://host:0", "port is wrong"),
            ("tcp://:1", "host is wrong"),
            ("tcp://a@b:1", "host is wrong"),
            ("tcp://h:1?cert=/c", "belong together"),
            ("tcp://h:1?password=x", "only ca, cert"),
            ("/a\nb", "control characters"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_folder_of_certificates_is_for_tcp_without_its_own() {
        let folder = Path::new("/c");
        let tcp: Address = "tcp://h:1".parse().unwrap();
        assert!(tcp.is_open());
        assert!(!tcp.or_certificates_in(folder).is_open());
        let unix: Address = "/a.sock".parse().unwrap();
        assert_eq!(unix.clone().or_certificates_in(folder), unix);
        assert!(!"tcp://127.0.0.1:1".parse::<Address>().unwrap().is_open());
    }
}
