//! Credentials of registries that come with a build: sealed among its secrets, used for its pulls,
//! erased when it ends.

use std::collections::BTreeMap;
use std::fmt;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_layers::Stop;
use ashlar_native::RegistryLogin;
use ashlar_oci::registry::{AwsKey, EcrError};
use ashlar_oci::{Reference, Registry, Transfer};
use ashlar_records::Secret;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::error::chain;

/// What ids of such secrets begin with; no secret of a client may.
pub(crate) const PREFIX: &str = "ashlar.registry/";
/// The longest host of a registry, in bytes.
const HOST_BYTES_MAX: usize = 255 - PREFIX.len();

/// What proves to a registry who pulls.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RegistryCredential {
    /// A user name and a password. Google's Artifact Registry takes `_json_key` and a service
    /// account's key as JSON.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// An AWS access key, exchanged for a login when the build starts.
    AwsEcr {
        /// Its id.
        access_key_id: String,
        /// Its secret.
        secret_access_key: String,
        /// The region of the registry.
        region: String,
        /// The token that goes with temporary keys.
        session_token: Option<String>,
    },
}

impl fmt::Debug for RegistryCredential {
    /// Shows no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username}, hidden)"),
            Self::AwsEcr { region, .. } => write!(f, "AwsEcr({region}, hidden)"),
        }
    }
}

/// Returns the host of the registry that an image's reference names; nothing when it is none.
pub fn registry_of(reference: &str) -> Option<String> {
    let reference: Reference = reference.parse().ok()?;
    Some(reference.repository().host().to_owned())
}

/// Returns the name that references use for a registry's host.
///
/// # Errors
/// [`Error::Invalid`] when the text is no host.
pub fn registry_host(text: &str) -> Result<String, Error> {
    let host = text.trim().to_ascii_lowercase();
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.chars().all(plain) {
        let why = "must be the host of a registry, with its port if it has one";
        return Err(Error::invalid("credentials", why));
    }
    let hub = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];
    Ok(if hub.contains(&host.as_str()) { "docker.io".to_owned() } else { host })
}

/// Makes secrets of credentials by host.
pub(crate) fn to_secrets(
    credentials: &[(String, RegistryCredential)],
) -> Result<Vec<(String, Secret)>, Error> {
    let seal = |(host, credential): &(String, RegistryCredential)| {
        let value = serde_json::to_vec(credential).map_err(Error::internal)?;
        Ok((format!("{PREFIX}{}", registry_host(host)?), Secret::new(value)))
    };
    credentials.iter().map(seal).collect()
}

/// Returns the hosts of such secrets.
pub(crate) fn hosts(logins: &[(String, Secret)]) -> Vec<String> {
    logins.iter().filter_map(|(id, _)| Some(id.strip_prefix(PREFIX)?.to_owned())).collect()
}

/// Takes the credentials out of a build's secrets.
pub(crate) fn take(
    secrets: &mut BTreeMap<String, Vec<u8>>,
) -> Result<BTreeMap<String, RegistryCredential>, Error> {
    let mut found = BTreeMap::new();
    for (id, value) in secrets.extract_if(.., |id, _| id.starts_with(PREFIX)) {
        let credential = serde_json::from_slice(&value).map_err(Error::internal)?;
        found.insert(id[PREFIX.len()..].to_owned(), credential);
    }
    Ok(found)
}

/// Turns credentials into logins; asks AWS where one is to be had there.
pub(crate) fn log_in(
    registry: &Registry,
    credentials: BTreeMap<String, RegistryCredential>,
    stop: &Stop,
) -> Result<BTreeMap<String, RegistryLogin>, Failure> {
    let transfer = Transfer::quiet().with_cancel(stop.flag());
    let log_in = |(host, credential): (String, RegistryCredential)| {
        let (username, password) = match credential {
            RegistryCredential::Basic { username, password } => (username, password),
            RegistryCredential::AwsEcr {
                access_key_id,
                secret_access_key,
                region,
                session_token,
            } => {
                let key = AwsKey { access_key_id, secret_access_key, session_token, region };
                registry.ecr_login(&key, &transfer).map_err(|e| refused(&host, &e))?
            }
        };
        Ok((host, RegistryLogin { username, password }))
    };
    credentials.into_iter().map(log_in).collect()
}

fn refused(host: &str, error: &EcrError) -> Failure {
    let kind = match error {
        EcrError::Refused(_) | EcrError::Region(_) => FailureKind::Auth,
        EcrError::Unavailable { .. } => FailureKind::Source,
    };
    Failure::new(kind, format!("no login for {host}: {}", chain(error)))
}
