//! HTTP as registries need it: redirects that keep credentials at home, challenges, stalls, limits.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::auth::{Auth, Scope};
use super::credentials::Credential;
use super::egress::{Egress, EgressRefused, GuardedNames};
use super::endpoint::{Endpoint, check_hop, is_local, is_same_server};
use super::error::Failure;
use super::retry;
use super::settings::RegistrySettings;

/// Most redirects that are followed.
const REDIRECTS_MAX: usize = 5;
/// Most bytes that are read of an error's text.
const ERROR_BYTES_MAX: u64 = 8 << 10;
/// Most characters of an error's text that are shown.
const ERROR_CHARS_MAX: usize = 300;

/// Connections, tokens and settings of one client.
pub(crate) struct Http {
    settings: RegistrySettings,
    pub(crate) auth: Auth,
    /// By [`Kind`]: reading certificates takes milliseconds that a build against a local registry
    /// need not spend.
    clients: Arc<[OnceLock<Result<Client, String>>; 16]>,
}

/// What a client is made for.
#[derive(Debug, Clone, Copy)]
struct Kind {
    is_tls: bool,
    /// Whether no proxy is needed.
    is_local: bool,
    /// Whether the host may have any address.
    is_named: bool,
    /// Whether it is for files from the web, which never come from this machine.
    is_file: bool,
}

impl Kind {
    fn slot(self) -> usize {
        let flags = [self.is_tls, self.is_local, self.is_named, self.is_file];
        flags.into_iter().fold(0, |slot, flag| slot * 2 + usize::from(flag))
    }
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// To read from a registry.
    Read,
    /// To write to one.
    Write,
    /// To read a file that a build adds from the web.
    File,
}

/// One request, able to be sent several times.
pub(crate) struct Call<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) scope: &'a Scope,
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// Adds headers and a body; called again for each try.
    pub(crate) fill: &'a (dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
}

impl Http {
    pub(crate) fn new(settings: RegistrySettings) -> Self {
        Self { settings, auth: Auth::default(), clients: Default::default() }
    }

    /// Returns the same connections with further credentials and with no tokens yet.
    pub(crate) fn with_credentials(&self, credentials: BTreeMap<String, Credential>) -> Self {
        let mut settings = self.settings.clone();
        settings.credentials.extend(credentials);
        Self { settings, auth: Auth::default(), clients: Arc::clone(&self.clients) }
    }

    pub(crate) fn settings(&self) -> &RegistrySettings {
        &self.settings
    }

    /// Returns the client for an address that may be reached. Each redirect has to ask again.
    pub(crate) fn client(&self, url: &Url, access: Access) -> Result<&Client, Failure> {
        let is_named = self.check_reach(url, access)?;
        let (is_tls, is_file) = (url.scheme() == "https", access == Access::File);
        let kind = Kind { is_tls, is_local: is_local(url), is_named, is_file };
        let client = self.clients[kind.slot()].get_or_init(|| self.make_client(kind));
        client.as_ref().map_err(|e| Failure::SetUp(e.clone()))
    }

