//! What a caller asks of the frontend.

use std::collections::{BTreeMap, BTreeSet};

use ashlar_core::Platform;
use ashlar_core::graph::{ExtraHost, Network, Ulimit};
use serde::{Deserialize, Serialize};

/// One Dockerfile build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The Dockerfile's name as messages show it, for example `Dockerfile`.
    pub file_name: String,
    /// Where its text is.
    pub source: Source,
    /// Name of the main context in the graph: what `COPY` without `--from` reads.
    pub context: String,
    /// The stage to build; the last one when absent.
    pub target: Option<String>,
    /// Values of `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// The platform of the result; the build platform when absent, and then a base image of
    /// another platform decides what the result says of itself.
    pub platform: Option<Platform>,
    /// The platform that steps run on.
    pub build_platform: Platform,
    /// Contexts that stand in for stages and images of their names (`--build-context`). One under
    /// the name of the main context replaces it.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// Labels that the result gets on top.
    pub labels: BTreeMap<String, String>,
    /// Which steps must run again.
    pub no_cache: NoCache,
    /// The network of `RUN` without `--network`.
    pub network: Network,
    /// Lines of `/etc/hosts` for every `RUN`.
    pub extra_hosts: Vec<ExtraHost>,
    /// Size of `/dev/shm` in bytes for every `RUN`.
    pub shm_bytes: Option<u64>,
    /// Resource limits for every `RUN`.
    pub ulimits: Vec<Ulimit>,
    /// Host name for every `RUN`.
    pub hostname: String,
    /// Variables that every `RUN` gets on top; not in the image.
    pub build_envs: Vec<(String, String)>,
    /// What steps may do beyond the usual.
    pub allow: BTreeSet<Entitlement>,
    /// Time of the result and its history, in seconds since 1970.
    pub source_date_epoch: Option<i64>,
    /// Whether the main context is taken as it is, without regard to a `.dockerignore` in it: of a
    /// client that has left out itself what is not wanted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_ignore_files: bool,
}

impl Request {
    /// Returns a request that builds the last stage of a text for this machine.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Source::Text(text.into()))
    }

    /// Returns a request that builds the last stage for this machine.
    pub fn new(source: Source) -> Self {
        let file_name = match &source {
            Source::Text(_) => "Dockerfile".to_owned(),
            Source::Context { path, .. } => path.clone(),
        };
        Self {
            file_name,
            source,
            context: "context".into(),
            target: None,
            build_args: BTreeMap::new(),
            platform: None,
            build_platform: Platform::host(),
            named_contexts: BTreeMap::new(),
            labels: BTreeMap::new(),
            no_cache: NoCache::None,
            network: Network::Default,
            extra_hosts: Vec::new(),
            shm_bytes: None,
            ulimits: Vec::new(),
            hostname: String::new(),
            build_envs: Vec::new(),
            allow: BTreeSet::new(),
            source_date_epoch: None,
            no_ignore_files: false,
        }
    }
}

/// Where a Dockerfile's text is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Here.
    Text(String),
    /// In a file of a context.
    Context {
        /// Name of the context.
        context: String,
        /// Path relative to its root.
        path: String,
    },
}

/// What stands in for a stage or an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamedContext {
    /// An image by reference; `scratch` is the empty tree.
    Image(String),
    /// A directory that the client supplies under this name.
    Directory(String),
    /// A git repository, as `ADD` takes it (`URL#ref:subdir`).
    Git(String),
}

/// Which steps must run again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoCache {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// Those of the stages of these names.
    Stages(BTreeSet<String>),
}

/// Something that a build must be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Entitlement {
    /// `RUN --network=host`.
    #[serde(rename = "network.host")]
    NetworkHost,
    /// `RUN --security=insecure`.
    #[serde(rename = "security.insecure")]
    SecurityInsecure,
}

impl Entitlement {
    /// Returns its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetworkHost => "network.host",
            Self::SecurityInsecure => "security.insecure",
        }
    }
}
