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
        if let Some(login) = self.own.get(host) {
            return Some((login.username.clone(), login.password.clone()));
        }
        let (settings, host) = (self.settings.clone(), host.to_owned());
        // A credential helper is a program that may take its time.
        let found = tokio::task::spawn_blocking(move || settings.credential(&host)).await;
        match found.ok().flatten()? {
            Credential::Basic { username, password } => Some((username, password)),
            Credential::Identity(token) => Some((String::new(), token)),
            // The daemon has no way to take a token that goes to the registry as it is.
            Credential::Bearer(_) => None,
        }
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
