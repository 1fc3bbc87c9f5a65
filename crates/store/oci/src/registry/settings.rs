//! What an operator can set about registries.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;

use super::credentials::Credential;
use super::docker_config::default_docker_config;
use super::egress::{Egress, EgressError, EgressRule};

/// Settings of a [`Registry`](super::Registry) client.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// Mirrors, tried in this order before the host that they stand for.
    pub mirrors: Vec<Mirror>,
    /// Hosts (with or without port) that are spoken to by plain http. Loopback always is.
    pub plain_http: Vec<String>,
    /// Credentials by host; these win over Docker's config.
    pub credentials: BTreeMap<String, Credential>,
    /// Docker's `config.json` to take credentials from.
    pub docker_config: Option<PathBuf>,
    /// PEM file with certificates to trust beside the system's.
    pub ca_bundle: Option<PathBuf>,
    /// Where Amazon ECR's API is, in place of the region's own address.
    pub ecr_endpoint: Option<Url>,
    /// Where requests may go; what is named above may always be asked, each for its own purpose.
    pub egress: Egress,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long a transfer may give no bytes before it counts as broken.
    pub stall_timeout: Duration,
    /// How often an operation is tried at an endpoint; at a mirror at most twice.
    pub attempts: u32,
    /// Wait before the second try; doubled for each one after.
    pub backoff: Duration,
}

/// A mirror of a registry, written `HOST=URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Host that it stands for, for example `docker.io`.
    pub host: String,
    /// Where it is; a path is put before the repository's, as pull-through caches want it.
    pub url: Url,
}

/// A setting about registries can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not of the form `HOST=URL`.
    #[error(
        "'{0}' is not a mirror; write HOST=URL, for example docker.io=https://mirror.example.com"
    )]
    Mirror(String),
}

impl Default for RegistrySettings {
    /// No mirrors, no credentials, no files read.
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            plain_http: Vec::new(),
            credentials: BTreeMap::new(),
            docker_config: None,
            ca_bundle: None,
            ecr_endpoint: None,
            egress: Egress::default(),
            connect_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            attempts: 4,
            backoff: Duration::from_millis(200),
        }
    }
}

impl RegistrySettings {
    /// Returns the defaults with the credentials of the user's Docker config
    /// (`$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`).
    ///
    /// For a command that a user runs; a server must not lend its own credentials to tenants.
    pub fn of_user() -> Self {
        Self { docker_config: default_docker_config(), ..Self::default() }
    }

    /// Returns the credential for a host: an explicit one, else what Docker's config gives. May run
    /// a credential helper. A broken config counts as none.
    pub fn credential(&self, host: &str) -> Option<super::Credential> {
        super::credentials::find(self, host)
    }

    /// Says whether a host may be reached and written to whatever its address is: everything where
    /// nothing is guarded, else what the operator named.
    pub fn is_named(&self, host: &str, port: u16) -> bool {
        let plain = self.plain_http.iter().filter_map(|h| EgressRule::host(h));
        self.egress.allows_host(host, port) || Egress::guarded(plain).allows_host(host, port)
    }

    /// Says the same for reading only: a mirror is named to be read. Who could write to it would
    /// choose what others get under the name that it stands for.
    pub(super) fn is_named_to_read(&self, host: &str, port: u16) -> bool {
        let mirrors = self.mirrors.iter().map(|m| &m.url).chain(&self.ecr_endpoint);
        let same =
            |url: &Url| url.host_str() == Some(host) && url.port_or_known_default() == Some(port);
        self.is_named(host, port) || mirrors.into_iter().any(same)
    }

    /// Returns the addresses of a host that may be reached, for programs that make their own
    /// connections. Blocks.
    ///
    /// # Errors
    /// When there are none.
    pub fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, EgressError> {
        match self.is_named(host, port) {
            true => Egress::default().addresses(host, port),
            false => self.egress.addresses(host, port),
        }
    }
}

impl FromStr for Mirror {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let bad = || SettingsError::Mirror(text.chars().take(200).collect());
        let (host, url) = text.split_once('=').ok_or_else(bad)?;
        let url = Url::parse(url).map_err(|_| bad())?;
        let fits = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if host.is_empty() || host.contains('/') || !fits {
            return Err(bad());
        }
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        Ok(Self { host: host.to_owned(), url })
    }
}
