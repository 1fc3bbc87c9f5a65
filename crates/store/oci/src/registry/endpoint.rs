//! Which addresses an operation on a repository tries, and where it may be sent on to.

use reqwest::Url;

use super::error::Failure;
use super::settings::RegistrySettings;
use crate::reference::{DEFAULT_HOST, Repository};

/// Docker Hub's registry lives at another host than its name says.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// One address of a repository.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// Scheme, host and port.
    base: Url,
    /// Path of the repository there.
    path: String,
    /// The key of its credentials.
    pub(crate) credential_host: String,
    pub(crate) is_mirror: bool,
}

impl Endpoint {
    /// Lists the endpoints that a pull from `repository` tries: mirrors, then the host itself.
    pub(crate) fn all(settings: &RegistrySettings, repository: &Repository) -> Vec<Self> {
        let of_host = settings.mirrors.iter().filter(|m| m.host == repository.host());
        let mirrors = of_host.map(|m| Self::mirror(&m.url, repository));
        mirrors.chain(Self::origin(settings, repository)).collect()
    }

    /// Returns the host itself, which pushes go to.
    pub(crate) fn origin(settings: &RegistrySettings, repository: &Repository) -> Option<Self> {
        let host = repository.host();
        let api = if host == DEFAULT_HOST { DOCKER_HUB_API } else { host };
        let scheme = if is_plain(settings, host) { "http" } else { "https" };
        Some(Self {
            base: Url::parse(&format!("{scheme}://{api}")).ok()?,
            path: repository.path().to_owned(),
            credential_host: host.to_owned(),
            is_mirror: false,
        })
    }

    fn mirror(url: &Url, repository: &Repository) -> Self {
        let prefix = url.path().trim_matches('/');
        // `https://mirror/v2/proxy` and `https://mirror/proxy` are both found in the wild.
        let prefix = prefix.strip_prefix("v2").map_or(prefix, |p| p.trim_start_matches('/'));
        let path = match prefix {
            "" => repository.path().to_owned(),
            prefix => format!("{prefix}/{}", repository.path()),
        };
        let mut base = url.clone();
        base.set_path("");
        let port = url.port().map_or_else(String::new, |p| format!(":{p}"));
        let credential_host = format!("{}{port}", url.host_str().unwrap_or_default());
        Self { base, path, credential_host, is_mirror: true }
    }

    /// Returns the address of something in the repository, such as `manifests/latest`.
    pub(crate) fn url(&self, rest: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{rest}", self.path));
        url
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Returns scheme, host and port, for people.
    pub(crate) fn name(&self) -> String {
        self.base.as_str().trim_end_matches('/').to_owned()
    }
}

fn is_plain(settings: &RegistrySettings, host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let is_named = settings.plain_http.iter().any(|h| h == host || h == name);
    is_named || (port != "443" && is_local_name(name) && !is_link_local(name))
}

/// Tells whether two addresses are of one server, so that credentials for one may go to the other.
pub(crate) fn is_same_server(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// Checks that a server at `from` may send us to `to`: never from https to plain http, and never
/// from outside to an address of this machine, which could be made to serve as a spy.
pub(crate) fn check_hop(from: &Url, to: &Url) -> Result<(), Failure> {
    let is_downgrade =
        to.scheme() != "https" && !(to.scheme() == "http" && from.scheme() == "http");
    let is_inward = is_local(to) && !is_local(from) && !is_same_server(from, to);
    if is_downgrade || is_inward || !to.has_host() {
        return Err(Failure::Unsafe(shown(to)));
    }
    Ok(())
}

/// Returns an address for people, without user, query and fragment: those may hold secrets.
pub(crate) fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // An address that cannot have a user has none.
    let _ = shown.set_username("").and_then(|()| shown.set_password(None));
    shown.to_string()
}

/// Tells whether the address is of this machine.
pub(crate) fn is_local(url: &Url) -> bool {
    url.host_str().is_some_and(is_local_name)
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(v4) = name.parse::<std::net::Ipv4Addr>() {
        return v4.is_loopback() || v4.is_unspecified() || v4.is_link_local();
    }
    if let Ok(v6) = name.parse::<std::net::Ipv6Addr>() {
        return v6.is_loopback()
            || v6.is_unspecified()
            || v6.is_unicast_link_local()
            || v6.to_ipv4_mapped().is_some_and(|v4| is_local_name(&v4.to_string()));
    }
    name == "localhost" || name.ends_with(".localhost")
}

/// Link-local addresses are this machine's surroundings (metadata services), not loopback.
fn is_link_local(name: &str) -> bool {
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.parse::<std::net::Ipv4Addr>().is_ok_and(|a| a.is_link_local())
        || name.parse::<std::net::Ipv6Addr>().is_ok_and(|a| a.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn origin(name: &str, plain: &[&str]) -> String {
        let plain_http = plain.iter().map(|p| (*p).to_owned()).collect();
        let settings = RegistrySettings { plain_http, ..RegistrySettings::default() };
        Endpoint::origin(&settings, &name.parse().unwrap()).unwrap().url("x").to_string()
    }

    #[test]
    fn plain_http_is_for_loopback_and_named_hosts_only() {
        assert_eq!(origin("busybox", &[]), "https://registry-1.docker.io/v2/library/busybox/x");
        assert_eq!(origin("localhost:5000/a", &[]), "http://localhost:5000/v2/a/x");
        assert_eq!(origin("[::1]:5000/a", &[]), "http://[::1]:5000/v2/a/x");
        assert_eq!(origin("127.0.0.1:443/a", &[]), "https://127.0.0.1/v2/a/x");
        assert_eq!(origin("169.254.169.254/a", &[]), "https://169.254.169.254/v2/a/x");
        assert_eq!(origin("r.example:80/a", &[]), "https://r.example:80/v2/a/x");
        assert_eq!(origin("r.example:81/a", &["r.example"]), "http://r.example:81/v2/a/x");
        assert_eq!(origin("r.example:81/a", &["r.example:82"]), "https://r.example:81/v2/a/x");
    }

    #[test]
    fn hops_go_neither_down_nor_inward() {
        let allowed = |from: &str, to: &str| check_hop(&url(from), &url(to)).is_ok();
        assert!(allowed("https://r.example/v2/", "https://cdn.example/x"));
        assert!(allowed("http://127.0.0.1:5000/", "http://127.0.0.1:5001/"));
        assert!(allowed("http://r.example/", "http://cdn.example/"));
        assert!(!allowed("https://r.example/", "http://r.example/"));
        for inward in [
            "https://127.0.0.1/",
            "https://localhost/",
            "https://[::1]/",
            "https://169.254.169.254/",
            "https://0.0.0.0/",
            "https://[::ffff:127.0.0.1]/",
        ] {
            assert!(!allowed("https://r.example/", inward), "{inward}");
        }
        assert!(!allowed("https://r.example/", "file:///etc/passwd"));
    }
}
