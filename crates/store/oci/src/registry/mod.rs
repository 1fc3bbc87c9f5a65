//! A client for registries (OCI distribution spec 1.1).
//!
//! All functions block. The network runs on a small runtime that starts with the first request;
//! do not call from inside an async task (`spawn_blocking` is fine).
//!
//! An operation tries the mirrors of its host in order, then the host itself; at each it is tried
//! again after failures that may pass (network, 429, 5xx), never after other refusals. When all
//! fail, the error names each endpoint and why it failed.

mod auth;
mod challenge;
mod credentials;
mod docker_config;
mod download;
mod ecr;
mod egress;
mod endpoint;
mod error;
mod fetch;
mod http;
mod manifests;
mod push;
mod retry;
mod runtime;
mod settings;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use credentials::Credential;
pub use docker_config::default_docker_config;
pub use download::{Downloaded, Validators};
pub use ecr::{AwsKey, EcrError};
pub use egress::{Egress, EgressError, EgressRefused, EgressRule, EgressRuleError};
pub use error::{EndpointFailure, Failure, RegistryError};
pub use manifests::FetchedManifest;
pub use push::BlobOrigins;
pub use settings::{Mirror, RegistrySettings, SettingsError};

/// Most blobs that one pull or push moves at once.
pub const PARALLEL_BLOBS: usize = 3;

/// Speaks to registries. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    http: Arc<http::Http>,
}

impl Registry {
    /// Makes a client. Nothing is read or connected to before the first request.
    pub fn new(settings: RegistrySettings) -> Self {
        Self { http: Arc::new(http::Http::new(settings)) }
    }

    /// Returns a client that shows these credentials to their hosts, and shares connections with
    /// this one but no tokens.
    #[must_use]
    pub fn with_credentials(&self, credentials: BTreeMap<String, Credential>) -> Self {
        Self { http: Arc::new(self.http.with_credentials(credentials)) }
    }

    /// Returns the settings that the client was made with.
    pub fn settings(&self) -> &RegistrySettings {
        self.http.settings()
    }
}
