//! The connection to one server.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use crate::Error;
use crate::error::refused;
use crate::tls;

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// After this much silence the system asks whether the other side is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Bytes of an answer that is read into memory.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Bytes that are read of an error.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// How often a waiting call looks whether it shall stop.
const STOP_POLL: Duration = Duration::from_millis(25);
/// Names the tenant that an admin acts for.
const TENANT_HEADER: HeaderName = HeaderName::from_static("ashlar-tenant");

/// Which server, and as whom.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Its address, for example `http://127.0.0.1:7070`.
    pub server: String,
    /// The token.
    pub token: String,
    /// The tenant that an admin acts for; the token's own when absent.
    pub tenant: Option<String>,
    /// PEM file with certificates to trust beside the system's.
    pub ca_bundle: Option<PathBuf>,
}

/// Says whether a call shall end early. Asked by several threads.
pub type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// A client of one server. Nothing is sent before the first call.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    runtime: Runtime,
    base: Url,
}

impl Client {
    /// Makes a client.
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Header`], [`Error::CaBundle`]; when no thread can be started.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let base = address(&settings.server)?;
        let tls = tls::config(base.scheme() == "https", settings.ca_bundle.as_deref())?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_MAX)
            .tcp_keepalive(KEEP_ALIVE)
            .default_headers(headers(settings)?)
            .tls_backend_preconfigured(tls);
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| Error::SetUp(e.into()))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("server")
            .enable_all()
            .build()
            .map_err(|e| Error::SetUp(e.into()))?;
        Ok(Self { http, runtime, base })
    }

    /// Returns the server's address.
    pub fn server(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Returns the address of a route below `/api/v1`; the segments are escaped.
    pub(crate) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1"]).extend(segments);
        }
        url
    }

    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// Waits for a future on the calling thread.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Waits for a future until `stop` says that it shall end.
    pub(crate) fn wait_unless<T>(
        &self,
        stop: Stop<'_>,
        future: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.wait(async {
            tokio::pin!(future);
            loop {
                tokio::select! {
                    biased;
                    result = &mut future => return result,
                    () = tokio::time::sleep(STOP_POLL) => if stop() { return Err(Error::Stopped) },
                }
            }
        })
    }

    /// Sends a request; any answer that is no success is an error.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = request.send().await.map_err(|e| self.unreachable(e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    pub(crate) async fn refusal(&self, mut response: Response) -> Error {
        let (status, url) = (response.status(), response.url().to_string());
        let kind = text(response.headers(), &header::CONTENT_TYPE);
        if status.is_redirection() {
            let to = text(response.headers(), &header::LOCATION);
            return Error::NotAshlar { url, found: format!("it leads on to '{to}'") };
        }
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > ERROR_BYTES_MAX {
                break;
            }
        }
        refused(self.server(), &url, status, &kind, &body)
    }

    pub(crate) fn unreachable(&self, error: reqwest::Error) -> Error {
        // The address is named once, in our own words.
        let source = Box::new(error.without_url());
        Error::Unreachable { server: self.server().to_owned(), source }
    }

    /// Sends a request and reads the JSON that is answered.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        what: &'static str,
        request: RequestBuilder,
    ) -> Result<T, Error> {
        let mut response = self.send(request).await?;
        let kind = text(response.headers(), &header::CONTENT_TYPE);
        if !kind.starts_with("application/json") {
            let url = response.url().to_string();
            return Err(Error::NotAshlar { url, found: format!("it answers with '{kind}'") });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(e))? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(Error::unreadable(what, "it is too long"));
            }
        }
        serde_json::from_slice(&body).map_err(|e| Error::unreadable(what, e))
    }

    /// Reads what a route answers.
    pub(crate) fn get<T: DeserializeOwned>(
        &self,
        what: &'static str,
        segments: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, Error> {
        let mut url = self.url(segments);
        add_query(&mut url, query);
        self.wait(self.json(what, self.request(Method::GET, url)))
    }

    /// Sends a document and reads what is answered.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        what: &'static str,
        segments: &[&str],
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let request = self.request(Method::POST, self.url(segments)).json(body);
        self.wait(self.json(what, request))
    }

    /// Asks for something to go.
    pub(crate) fn delete(&self, segments: &[&str]) -> Result<(), Error> {
        let request = self.request(Method::DELETE, self.url(segments));
        self.wait(self.send(request)).map(drop)
    }
}

/// Adds parameters to an address.
pub(crate) fn add_query(url: &mut Url, query: &[(&str, String)]) {
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
}

pub(crate) fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

fn headers(settings: &Settings) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {}", settings.token);
    let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| Error::Header("token"))?;
    bearer.set_sensitive(true);
    headers.insert(header::AUTHORIZATION, bearer);
    if let Some(tenant) = &settings.tenant {
        let name = HeaderValue::from_str(tenant).map_err(|_| Error::Header("tenant"))?;
        headers.insert(TENANT_HEADER, name);
    }
    Ok(headers)
}

fn address(text: &str) -> Result<Url, Error> {
    let wrong = |why: String| Error::Address { text: text.chars().take(200).collect(), why };
    let url = Url::parse(text.trim()).map_err(|e| wrong(e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("it needs http:// or https://".into()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("credentials go into ASHLAR_TOKEN".into()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a query".into()));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback())
}

/// Says that the answer holds nothing to be read.
pub(crate) fn is_done(status: StatusCode) -> bool {
    matches!(status, StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_routes_escaped() {
        for bad in ["", "host", "host:7070", "ftp://h", "http://u:p@h", "http://h/?x=1"] {
            assert!(matches!(address(bad), Err(Error::Address { .. })), "{bad}");
        }
        let settings = Settings { server: "http://h:1/base/".into(), ..Settings::default() };
        let Ok(client) = Client::new(&settings) else { panic!("no client") };
        assert_eq!(client.url(&["tags", "a/b:c"]).as_str(), "http://h:1/base/api/v1/tags/a%2Fb:c");
        assert_eq!(client.server(), "http://h:1/base");
        let broken = Settings { token: "a\nb".into(), ..settings };
        assert!(matches!(Client::new(&broken), Err(Error::Header("token"))));
    }

    #[test]
    fn loopback_needs_no_proxy() {
        let is = |text: &str| Url::parse(text).is_ok_and(|u| is_loopback(&u));
        assert!(is("http://127.0.0.1:1") && is("http://[::1]:1") && is("http://localhost"));
        assert!(!is("http://10.0.0.1") && !is("https://ashlar.example"));
    }
}
