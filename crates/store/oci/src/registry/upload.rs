//! Uploads one blob: asks first, lets the registry copy it where it can, and resumes.
//!
//! Source: OCI distribution spec 1.1, "Pushing blobs".

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ashlar_blobs::BlobStore;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};

use super::Registry;
use super::auth::Scope;
use super::endpoint::{Endpoint, check_hop};
use super::error::Failure;
use super::http::{Call, text};
use crate::manifest::Descriptor;
use crate::transfer::Transfer;

/// Blobs up to this size go up in one request, which saves one but can not be resumed.
const MONOLITHIC_MAX: u64 = 4 << 20;
/// Bytes read from the file at once.
const CHUNK_LEN: usize = 256 << 10;
/// How often progress is looked at.
const TICK: Duration = Duration::from_millis(50);
/// After the last byte a registry hashes and stores: it may take so many stall times.
const FINISH_FACTOR: u32 = 4;
const NO_RESUME: &str = "it could not resume the upload";

/// The upload of one blob, over all its tries.
pub(crate) struct Upload<'a> {
    blob: &'a Descriptor,
    store: &'a BlobStore,
    mount_from: Option<&'a str>,
    /// Where to send bytes to, once the registry has said so.
    session: Option<Url>,
    /// Whether the registry may have bytes of this session already.
    is_begun: bool,
    /// Bytes that this try has sent.
    sent: Arc<AtomicU64>,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(
        blob: &'a Descriptor,
        store: &'a BlobStore,
        mount_from: Option<&'a str>,
    ) -> Self {
        Self { blob, store, mount_from, session: None, is_begun: false, sent: Arc::default() }
    }

    /// Returns how many bytes the last try sent.
    pub(crate) fn moved(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Asks whether the registry has the blob, then lets it copy it from another repository.
    pub(crate) async fn probe(
        &mut self,
        registry: &Registry,
        endpoint: &Endpoint,
    ) -> Result<bool, Failure> {
        let url = endpoint.url(&format!("blobs/{}", self.blob.digest));
        match self.call(registry, endpoint, Method::HEAD, url, &|r| r).await {
            Ok(_) => return Ok(true),
            Err(Failure::NotFound) => {}
            Err(failure) => return Err(failure),
        }
        match self.mount_from {
            Some(_) => self.start(registry, endpoint).await,
            None => Ok(false),
        }
    }

    /// Opens an upload; true when the registry found the blob by itself.
    async fn start(&mut self, registry: &Registry, endpoint: &Endpoint) -> Result<bool, Failure> {
        let mut url = endpoint.url("blobs/uploads/");
        if let Some(from) = self.mount_from {
            let digest = self.blob.digest.to_string();
            url.query_pairs_mut().append_pair("mount", &digest).append_pair("from", from);
        }
        let fill = |r: RequestBuilder| r.header(header::CONTENT_LENGTH, 0);
        let response = self.call(registry, endpoint, Method::POST, url.clone(), &fill).await?;
        match response.status() {
            StatusCode::CREATED => return Ok(true),
            StatusCode::ACCEPTED => self.follow(&url, &response)?,
            status => return Err(unexpected(status)),
        }
        Ok(false)
    }

    /// Sends what the registry lacks and closes the upload.
    pub(crate) async fn run(
        &mut self,
        registry: &Registry,
        endpoint: &Endpoint,
        transfer: &Transfer<'_>,
    ) -> Result<(), Failure> {
        self.sent.store(0, Ordering::Relaxed);
        let mut offset = 0;
        if self.session.is_none() {
            if self.start(registry, endpoint).await? {
                return Ok(());
            }
        } else if self.is_begun {
            offset = self.offset(registry, endpoint).await?;
        }
        let result = self.send(registry, endpoint, transfer, offset).await;
        if let Err(Failure::NotFound) = result {
            // The registry has forgotten the upload: begin a new one.
            return self.begin_again("it forgot the upload");
        }
        result
    }

    async fn send(
        &mut self,
        registry: &Registry,
        endpoint: &Endpoint,
        transfer: &Transfer<'_>,
        offset: u64,
    ) -> Result<(), Failure> {
        let size = self.blob.size;
        self.is_begun = true;
        let is_monolithic = offset == 0 && size <= MONOLITHIC_MAX;
        if !is_monolithic && offset < size {
            let url = self.session()?;
            let response =
                self.transmit(registry, endpoint, transfer, Method::PATCH, &url, offset).await?;
            match response.status() {
                StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED => {
                    self.follow(&url, &response)?;
                }
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    return Err(Failure::Network("it is at another place of the upload".into()));
                }
                status => return Err(unexpected(status)),
            }
        }
        let mut url = self.session()?;
        url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        let from = if is_monolithic { 0 } else { size };
        let response = self.transmit(registry, endpoint, transfer, Method::PUT, &url, from).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            status => Err(unexpected(status)),
        }
    }

    /// Asks how many bytes the registry has of a broken upload.
    async fn offset(&mut self, registry: &Registry, endpoint: &Endpoint) -> Result<u64, Failure> {
        let url = self.session()?;
        match self.call(registry, endpoint, Method::GET, url.clone(), &|r| r).await {
            Ok(response) => {
                let end = text(response.headers(), &header::RANGE)
                    .and_then(|r| r.trim_start_matches("bytes=").split_once('-'))
                    .and_then(|(_, end)| end.trim().parse::<u64>().ok());
                self.follow(&url, &response)?;
                // `0-0` is what registries say of nothing as well as of one byte; the smaller
                // guess could store a byte twice, so begin again.
                match end {
                    Some(end) if end > 0 && end < self.blob.size => Ok(end + 1),
                    _ => self.begin_again(NO_RESUME),
                }
            }
            Err(Failure::NotFound) => self.begin_again(NO_RESUME),
            Err(failure) => Err(failure),
        }
    }

    fn begin_again<T>(&mut self, why: &str) -> Result<T, Failure> {
        self.session = None;
        self.is_begun = false;
        Err(Failure::Network(why.to_owned()))
    }

    fn session(&self) -> Result<Url, Failure> {
        self.session.clone().ok_or_else(|| Failure::Protocol("no place to upload to".into()))
    }

    /// Takes over the place that the registry names for what comes next.
    fn follow(&mut self, url: &Url, response: &Response) -> Result<(), Failure> {
        let next = text(response.headers(), &header::LOCATION).and_then(|l| url.join(l).ok());
        if let Some(next) = next {
            check_hop(url, &next)?;
            self.session = Some(next);
        }
        self.session().map(drop)
    }

    async fn call(
        &self,
        registry: &Registry,
        endpoint: &Endpoint,
        method: Method,
        url: Url,
        fill: &(dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
    ) -> Result<Response, Failure> {
        let scope = Scope::push(endpoint, self.mount_from);
        registry.http.send(&Call { endpoint, scope: &scope, method, url, fill }).await
    }

    /// Sends the file's bytes from `offset` on, and watches that they move.
    async fn transmit(
        &self,
        registry: &Registry,
        endpoint: &Endpoint,
        transfer: &Transfer<'_>,
        method: Method,
        url: &Url,
        offset: u64,
    ) -> Result<Response, Failure> {
        let (digest, size) = (self.blob.digest, self.blob.size);
        let file = Arc::new(self.store.open_read(&digest).map_err(Failure::Store)?);
        let fill = |request: RequestBuilder| {
            // A second try after a challenge begins at the same place.
            self.sent.store(0, Ordering::Relaxed);
            let body =
                FileStream { file: file.clone(), at: offset, end: size, sent: self.sent.clone() };
            let mut request = request
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header(header::CONTENT_LENGTH, size - offset);
            if offset > 0 && offset < size {
                let range = format!("{offset}-{}", size - 1);
                request = request.header(header::CONTENT_RANGE, range);
            }
            request.body(reqwest::Body::wrap_stream(body))
        };
        let sending = self.call(registry, endpoint, method, url.clone(), &fill);
        let limit = registry.settings().stall_timeout;
        let mut last = (0, Instant::now());
        tokio::pin!(sending);
        loop {
            if let Ok(result) = tokio::time::timeout(TICK, &mut sending).await {
                return result;
            }
            let sent = self.moved();
            if sent != last.0 {
                last = (sent, Instant::now());
                transfer.report(digest, offset + sent, size);
            }
            let is_all = offset + sent >= size;
            let limit = if is_all { limit.saturating_mul(FINISH_FACTOR) } else { limit };
            if last.1.elapsed() > limit {
                return Err(Failure::Stalled(limit));
            }
        }
    }
}

fn unexpected(status: StatusCode) -> Failure {
    Failure::Protocol(format!("status {status} for an upload"))
}

/// Part of a file as a request's body.
///
/// It reads inside `poll`: blobs come out of the page cache, and the runtime is this crate's own.
struct FileStream {
    file: Arc<File>,
    at: u64,
    end: u64,
    sent: Arc<AtomicU64>,
}

impl futures_core::Stream for FileStream {
    type Item = std::io::Result<Vec<u8>>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let left = self.end - self.at;
        if left == 0 {
            return Poll::Ready(None);
        }
        let mut chunk = vec![0; usize::try_from(left).unwrap_or(CHUNK_LEN).min(CHUNK_LEN)];
        let read = self.file.read_exact_at(&mut chunk, self.at);
        self.at += chunk.len() as u64;
        self.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(read.map(|()| chunk)))
    }
}
