//! Logins of registries for the daemon's pulls.

use std::collections::BTreeMap;

use ashlar_native::RegistryLogin;
use ashlar_oci::{Credential, RegistrySettings};
use bollard_buildkit_proto::moby::filesync::v1::auth_server::Auth;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
};
use tonic::{Request, Response, Status};

/// What a daemon calls Docker Hub.
const DOCKER_HUB_ENDPOINT: &str = "registry-1.docker.io";
/// What references call it.
const DOCKER_HUB: &str = "docker.io";

/// The build's own logins, then those of the settings.
pub(crate) struct Logins {
    pub(crate) own: BTreeMap<String, RegistryLogin>,
    pub(crate) settings: RegistrySettings,
}

impl Logins {
    /// Finds user and password; a refresh token comes without a user.
    async fn find(&self, host: &str) -> Option<(String, String)> {
        let host = if host == DOCKER_HUB_ENDPOINT { DOCKER_HUB } else { host };
        match self.credential(host).await? {
            Credential::Basic { username, password } => Some((username, password)),
            Credential::Identity(token) => Some((String::new(), token)),
            // The daemon has no way to take a token that goes to the registry as it is.
            Credential::Bearer(_) => None,
        }
    }

    async fn credential(&self, host: &str) -> Option<Credential> {
        if let Some(login) = self.own.get(host) {
            return Some(login.credential());
        }
        let (settings, host) = (self.settings.clone(), host.to_owned());
        // A credential helper is a program that may take its time.
        let found = tokio::task::spawn_blocking(move || settings.credential(&host)).await;
        found.ok().flatten()
    }
}

/// The daemon fetches tokens itself: it asks for these only of sessions that offer them.
fn by_the_daemon<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("tokens are fetched by the daemon"))
}

#[tonic::async_trait]
impl Auth for Logins {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let (username, secret) = self.find(&request.into_inner().host).await.unwrap_or_default();
        Ok(Response::new(CredentialsResponse { username, secret }))
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        by_the_daemon()
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        by_the_daemon()
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        by_the_daemon()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn daemons_get_passwords_with_their_users_and_refresh_tokens_without() {
        let login = |username: &str, password: &str| RegistryLogin {
            username: username.into(),
            password: password.into(),
        };
        let own =
            [("docker.io", login("ci", "secret")), ("a.example", login("<token>", "refresh"))];
        let own = own.map(|(host, login)| (host.to_owned(), login)).into();
        let logins = Logins { own, settings: RegistrySettings::default() };
        let found = async |host| logins.find(host).await;
        let pair = |user: &str, secret: &str| Some((user.to_owned(), secret.to_owned()));
        assert_eq!(found(DOCKER_HUB_ENDPOINT).await, pair("ci", "secret"));
        assert_eq!(found("a.example").await, pair("", "refresh"));
        assert_eq!(found("b.example").await, None);
    }
}
