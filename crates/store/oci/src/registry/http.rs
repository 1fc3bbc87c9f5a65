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
    /// By whether TLS and whether a proxy may be needed: reading certificates takes milliseconds
    /// that a build against a local registry need not spend.
    clients: Arc<[OnceLock<Result<Client, String>>; 4]>,
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

    pub(crate) fn client(&self, url: &Url) -> Result<&Client, Failure> {
        let (is_tls, is_local) = (url.scheme() == "https", is_local(url));
        let slot = &self.clients[usize::from(is_tls) * 2 + usize::from(is_local)];
        let client = slot.get_or_init(|| self.make_client(is_tls, is_local));
        client.as_ref().map_err(|e| Failure::SetUp(e.clone()))
    }

    fn make_client(&self, is_tls: bool, is_local: bool) -> Result<Client, String> {
        let mut builder = Client::builder()
            .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.settings.connect_timeout)
            .tls_backend_preconfigured(self.tls_config(is_tls)?);
        if is_local {
            builder = builder.no_proxy();
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
            Ok(result) => result.map_err(|e| Failure::Network(chain(&e))),
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
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.client(&url)?.request(call.method.clone(), url.clone());
            if let Some(value) = auth.filter(|_| is_same_server(&url, call.endpoint.base())) {
                request = request.header(header::AUTHORIZATION, value.clone());
            }
            let sent = (call.fill)(request).send();
            let response = if call.method == Method::PATCH || call.method == Method::PUT {
                // The upload watches its own progress: it may rightly take long.
                sent.await.map_err(|e| Failure::Network(chain(&e)))?
            } else {
                self.timed(sent).await?
            };
            let is_read = matches!(call.method, Method::GET | Method::HEAD);
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
