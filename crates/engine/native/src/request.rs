//! What a caller asks of the engine, and what it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ashlar_core::Digest;
use ashlar_core::frontend::Frontend;
use ashlar_core::graph::{MountKind, Network};
use ashlar_core::image::ImageConfig;
use ashlar_core::journal::Sink;
use ashlar_oci::{Credential, LayerRef};
use ashlar_snapshots::Tree;

use crate::log::Masker;

/// One build.
pub struct BuildRequest {
    /// Turns the definition into a graph.
    pub frontend: Arc<dyn Frontend>,
    /// Whose build it is. What a secret, a volume or the network could influence is shared within
    /// a tenant only.
    pub tenant: String,
    /// Within the tenant, what shares cache volumes and is compared when a step missed.
    pub scope: String,
    /// What the definition is called, so that its next build is compared with this one.
    pub name: String,
    /// The build's id, for `ashlar debug`.
    pub build: String,
    /// Directories that the definition may copy from, by name.
    pub contexts: BTreeMap<String, PathBuf>,
    /// Secrets by id. Their values are in no key and no record; what steps write of them is masked.
    /// That a secret was given is a part of the keys of what it is mounted into.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Values of variables by what stands in their place in the definition ([`crate::Engine::hidden`]):
    /// steps see the values, keys and records only the stand-ins.
    pub hidden: BTreeMap<String, String>,
    /// Logins of registries by host as references name it (`docker.io`, `registry.example:5000`),
    /// for this build's pulls only. What they give is read by this tenant alone.
    pub credentials: BTreeMap<String, RegistryLogin>,
    /// Whether registries are asked for newer base images, also where a local image has the name or
    /// they cannot be reached; otherwise the engine's own way holds.
    pub pull: bool,
    /// When it was asked for: what a tag of a base image led to at some time since then counts.
    pub asked: Instant,
    /// Sockets of ssh agents by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// What steps may use up.
    pub limits: BuildLimits,
    /// What steps see of the network when the definition does not say.
    pub network: Network,
    /// Privileges that were granted: `network.host`, `security.insecure`.
    pub entitlements: BTreeSet<String>,
    /// What else tells the definition from others: a build with another identity, or with none, does
    /// not answer this one as a whole, though its steps may.
    pub identity: Option<Digest>,
    /// Times of the result after this one, in seconds since 1970, become this one, so that two
    /// builds of the same inputs give the same bytes (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
    /// Takes what happens.
    pub sink: Arc<dyn Sink>,
}

impl BuildRequest {
    /// Says of a secret or ssh agent whether the build has it; of other mounts nothing.
    pub(crate) fn was_given(&self, kind: &MountKind) -> Option<bool> {
        match kind {
            MountKind::Secret { id, .. } => Some(self.secrets.contains_key(id)),
            MountKind::Ssh { id, .. } => Some(self.ssh.contains_key(id)),
            _ => None,
        }
    }

    /// Returns what removes from logs whatever nobody may read there: secrets, passwords of logins,
    /// and the values of hidden variables.
    pub fn masker(&self) -> Masker {
        self.masker_beside(b"")
    }

    /// As [`Self::masker`], but for values of variables that stand in `said`, which is what the
    /// definition says for all to read.
    pub fn masker_beside(&self, said: &[u8]) -> Masker {
        let secrets = self.secrets.values().map(Vec::as_slice);
        let logins = self.credentials.values().map(|login| login.password.as_bytes());
        let hidden = self.hidden.values().map(String::as_bytes);
        Masker::new(secrets.chain(logins)).and_variables(hidden, said)
    }
}

/// A user name and a password for a registry; or the user `<token>` and a refresh token, as Docker's
/// credential helpers say it.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl RegistryLogin {
    /// Returns what proves it to the registry.
    pub fn credential(&self) -> Credential {
        Credential::of_login(self.username.clone(), self.password.clone())
    }
}

impl fmt::Debug for RegistryLogin {
    /// Shows no secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryLogin({}, hidden)", self.username)
    }
}

/// Limits of a build's steps, each step by itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BuildLimits {
    /// Memory of a step's processes, in bytes.
    pub memory_bytes: Option<u64>,
    /// Processor time per wall time.
    pub cpus: Option<f64>,
    /// Processes and threads of a step.
    pub pids: Option<u64>,
    /// Bytes that a step may write to disk.
    pub disk_bytes: Option<u64>,
    /// Wall time of a step.
    pub timeout: Option<Duration>,
    /// Bytes that a step may write to its output.
    pub output_bytes: Option<u64>,
}

/// What a build came to.
#[derive(Debug, Clone)]
pub struct Built {
    /// The file tree.
    pub tree: Tree,
    /// Its layers as an image's, bottom first.
    pub layers: Vec<LayerRef>,
    /// The image config without diff ids; its history agrees with `layers`.
    pub config: ImageConfig,
    /// Key of the final artifact: equal for builds that are sure to be equal.
    pub key: Digest,
    /// Whether the whole build was answered from the final-artifact cache.
    pub from_cache: bool,
    /// Files that exec operations handed back as data, by name, of the step that ran last.
    pub returned: BTreeMap<String, Vec<u8>>,
}
