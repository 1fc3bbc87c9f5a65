//! Pushes images from the store: what the registry lacks, blobs before manifests.

use std::collections::{BTreeMap, BTreeSet};

use ashlar_blobs::BlobStore;
use ashlar_core::Digest;
use reqwest::{Method, header};

use super::auth::Scope;
use super::endpoint::Endpoint;
use super::error::{Failure, RegistryError};
use super::http::{Call, text};
use super::upload::Upload;
use super::{PARALLEL_BLOBS, Registry, runtime};
use crate::manifest::Descriptor;
use crate::reference::{Reference, Repository};
use crate::transfer::Transfer;
use crate::walk::{self, Absent};

/// Where blobs of an image that is pushed can also be found.
///
/// The registry copies a blob of another of its repositories by itself; a blob that is not in the
/// store, say of a base image that nobody unpacked, is fetched from there first.
pub type BlobOrigins = BTreeMap<Digest, Repository>;

impl Registry {
    /// Pushes the manifest or index `root`, and all below it, from `store` to `target`.
    ///
    /// # Errors
    /// When the registry refuses or the store does not hold the whole image.
    pub fn push(
        &self,
        target: &Reference,
        root: &Descriptor,
        store: &BlobStore,
        origins: &BlobOrigins,
        transfer: &Transfer<'_>,
    ) -> Result<(), RegistryError> {
        let nodes = walk::documents(store, root, Absent::Refuse)?;
        let mut seen = BTreeSet::new();
        let all = nodes.iter().flat_map(walk::Node::blobs);
        let blobs: Vec<_> = all.filter(|b| seen.insert(b.digest)).collect();
        transfer.parallel(PARALLEL_BLOBS, &blobs, |blob, transfer| {
            let origin = origins.get(&blob.digest);
            self.push_blob(target.repository(), blob, store, origin, transfer)
        })?;
        for node in &nodes {
            let is_root = node.descriptor.digest == root.digest;
            let pinned = target.repository().clone().with_digest(node.descriptor.digest);
            let name = if is_root && target.tag().is_some() { target } else { &pinned };
            self.push_manifest(name, node.document.media_type(), &node.bytes, transfer)?;
        }
        Ok(())
    }

    /// Pushes one blob, unless the registry has it.
    ///
    /// # Errors
    /// When the registry refuses or the blob is not to be had.
    pub fn push_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        store: &BlobStore,
        origin: Option<&Repository>,
        transfer: &Transfer<'_>,
    ) -> Result<(), RegistryError> {
        let same_host = |o: &&Repository| o.host() == repository.host() && *o != repository;
        let mount_from = origin.filter(same_host).map(Repository::path);
        let what = || format!("push blob {} to {repository}", blob.digest);
        let endpoint = Endpoint::origin(self.settings(), repository);
        let mut upload = Upload::new(blob, store, mount_from);
        let is_there = self.try_endpoints(endpoint.clone(), transfer, what, |endpoint| {
            runtime::run(transfer, upload.probe(self, endpoint)).map_err(|f| (f, 0))
        })?;
        if !is_there {
            if let Some(origin) = origin.filter(|_| !store.has(&blob.digest).unwrap_or(false)) {
                self.fetch_blob(origin, blob, store, transfer)?;
            }
            self.try_endpoints(endpoint, transfer, what, |endpoint| {
                let result = runtime::run(transfer, upload.run(self, endpoint, transfer));
                result.map_err(|failure| (failure, upload.moved()))
            })?;
        }
        transfer.report(blob.digest, blob.size, blob.size);
        Ok(())
    }

    /// Pushes a manifest or index by its tag, or by its digest when `reference` has no tag.
    ///
    /// # Errors
    /// When the registry refuses.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
        transfer: &Transfer<'_>,
    ) -> Result<Digest, RegistryError> {
        let expected = Digest::of(bytes);
        let selector = reference.tag().map_or_else(|| expected.to_string(), str::to_owned);
        let what = || format!("push manifest {reference}");
        let endpoint = Endpoint::origin(self.settings(), reference.repository());
        self.try_endpoints(endpoint, transfer, what, |endpoint| {
            let put = async {
                let scope = Scope::push(endpoint, None);
                let call = Call {
                    endpoint,
                    scope: &scope,
                    method: Method::PUT,
                    url: endpoint.url(&format!("manifests/{selector}")),
                    fill: &|r| r.header(header::CONTENT_TYPE, media_type).body(bytes.to_vec()),
                };
                let limit = self.settings().stall_timeout;
                let sent = tokio::time::timeout(limit, self.http.send(&call)).await;
                let response = sent.map_err(|_| Failure::Stalled(limit))??;
                match text(response.headers(), &super::manifests::DOCKER_CONTENT_DIGEST) {
                    Some(said) if said.parse() != Ok(expected) => {
                        Err(Failure::Protocol("it stored the manifest under another digest".into()))
                    }
                    _ if response.status().is_success() => Ok(expected),
                    _ => Err(Failure::Protocol(format!("status {}", response.status()))),
                }
            };
            runtime::run(transfer, put).map_err(|f| (f, 0))
        })
    }
}
