//! Credentials for a host: explicit ones, else Docker's config.

use std::fmt;

use super::docker_config;
use super::settings::RegistrySettings;

/// Whose secret is a refresh token, as Docker's credential helpers write it.
const TOKEN_USER: &str = "<token>";

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

impl Credential {
    /// Takes a login as Docker's credential helpers give it: the secret of the user `<token>` is a
    /// refresh token.
    pub fn of_login(username: String, secret: String) -> Self {
        match username == TOKEN_USER {
            true => Self::Identity(secret),
            false => Self::Basic { username, password: secret },
        }
    }

    /// Returns user and secret as [`Credential::of_login`] takes them; nothing of a token that goes
    /// to the registry as it is, which no login can say.
    pub fn into_login(self) -> Option<(String, String)> {
        match self {
            Self::Basic { username, password } => Some((username, password)),
            Self::Identity(token) => Some((TOKEN_USER.to_owned(), token)),
            Self::Bearer(_) => None,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_says_whether_its_secret_is_a_refresh_token() {
        let basic = Credential::of_login("ci".into(), "secret".into());
        let token = Credential::of_login("<token>".into(), "refresh".into());
        assert_eq!(token, Credential::Identity("refresh".into()));
        for credential in [basic, token] {
            let (user, secret) = credential.clone().into_login().unwrap();
            assert_eq!(Credential::of_login(user, secret), credential);
        }
        assert_eq!(Credential::Bearer("access".into()).into_login(), None);
    }
}
