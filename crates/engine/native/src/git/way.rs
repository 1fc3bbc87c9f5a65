//! By which way `git` reaches a remote where builds may not go everywhere.

use std::net::IpAddr;
use std::process::Command;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_oci::RegistrySettings;
use ashlar_oci::registry::{EgressError, EgressRefused};

use super::relay::Relay;
use crate::error::{internal, source};

/// The variables that name the operator's proxies for `git`.
const PROXIES: [&str; 2] = ["http_proxy", "https_proxy"];
/// Hosts that no proxy is asked for.
const NO_PROXY: &str = "no_proxy";
/// How `ssh` is called.
const SSH: &str = "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new";

/// What a remote's address says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place<'a> {
    scheme: String,
    /// Host and port as they are written.
    authority: &'a str,
    /// Without brackets.
    host: &'a str,
    port: u16,
}

/// What `git` is told of the network.
#[derive(Default)]
pub(super) struct Way {
    variables: Vec<(&'static str, String)>,
    config: Vec<String>,
    relay: Option<Relay>,
    /// What submodules may use, where it is less than the remote itself.
    pub(super) submodules: Option<&'static str>,
}

impl Way {
    /// Finds the way to a remote.
    ///
    /// # Errors
    /// When builds do not reach it, or its name has no address.
    pub(super) fn to(settings: &RegistrySettings, remote: &str) -> Result<Self, Failure> {
        let mut way = Self { variables: vec![("GIT_SSH_COMMAND", SSH.into())], ..Self::default() };
        let given = |name: &&'static str| {
            std::env::var(name).ok().filter(|v| !v.is_empty()).map(|value| (*name, value))
        };
        let proxies: Vec<_> = PROXIES.iter().filter_map(given).collect();
        let no_proxy = given(&NO_PROXY).map(|(_, value)| value).unwrap_or_default();
        let place = Place::of(remote).filter(|_| settings.egress.is_guarded());
        let Some(place) = place else {
            way.variables.extend(proxies);
            way.variables.push((NO_PROXY, no_proxy));
            return Ok(way);
        };
        if proxies.is_empty() || no_proxy.trim() == "*" {
            way.go_by_relay(settings)?;
        } else {
            // The operator's proxy judges what it is asked for, so it is asked for everything of
            // this machine.
            way.variables.extend(proxies);
            way.variables.push((NO_PROXY, outward_only(settings, &no_proxy, &place)));
        }
        way.pin(settings, &place)?;
        Ok(way)
    }

    fn go_by_relay(&mut self, settings: &RegistrySettings) -> Result<(), Failure> {
        let relay = Relay::start(settings.clone()).map_err(internal)?;
        self.variables.extend(PROXIES.map(|name| (name, relay.url())));
        self.relay = Some(relay);
        Ok(())
    }

    /// Binds what does not go by proxies to the address that was judged.
    fn pin(&mut self, settings: &RegistrySettings, place: &Place<'_>) -> Result<(), Failure> {
        let addresses = match settings.addresses(place.host, place.port) {
            Ok(addresses) => addresses,
            Err(EgressError::Refused(refused)) => return Err(failure(&refused)),
            // A proxy may know names that this machine does not.
            Err(EgressError::Resolve { .. }) if place.is_web() => return Ok(()),
            Err(error) => return Err(source(error)),
        };
        if place.is_web() {
            return Ok(());
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
        if !place.authority.bytes().all(plain) {
            let text = format!("'{}' is no host name", place.authority);
            return Err(Failure::new(FailureKind::Source, text));
        }
        let address = addresses[0];
        if place.scheme == "git" {
            let to = format!("url.git://{address}/.insteadOf=git://{}/", place.authority);
            self.config.push(to);
            self.submodules = Some("https:http");
        } else {
            let (name, address) = (place.host, address.ip());
            let ssh = format!("{SSH} -oHostName={address} -oHostKeyAlias={name} -oProxyJump=none");
            self.variables.push(("GIT_SSH_COMMAND", ssh));
        }
        Ok(())
    }

    /// Tells a run of `git`; before its own arguments.
    pub(super) fn apply(&self, command: &mut Command) {
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(self.config.iter().flat_map(|one| ["-c", one]));
    }

    /// Returns the failure for a connection that was refused.
    pub(super) fn refused(&self) -> Option<Failure> {
        self.relay.as_ref()?.refused().map(|refused| failure(&refused))
    }
}

fn failure(refused: &EgressRefused) -> Failure {
    Failure::new(FailureKind::Source, refused.to_string()).hint(EgressRefused::HINT)
}

/// Returns the list of hosts that no proxy is asked for, without this machine unless the remote is
/// named.
fn outward_only(settings: &RegistrySettings, list: &str, place: &Place<'_>) -> String {
    let is_named = |host: &str| host == place.host && settings.is_named(host, place.port);
    let outward = |entry: &&str| {
        let host = entry.trim_start_matches('.').trim_start_matches('[').trim_end_matches(']');
        let address = host.split('/').next().unwrap_or(host).parse::<IpAddr>();
        let is_local = host.eq_ignore_ascii_case("localhost")
            || host.to_ascii_lowercase().ends_with(".localhost")
            || address.is_ok_and(|a| !settings.egress.allows_address(a));
        is_named(host) || !is_local
    };
    let entries = list.split([',', ' ']).filter(|e| !e.is_empty());
    entries.filter(outward).collect::<Vec<_>>().join(",")
}

impl<'a> Place<'a> {
    /// Reads a remote's address; none when it has no host.
    fn of(remote: &'a str) -> Option<Self> {
        let Some((scheme, rest)) = remote.split_once("://") else {
            return Self::of_scp(remote);
        };
        let scheme = scheme.to_ascii_lowercase();
        let default = match &*scheme {
            "http" => 80,
            "https" => 443,
            "git" => 9418,
            "ssh" | "git+ssh" => 22,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = rest[..end].rsplit('@').next().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().unwrap_or(default)),
            _ => (authority, default),
        };
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Some(Self { scheme, authority, host, port })
    }

