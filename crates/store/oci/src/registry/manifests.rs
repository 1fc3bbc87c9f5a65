//! Asks registries for manifests.

use ashlar_core::Digest;
use reqwest::Method;
use reqwest::header::{self, HeaderName};

use super::auth::Scope;
use super::endpoint::Endpoint;
use super::error::{Failure, RegistryError};
use super::http::{Call, text};
use super::{Registry, runtime};
use crate::manifest::{Descriptor, Document, MANIFEST_BYTES_MAX};
use crate::media_type as mt;
use crate::reference::Reference;
use crate::transfer::Transfer;

pub(super) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");

/// A manifest or index, with the bytes that its digest names.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchedManifest {
    /// Type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes as they came.
    pub bytes: Vec<u8>,
    /// What the bytes say.
    pub document: Document,
}

fn accept() -> String {
    [mt::OCI_INDEX, mt::OCI_MANIFEST, mt::DOCKER_INDEX, mt::DOCKER_MANIFEST].join(", ")
}

impl Registry {
    /// Asks what digest a reference leads to now, without reading the manifest. Nothing when the
    /// registry does not say; reading the manifest tells then.
    ///
    /// # Errors
    /// When no endpoint answers with success.
    pub fn head_manifest(
        &self,
        reference: &Reference,
        transfer: &Transfer<'_>,
    ) -> Result<Option<Digest>, RegistryError> {
        let endpoints = Endpoint::all(self.settings(), reference.repository());
        let what = || format!("look up {reference}");
        self.try_endpoints(endpoints, transfer, what, |endpoint| {
            let ask = async {
                let response = self.ask_manifest(endpoint, reference, Method::HEAD).await?;
                let digest = text(response.headers(), &DOCKER_CONTENT_DIGEST);
                Ok(digest.and_then(|d| d.parse().ok()))
            };
            runtime::run(transfer, ask).map_err(|f| (f, 0))
        })
    }

    /// Reads the manifest or index that a reference leads to, and checks its digest.
    ///
    /// # Errors
    /// When no endpoint gives a manifest that can be used.
    pub fn manifest(
        &self,
        reference: &Reference,
        transfer: &Transfer<'_>,
    ) -> Result<FetchedManifest, RegistryError> {
        let endpoints = Endpoint::all(self.settings(), reference.repository());
        let what = || format!("read the manifest of {reference}");
        self.try_endpoints(endpoints, transfer, what, |endpoint| {
            runtime::run(transfer, self.read_manifest(endpoint, reference)).map_err(|f| (f, 0))
        })
    }

    async fn ask_manifest(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        method: Method,
    ) -> Result<reqwest::Response, Failure> {
        let scope = Scope::pull(endpoint);
        let call = Call {
            endpoint,
            scope: &scope,
            method,
            url: endpoint.url(&format!("manifests/{}", reference.selector())),
            fill: &|r| r.header(header::ACCEPT, accept()),
        };
        self.http.send(&call).await
    }

    async fn read_manifest(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
    ) -> Result<FetchedManifest, Failure> {
        let response = self.ask_manifest(endpoint, reference, Method::GET).await?;
        let declared = text(response.headers(), &DOCKER_CONTENT_DIGEST);
        let expected = reference.digest().or_else(|| declared.and_then(|d| d.parse().ok()));
        let content_type = text(response.headers(), &header::CONTENT_TYPE).map(str::to_owned);
        let bytes = self.http.body(response, MANIFEST_BYTES_MAX).await?;
        let actual = Digest::of(&bytes);
        if let Some(expected) = expected.filter(|e| *e != actual) {
            return Err(Failure::Digest { expected, actual });
        }
        let document = Document::parse(&bytes, content_type.as_deref())?;
        let descriptor = Descriptor::new(document.media_type(), actual, bytes.len() as u64);
        Ok(FetchedManifest { descriptor, bytes, document })
    }
}
