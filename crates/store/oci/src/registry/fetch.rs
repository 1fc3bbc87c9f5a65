//! Fetches blobs into the store: once, whoever wants them, and on from where it broke off.

use std::io::Write as _;
use std::time::Duration;

use ashlar_blobs::{BlobError, BlobInfo, BlobStore, Claim, Ingest};
use reqwest::header::{self, HeaderMap};
use reqwest::{Method, Response, StatusCode};

use super::auth::Scope;
use super::endpoint::Endpoint;
use super::error::{Failure, RegistryError};
use super::http::{Call, text};
use super::{Registry, runtime};
use crate::manifest::Descriptor;
use crate::reference::Repository;
use crate::transfer::Transfer;

/// How often to look whether another process has finished the blob that we wait for.
const BUSY_POLL: Duration = Duration::from_millis(20);

impl Registry {
    /// Fetches a blob into `store`, unless it is there. When another thread or process is at it,
    /// waits for that.
    ///
    /// # Errors
    /// When no endpoint gives the right bytes; [`RegistryError::Cancelled`].
    pub fn fetch_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        store: &BlobStore,
        transfer: &Transfer<'_>,
    ) -> Result<BlobInfo, RegistryError> {
        let claim = || store.claim(&blob.digest);
        Ok(self.fetch_claimed(repository, blob, transfer, claim)?.0)
    }

    /// Fetches a blob unless it is there, as `claim` sees it; says whether the registry gave all of
    /// it. What somebody else's fetch left was not given.
    pub(crate) fn fetch_claimed(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        transfer: &Transfer<'_>,
        claim: impl Fn() -> Result<Claim, BlobError>,
    ) -> Result<(BlobInfo, bool), RegistryError> {
        let mut ingest = loop {
            match claim()? {
                Claim::Present(info) => {
                    transfer.report(blob.digest, info.size, info.size);
                    return Ok((info, false));
                }
                Claim::Mine(ingest) => break ingest,
                Claim::Busy(done) => {
                    transfer.report(blob.digest, done, blob.size);
                    runtime::wait(transfer, BUSY_POLL).map_err(|_| RegistryError::Cancelled)?;
                }
            }
        };
        let is_whole = ingest.size() == 0;
        let endpoints = Endpoint::all(self.settings(), repository);
        let what = || format!("fetch blob {} of {repository}", blob.digest);
        let fetched = self.try_endpoints(endpoints, transfer, what, |endpoint| {
            let mut download = Download { blob, ingest: &mut ingest, transfer, moved: 0 };
            let result = runtime::run(transfer, download.run(self, endpoint));
            result.map_err(|failure| (failure, download.moved))
        });
        Ok((fetched?, is_whole))
    }
}

/// One try to get the missing bytes of a blob.
struct Download<'a> {
    blob: &'a Descriptor,
    ingest: &'a mut Ingest,
    transfer: &'a Transfer<'a>,
    /// Bytes that came in this try.
    moved: u64,
}

impl Download<'_> {
    async fn run(&mut self, registry: &Registry, endpoint: &Endpoint) -> Result<BlobInfo, Failure> {
        if self.ingest.size() > self.blob.size {
            self.ingest.restart().map_err(Failure::Store)?;
        }
        let offset = self.ingest.size();
        if offset < self.blob.size || self.blob.size == 0 {
            let response = self.ask(registry, endpoint, offset).await?;
            self.receive(registry, response).await?;
        }
        match self.ingest.commit() {
            Ok(info) => Ok(info),
            // The first part may be another server's fault: once more, from the start.
            Err(BlobError::Mismatch { .. }) if offset > 0 => {
                Err(Failure::Network("the resumed download did not fit together".into()))
            }
            Err(BlobError::Mismatch { expected, actual }) => {
                Err(Failure::Digest { expected, actual })
            }
            Err(error) => Err(Failure::Store(error)),
        }
    }

    async fn ask(
        &mut self,
        registry: &Registry,
        endpoint: &Endpoint,
        offset: u64,
    ) -> Result<Response, Failure> {
        let scope = Scope::pull(endpoint);
        let call = Call {
            endpoint,
            scope: &scope,
            method: Method::GET,
            url: endpoint.url(&format!("blobs/{}", self.blob.digest)),
            fill: &|r| match offset {
                0 => r,
                from => r.header(header::RANGE, format!("bytes={from}-")),
            },
        };
        let response = registry.http.send(&call).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), offset) => {}
            StatusCode::OK => self.ingest.restart().map_err(Failure::Store)?,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                self.ingest.restart().map_err(Failure::Store)?;
                return Err(Failure::Network("it could not resume the download".into()));
            }
            status => return Err(Failure::Protocol(format!("status {status} for a blob"))),
        }
        Ok(response)
    }

    async fn receive(
        &mut self,
        registry: &Registry,
        mut response: Response,
    ) -> Result<(), Failure> {
        let (expected, digest) = (self.blob.size, self.blob.digest);
        if let Some(rest) = response.content_length()
            && self.ingest.size().saturating_add(rest) != expected
        {
            return Err(Failure::Size {
                expected,
                actual: self.ingest.size().saturating_add(rest),
            });
        }
        while let Some(chunk) = registry.http.timed(response.chunk()).await? {
            let size = self.ingest.size() + chunk.len() as u64;
            if size > expected {
                self.ingest.restart().map_err(Failure::Store)?;
                return Err(Failure::Size { expected, actual: size });
            }
            self.ingest.write_all(&chunk).map_err(|source| {
                let (doing, path) = ("write blob", digest.hex().into());
                Failure::Store(BlobError::Io { doing, path, source })
            })?;
            self.moved += chunk.len() as u64;
            self.transfer.report(digest, size, expected);
        }
        match self.ingest.size() {
            size if size == expected => Ok(()),
            size => {
                Err(Failure::Network(format!("the connection ended at byte {size} of {expected}")))
            }
        }
    }
}

/// Tells whether a 206 begins where we asked.
fn starts_at(headers: &HeaderMap, offset: u64) -> bool {
    let range = text(headers, &header::CONTENT_RANGE).and_then(|r| r.strip_prefix("bytes "));
    let start = range.and_then(|r| r.split('-').next()).and_then(|s| s.trim().parse().ok());
    offset > 0 && start == Some(offset)
}
