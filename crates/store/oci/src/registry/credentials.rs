//! Credentials for a host: explicit ones, else Docker's config.

use std::fmt;

use super::docker_config;
use super::settings::RegistrySettings;

/// Proves who we are to a registry or its token service.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// User name and password, or an access token in the password's place.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// A refresh token that the token service exchanges (Docker's `identitytoken`).
    Identity(String),
    /// A token that goes to the registry as it is.
    Bearer(String),
}

impl fmt::Debug for Credential {
    /// Shows no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username}, hidden)"),
            Self::Identity(_) => f.write_str("Identity(hidden)"),
            Self::Bearer(_) => f.write_str("Bearer(hidden)"),
        }
    }
}

/// Finds the credential for `host`. A broken config is logged and counts as none, since most
/// images need no credential at all.
pub(crate) fn find(settings: &RegistrySettings, host: &str) -> Option<Credential> {
    if let Some(explicit) = settings.credentials.get(host) {
        return Some(explicit.clone());
    }
    let path = settings.docker_config.as_ref()?;
    docker_config::find(path, host).unwrap_or_else(|e| {
        let cause = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
        tracing::warn!("no credentials for {host} from {}: {e} {cause}", path.display());
        None
    })
}