    /// Refuses addresses that builds do not reach; names are judged when they are resolved.
    /// Returns whether the host may have any address.
    fn check_reach(&self, url: &Url, access: Access) -> Result<bool, Failure> {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(Failure::Protocol("an address without a host".into()));
        };
        let is_named = match access {
            Access::Read | Access::File => self.settings.is_named_to_read(host, port),
            Access::Write => self.settings.is_named(host, port),
        };
        let address = host.trim_start_matches('[').trim_end_matches(']').parse();
        let egress = self.egress(access == Access::File);
        if !is_named && address.is_ok_and(|a| !egress.allows_address(a)) {
            return Err(EgressRefused { host: format!("{host}:{port}") }.into());
        }
        Ok(is_named)
    }

    fn egress(&self, is_file: bool) -> Egress {
        let egress = &self.settings.egress;
        if is_file { egress.for_files() } else { egress.clone() }
    }

    fn make_client(&self, kind: Kind) -> Result<Client, String> {
        let mut builder = Client::builder()
            .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.settings.connect_timeout)
            .tls_backend_preconfigured(self.tls_config(kind.is_tls)?);
        if kind.is_local {
            builder = builder.no_proxy();
        }
        if !kind.is_named {
            let names = GuardedNames::new(&self.egress(kind.is_file), !kind.is_local);
            builder = builder.dns_resolver(Arc::new(names));
        }
        builder.build().map_err(|e| format!("cannot set up HTTP: {}", chain(&e)))
    }

    fn tls_config(&self, with_roots: bool) -> Result<rustls::ClientConfig, String> {
        let mut roots = rustls::RootCertStore::empty();
        if with_roots {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if let Some(path) = &self.settings.ca_bundle {
                let unreadable = |e| format!("cannot read CA bundle {}: {e}", path.display());
                for cert in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                    let cert = cert.map_err(unreadable)?;
                    roots.add(cert).map_err(|e| {
                        format!("CA bundle {} has a certificate that is none: {e}", path.display())
                    })?;
                }
            }
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("cannot set up TLS: {e}"))?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }

    /// Waits for `future`, at most as long as a transfer may stall.
    pub(crate) async fn timed<T>(
        &self,
        future: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, Failure> {
        let limit = self.settings.stall_timeout;
        match tokio::time::timeout(limit, future).await {
            Err(_) => Err(Failure::Stalled(limit)),
            Ok(result) => result.map_err(|e| network(&e)),
        }
    }

    /// Sends a request, answers one challenge, follows redirects. Any status may come back but
    /// 401, 404 and 5xx, which are failures of their own.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Response, Failure> {
        let known = self.auth.known(call.endpoint, call.scope);
        let response = self.hop(call, known.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return check_status(self, response).await;
        }
        let challenges = all(response.headers(), &header::WWW_AUTHENTICATE);
        drop(response);
        let header = self.auth.answer(self, call.endpoint, call.scope, &challenges).await?;
        let response = self.hop(call, Some(&header)).await?;
        check_status(self, response).await
    }

    async fn hop(&self, call: &Call<'_>, auth: Option<&HeaderValue>) -> Result<Response, Failure> {
        let mut url = call.url.clone();
        let is_read = matches!(call.method, Method::GET | Method::HEAD);
        let access = if is_read { Access::Read } else { Access::Write };
        for _ in 0..=REDIRECTS_MAX {
            let client = self.client(&url, access)?;
            let mut request = client.request(call.method.clone(), url.clone());
            if let Some(value) = auth.filter(|_| is_same_server(&url, call.endpoint.base())) {
                request = request.header(header::AUTHORIZATION, value.clone());
            }
            let sent = (call.fill)(request).send();
            let response = if call.method == Method::PATCH || call.method == Method::PUT {
                // The upload watches its own progress: it may rightly take long.
                sent.await.map_err(|e| network(&e))?
            } else {
                self.timed(sent).await?
            };
            if !is_read || !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let target = text(response.headers(), &header::LOCATION)
                .and_then(|l| url.join(l).ok())
                .ok_or_else(|| Failure::Protocol("a redirect without a target".into()))?;
            check_hop(&url, &target)?;
            url = target;
        }
        Err(Failure::Protocol(format!("more than {REDIRECTS_MAX} redirects")))
    }

    /// Reads a whole body of at most `limit` bytes.
    pub(crate) async fn body(
        &self,
        mut response: Response,
        limit: u64,
    ) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.timed(response.chunk()).await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(Failure::TooLarge { limit });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// Makes a failure of an error status.
pub(crate) async fn check_status(http: &Http, response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(response);
    }
    if status == StatusCode::RANGE_NOT_SATISFIABLE {
        return Ok(response);
    }
    let retry_after =
        text(response.headers(), &header::RETRY_AFTER).and_then(retry::parse_retry_after);
    let body = http.body(response, ERROR_BYTES_MAX).await.unwrap_or_default();
    let message = error_text(&body);
    Err(match status {
        StatusCode::NOT_FOUND => Failure::NotFound,
        StatusCode::UNAUTHORIZED => {
            Failure::Unauthorized(message.unwrap_or_else(|| "401".to_owned()))
        }
        _ => Failure::Status { status: status.as_u16(), message, retry_after },
    })
}

/// Reads the distribution spec's error document, else nothing: proxies answer with whole pages.
fn error_text(body: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let first = document.get("errors")?.get(0)?;
    let part = |name: &str| first.get(name).and_then(|v| v.as_str()).unwrap_or_default();
    let text = format!("{} {}", part("code"), part("message"));
    let clean = text.trim().chars().filter(|c| !c.is_control()).take(ERROR_CHARS_MAX);
    Some(clean.collect()).filter(|t: &String| !t.is_empty())
}

/// Returns a header as text, when it is there and is text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn all(headers: &HeaderMap, name: &header::HeaderName) -> Vec<String> {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
}

/// Makes a failure of an error of the network, or of what the guard said to a connection.
fn network(error: &reqwest::Error) -> Failure {
    let mut cause = std::error::Error::source(error);
    while let Some(c) = cause {
        if let Some(refused) = c.downcast_ref::<EgressRefused>() {
            return refused.clone().into();
        }
        cause = c.source();
    }
    Failure::Network(chain(error))
}

/// Writes an error and its causes; the outermost alone says only "error sending request". URLs
/// are left out: those of storage services carry signatures.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut parts = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(c) = cause {
        parts.push(c.to_string());
        cause = c.source();
    }
    parts.dedup();
    if parts.is_empty() { "the request failed".to_owned() } else { parts.join(": ") }
}
