//! What is sent to have something built.

use std::collections::BTreeMap;
use std::fmt;

use ashlar_core::graph::{ExtraHost, Network, Ulimit};
use ashlar_core::{Digest, Platform};
use serde::Serialize;

/// A Dockerfile build. What is absent is left to the server.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Submission {
    /// A name for people.
    pub name: String,
    /// What shares a queue, caches and a history.
    pub scope: String,
    /// The Dockerfile's text, when it is in no context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// Where the Dockerfile is in its context, or what its text is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile_path: Option<String>,
    /// The context that the Dockerfile is in, when it is not the main one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile_context: Option<String>,
    /// The main context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Digest>,
    /// Other contexts that were uploaded.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: BTreeMap<String, Digest>,
    /// What stands in for stages and images.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// The stage to build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Build arguments.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub build_args: BTreeMap<String, String>,
    /// Labels of the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub image_labels: BTreeMap<String, String>,
    /// The platform of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Whether every step is built anew.
    pub no_cache: bool,
    /// The stages whose steps are built anew.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_cache_stages: Vec<String>,
    /// Whether registries are asked for newer base images, also where the server has one of the name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pull: bool,
    /// What steps see of the network.
    pub network: Network,
    /// Lines of `/etc/hosts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<ExtraHost>,
    /// Size of `/dev/shm` in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
    /// Resource limits of processes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<Ulimit>,
    /// Limits of steps, by the API's names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<&'static str, serde_json::Value>,
    /// Times of the result after this one, in seconds since 1970, become this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_date_epoch: Option<i64>,
    /// Names at the server that lead to the build once it has succeeded, each `name:tag`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Labels of the build.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where the image is pushed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<RegistryOutput>,
    /// Values of secrets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretValue>,
    /// Logins at registries by host.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, RegistryAccess>,
    /// What shall run it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Makes a repetition of the request safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// What stands in for a stage or an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedContext {
    /// An image.
    Image(String),
    /// A repository, as `ADD` takes it.
    Git(String),
    /// A context that was uploaded under this name.
    Directory(String),
}

/// A push of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegistryOutput {
    /// Always `registry`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The names that it gets, with their registries.
    pub names: Vec<String>,
    /// `gzip`, `zstd` or `uncompressed`.
    pub compression: &'static str,
    /// How hard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
    /// Annotations of the manifest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The value of a secret: text, or bytes that are none.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum SecretValue {
    /// Text.
    Text(String),
    /// Anything, in base64.
    Bytes {
        /// The bytes.
        base64: String,
    },
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(hidden)")
    }
}

/// A login at a registry.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RegistryAccess {
    /// A user name and a password, or a token in its place.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
}

impl fmt::Debug for RegistryAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryAccess(hidden)")
    }
}

/// One entry of a context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContextEntry {
    /// Relative path with `/`.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: ContextEntryKind,
    /// Permission bits.
    pub mode: u32,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ContextEntryKind {
    /// A regular file.
    File {
        /// Digest of its bytes.
        digest: Digest,
        /// Number of its bytes.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// Where it leads.
        target: String,
    },
}
