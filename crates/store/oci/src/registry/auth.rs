//! Answers a registry's challenge: basic credentials, or a token from its token service.
//!
//! Source: distribution's token authentication specification and its OAuth2 variant.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use super::challenge::{self, Challenge};
use super::credentials::{self, Credential};
use super::endpoint::{Endpoint, check_hop};
use super::error::Failure;
use super::http::{self, Access, Http};

/// Largest answer of a token service, in bytes.
const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// How long a token lives when its service does not say (the specification's default).
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// A token is not used when it ends sooner than this.
const TOKEN_SLACK: Duration = Duration::from_secs(10);

/// What a request wants to do, in the token specification's words.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope(Vec<String>);

impl Scope {
    pub(crate) fn pull(endpoint: &Endpoint) -> Self {
        Self(vec![format!("repository:{}:pull", endpoint.path())])
    }

    /// To push, and to mount blobs of other repositories of the same host.
    pub(crate) fn push(endpoint: &Endpoint, mount_from: Option<&str>) -> Self {
        let mut scopes = vec![format!("repository:{}:pull,push", endpoint.path())];
        scopes.extend(mount_from.map(|path| format!("repository:{path}:pull")));
        Self(scopes)
    }
}

/// Headers that worked, by server and scope.
#[derive(Default)]
pub(crate) struct Auth {
    known: Mutex<HashMap<(String, Scope), Known>>,
}

#[derive(Clone)]
struct Known {
    header: HeaderValue,
    until: Option<Instant>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl Auth {
    /// Returns the header to send at once.
    pub(crate) fn known(&self, endpoint: &Endpoint, scope: &Scope) -> Option<HeaderValue> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(&(endpoint.name(), scope.clone()))?;
        let is_fresh = found.until.is_none_or(|until| Instant::now() + TOKEN_SLACK < until);
        is_fresh.then(|| found.header.clone())
    }

    /// Answers the challenges of a 401.
    pub(crate) async fn answer(
        &self,
        http: &Http,
        endpoint: &Endpoint,
        scope: &Scope,
        challenges: &[String],
    ) -> Result<HeaderValue, Failure> {
        let host = endpoint.credential_host.clone();
        let credential = http.credential(host).await;
        let challenge = challenge::parse(challenges.iter().map(String::as_str))
            .ok_or_else(|| Failure::Unauthorized("no challenge that we can answer".into()))?;
        let known = match (challenge, credential) {
            (_, Some(Credential::Bearer(token))) => Known::new(format!("Bearer {token}"), None)?,
            (Challenge::Basic, Some(Credential::Basic { username, password })) => {
                Known::new(basic(&username, &password), None)?
            }
            (Challenge::Basic, _) => {
                return Err(Failure::Unauthorized("it wants a user name and a password".into()));
            }
            (Challenge::Bearer { realm, service, scope: asked }, credential) => {
                let request = TokenRequest { endpoint, scope, service, asked, credential };
                request.send(http, &realm).await?
            }
        };
        let header = known.header.clone();
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((endpoint.name(), scope.clone()), known);
        Ok(header)
    }
}

impl Known {
    fn new(value: String, until: Option<Instant>) -> Result<Self, Failure> {
        let mut header = HeaderValue::try_from(value)
            .map_err(|_| Failure::Protocol("the token has characters that no header has".into()))?;
        header.set_sensitive(true);
        Ok(Self { header, until })
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

struct TokenRequest<'a> {
    endpoint: &'a Endpoint,
    scope: &'a Scope,
    service: Option<String>,
    asked: Option<String>,
    credential: Option<Credential>,
}

impl TokenRequest<'_> {
    async fn send(&self, http: &Http, realm: &str) -> Result<Known, Failure> {
        let realm = Url::parse(realm)
            .map_err(|_| Failure::Protocol("the realm of its token service is no URL".into()))?;
        check_hop(self.endpoint.base(), &realm)?;
        let client = http.client(&realm, Access::Read)?;
        let request = match &self.credential {
            Some(Credential::Identity(token)) => client
                .post(realm.clone())
                .body(self.form(token))
                .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded"),
            Some(Credential::Basic { username, password }) => {
                client.get(self.query(realm.clone())).basic_auth(username, Some(password))
            }
            _ => client.get(self.query(realm.clone())),
        };
        let response = http.timed(request.send()).await?;
        let status = response.status().as_u16();
        if matches!(status, 400 | 401 | 403) {
            let who = if self.credential.is_some() { "refused" } else { "wants credentials" };
            let server = realm.host_str().unwrap_or_default();
            return Err(Failure::Unauthorized(format!("token service {server} {who}, {status}")));
        }
        let response = http::check_status(http, response).await?;
        let bytes = http.body(response, TOKEN_BYTES_MAX).await?;
        let answer: TokenAnswer = serde_json::from_slice(&bytes)
            .map_err(|_| Failure::Protocol("its token service's answer is not JSON".into()))?;
        let token = answer.token.or(answer.access_token).filter(|t| !t.is_empty());
        let token =
            token.ok_or_else(|| Failure::Protocol("its token service gave no token".into()))?;
        let life = answer.expires_in.map_or(TOKEN_LIFE, Duration::from_secs).max(TOKEN_LIFE);
        Known::new(format!("Bearer {token}"), Instant::now().checked_add(life))
    }

    /// Our scopes, and the one in the challenge when it is another: some registries name
    /// repositories differently from their paths.
    fn scopes(&self) -> Vec<&str> {
        let mut scopes: Vec<&str> = self.scope.0.iter().map(String::as_str).collect();
        let ours = format!("repository:{}:", self.endpoint.path());
        let asked = self.asked.as_deref();
        scopes.extend(asked.filter(|a| !a.is_empty() && !a.starts_with(&ours)));
        scopes
    }

    fn query(&self, mut realm: Url) -> Url {
        {
            let mut query = realm.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            for scope in self.scopes() {
                query.append_pair("scope", scope);
            }
        }
        realm
    }

    /// The form of the OAuth2 variant, encoded by borrowing a URL's query.
    fn form(&self, refresh_token: &str) -> String {
        let mut url = self.endpoint.base().clone();
        url.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", self.service.as_deref().unwrap_or_default())
            .append_pair("client_id", "ashlar")
            .append_pair("scope", &self.scopes().join(" "))
            .append_pair("refresh_token", refresh_token);
        url.query().unwrap_or_default().to_owned()
    }
}

impl Http {
    /// Finds a credential without holding up the network: a helper program may be asked.
    async fn credential(&self, host: String) -> Option<Credential> {
        let settings = self.settings().clone();
        let found = tokio::task::spawn_blocking(move || credentials::find(&settings, &host)).await;
        found.ok().flatten()
    }
}