    /// Reads `[USER@]HOST:PATH`.
    fn of_scp(remote: &'a str) -> Option<Self> {
        if remote.starts_with(['/', '.', '-']) {
            return None;
        }
        let start = remote.find('@').map_or(0, |at| at + 1);
        let rest = &remote[start..];
        let (authority, host) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((host, _)) => (&rest[..host.len() + 2], host),
            None => rest.split_once(':').map(|(host, _)| (host, host))?,
        };
        Some(Self { scheme: "ssh".into(), authority, host, port: 22 })
    }

    fn is_web(&self) -> bool {
        matches!(&*self.scheme, "http" | "https")
    }
}

#[cfg(test)]
mod tests {
    use ashlar_oci::Egress;

    use super::*;

    fn guarded(allowed: &[&str]) -> RegistrySettings {
        let allowed = allowed.iter().map(|text| text.parse().unwrap());
        RegistrySettings { egress: Egress::guarded(allowed), ..RegistrySettings::default() }
    }

    #[test]
    fn a_remote_says_where_it_is() {
        let place = |remote| Place::of(remote).map(|p| (p.scheme, p.host.to_owned(), p.port));
        let is = |scheme: &str, host: &str, port| Some((scheme.into(), host.into(), port));
        assert_eq!(place("https://u:p@x.example:8443/a"), is("https", "x.example", 8443));
        assert_eq!(place("HTTP://[::1]/a"), is("http", "::1", 80));
        assert_eq!(place("git://x.example"), is("git", "x.example", 9418));
        assert_eq!(place("ssh://git@x.example:22/a"), is("ssh", "x.example", 22));
        assert_eq!(place("git@x.example:a/b.git"), is("ssh", "x.example", 22));
        assert_eq!(place("[::1]:a"), is("ssh", "::1", 22));
        assert_eq!(place("/a/b:c"), None);
        assert_eq!(place("file:///a"), None);
    }

    #[test]
    fn this_machine_is_no_remote_unless_it_is_named() {
        for remote in [
            "http://127.0.0.1:1/a",
            "https://localhost/a",
            "git://127.0.0.1/a",
            "ssh://git@[::1]/a",
            "git@localhost:a",
            "http://user@169.254.169.254/a",
        ] {
            let error = Way::to(&guarded(&[]), remote).err().unwrap();
            assert!(error.message.contains("which builds do not reach"), "{remote}: {error}");
            assert!(Way::to(&RegistrySettings::default(), remote).is_ok());
        }
    }

    #[test]
    fn what_goes_by_no_proxy_is_bound_to_the_address_that_was_judged() {
        let way = Way::to(&guarded(&["localhost"]), "git@localhost:a").unwrap();
        let (_, ssh) = way.variables.iter().rfind(|(n, _)| *n == "GIT_SSH_COMMAND").unwrap();
        assert!(ssh.contains("-oHostKeyAlias=localhost"), "{ssh}");
        assert!(ssh.contains("-oHostName=127.0.0.1") || ssh.contains("-oHostName=::1"), "{ssh}");
        let way = Way::to(&guarded(&["127.0.0.1"]), "git://127.0.0.1/a").unwrap();
        let config = "url.git://127.0.0.1:9418/.insteadOf=git://127.0.0.1/";
        assert_eq!((&*way.config, way.submodules), (&[config.to_owned()][..], Some("https:http")));
    }

    #[test]
    fn an_operators_proxy_is_asked_for_all_of_this_machine() {
        let list = "127.0.0.1,localhost, .corp.example,127.0.0.0/8,.localhost,10.0.0.0/8";
        let place = Place::of("http://127.0.0.1:3000/a").unwrap();
        assert_eq!(outward_only(&guarded(&[]), list, &place), ".corp.example,10.0.0.0/8");
        let named = guarded(&["127.0.0.1:3000"]);
        assert_eq!(outward_only(&named, list, &place), "127.0.0.1,.corp.example,10.0.0.0/8");
    }
}
