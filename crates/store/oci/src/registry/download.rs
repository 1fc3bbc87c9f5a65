//! Fetches plain addresses (`ADD https://...`) into the blob store, with the client that registries
//! are spoken to with: the same certificates, proxies and time limits.

use std::io::Write as _;

use ashlar_blobs::{BlobInfo, BlobStore};
use ashlar_core::Digest;
use reqwest::header::{self, HeaderMap};
use reqwest::{StatusCode, Url};

use super::endpoint::{check_hop, shown};
use super::error::{EndpointFailure, Failure, RegistryError};
use super::http::{Access, text};
use super::{Registry, runtime};
use crate::transfer::Transfer;

/// Most redirects that are followed.
const REDIRECTS_MAX: usize = 10;

/// What the server said about a file, for asking later whether it changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validators {
    /// Its entity tag.
    pub etag: Option<String>,
    /// When it was last modified, as the server wrote it.
    pub last_modified: Option<String>,
}

/// What a download came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Downloaded {
    /// The file.
    Content(BlobInfo, Validators),
    /// The server says that the earlier copy is still right.
    Unchanged,
}

impl Registry {
    /// Fetches `url` into `store`, at most `bytes_max` bytes; with `earlier`, only if it changed.
    ///
    /// # Errors
    /// When the address cannot be read, gives another digest than `expected`, or too much.
    pub fn download(
        &self,
        url: &str,
        earlier: Option<&Validators>,
        expected: Option<&Digest>,
        store: &BlobStore,
        bytes_max: u64,
        transfer: &Transfer<'_>,
    ) -> Result<Downloaded, RegistryError> {
        let fail = |failure| RegistryError::Endpoints {
            what: Url::parse(url)
                .map_or("fetch an address".into(), |u| format!("fetch {}", shown(&u))),
            failures: vec![EndpointFailure { endpoint: host_of(url), failure }],
        };
        let parsed = Url::parse(url).map_err(|e| fail(Failure::Protocol(e.to_string())))?;
        let run = self.receive_file(parsed, earlier, expected, store, bytes_max, transfer);
        runtime::run(transfer, run).map_err(|failure| match failure {
            Failure::Cancelled => RegistryError::Cancelled,
            other => fail(other),
        })
    }

    async fn receive_file(
        &self,
        mut url: Url,
        earlier: Option<&Validators>,
        expected: Option<&Digest>,
        store: &BlobStore,
        bytes_max: u64,
        transfer: &Transfer<'_>,
    ) -> Result<Downloaded, Failure> {
        for _ in 0..=REDIRECTS_MAX {
            if !matches!(url.scheme(), "http" | "https") {
                return Err(Failure::Unsafe(shown(&url)));
            }
            let mut request = self.http.client(&url, Access::File)?.get(url.clone());
            for (name, value) in conditions(earlier) {
                request = request.header(name, value);
            }
            let response = self.http.timed(request.send()).await?;
            let target = text(response.headers(), &header::LOCATION).and_then(|l| url.join(l).ok());
            match (response.status(), target) {
                (StatusCode::NOT_MODIFIED, _) if earlier.is_some() => {
                    return Ok(Downloaded::Unchanged);
                }
                (status, Some(next)) if status.is_redirection() => {
                    // A page fetched safely must not be swapped for one that anybody may write.
                    check_hop(&url, &next)?;
                    url = next;
                }
                (status, _) if status.is_success() => {
                    return self.store_file(response, expected, store, bytes_max, transfer).await;
                }
                (StatusCode::NOT_FOUND, _) => return Err(Failure::NotFound),
                (status, _) => {
                    let (status, message, retry_after) = (status.as_u16(), None, None);
                    return Err(Failure::Status { status, message, retry_after });
                }
            }
        }
        Err(Failure::Protocol(format!("more than {REDIRECTS_MAX} redirects")))
    }

    async fn store_file(
        &self,
        mut response: reqwest::Response,
        expected: Option<&Digest>,
        store: &BlobStore,
        bytes_max: u64,
        transfer: &Transfer<'_>,
    ) -> Result<Downloaded, Failure> {
        let validators = validators_of(response.headers());
        let total = response.content_length().unwrap_or(0);
        let mut writer = store.writer().map_err(Failure::Store)?;
        let mut done = 0;
        while let Some(bytes) = self.http.timed(response.chunk()).await? {
            done += bytes.len() as u64;
            if done > bytes_max {
                return Err(Failure::TooLarge { limit: bytes_max });
            }
            writer.write_all(&bytes).map_err(|e| Failure::SetUp(format!("cannot write: {e}")))?;
            transfer.report(Digest::of(b""), done, total);
        }
        let info = writer.commit(expected).map_err(|error| match error {
            ashlar_blobs::BlobError::Mismatch { expected, actual } => {
                Failure::Digest { expected, actual }
            }
            other => Failure::Store(other),
        })?;
        Ok(Downloaded::Content(info, validators))
    }
}

fn conditions(earlier: Option<&Validators>) -> Vec<(header::HeaderName, String)> {
    let Some(earlier) = earlier else { return Vec::new() };
    let etag = earlier.etag.clone().map(|v| (header::IF_NONE_MATCH, v));
    let date = earlier.last_modified.clone().map(|v| (header::IF_MODIFIED_SINCE, v));
    etag.into_iter().chain(date).collect()
}

fn validators_of(headers: &HeaderMap) -> Validators {
    let get = |name| text(headers, &name).map(str::to_owned);
    Validators { etag: get(header::ETAG), last_modified: get(header::LAST_MODIFIED) }
}

/// Scheme and host of an address, without user, query or path: those may hold secrets.
fn host_of(url: &str) -> String {
    let parsed = Url::parse(url).ok();
    let host = parsed.as_ref().and_then(|u| Some(format!("{}://{}", u.scheme(), u.host_str()?)));
    host.unwrap_or_else(|| "the address".to_owned())
}
