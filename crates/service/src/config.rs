//! Settings of the service.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ashlar_blobs::Remote;
use ashlar_core::graph::Network;
use ashlar_native::BuildLimits;
use ashlar_oci::RegistrySettings;
use ashlar_records::{LEASE, Retention, TokenText};

use crate::{BuildkitAddress, Executor, Observer, UploadLimits};

/// Builds that one process runs at once: builds wait on networks, so this does not hang on cores.
pub const SLOTS_DEFAULT: usize = 8;
/// What the log of one attempt at a build may hold, in bytes.
pub const LOG_CAP_DEFAULT: u64 = 4 << 30;
/// How long a drain lets running builds go on.
const DRAIN_DEFAULT: Duration = Duration::from_secs(30);

/// Settings of the service.
#[derive(Clone)]
pub struct ServiceConfig {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// A `postgres://` address; a SQLite file in the data directory when absent.
    pub database: Option<String>,
    /// Connections to PostgreSQL that this process uses at most, but for the one that listens;
    /// [`ashlar_records::CONNECTIONS_DEFAULT`] when absent.
    pub database_connections: Option<NonZeroU32>,
    /// Builds that run at once in this process; 0 for a server without workers.
    pub slots: usize,
    /// How registries are reached.
    pub registries: RegistrySettings,
    /// The admin's token; made and kept in the data directory when absent.
    pub admin_token: Option<TokenText>,
    /// Keys for secrets at rest (64 hexadecimal digits each); kept in a file when absent.
    pub secrets_key: Option<String>,
    /// Limits that no definition can raise.
    pub limits: BuildLimits,
    /// What the log of one attempt at a build may hold, in bytes; of more the first and the last
    /// bytes are kept.
    pub log_cap: u64,
    /// What steps see of the network when the definition does not say.
    pub network: Network,
    /// CA certificates that steps trust, as a PEM file.
    pub ca_bundle: Option<PathBuf>,
    /// Folder below which git remotes may be plain paths.
    pub git_file_root: Option<PathBuf>,
    /// The store that all servers and workers of a database share; the data directory is a cache
    /// of it then, and all there is when absent.
    pub blob_store: Option<Arc<dyn Remote>>,
    /// How long a worker that is not heard of is believed to be alive.
    pub lease: Duration,
    /// How long builds are kept unless somebody says otherwise.
    pub retention: Retention,
    /// How long a drain lets running builds go on.
    pub drain: Duration,
    /// Requests per second and tenant, and per address for those who come without a good token;
    /// no bound when absent. Never 0: nobody could do anything then, and a wait would have no end.
    pub requests_per_second: Option<NonZeroU32>,
    /// How many uploads there may be at once.
    pub uploads: UploadLimits,
    /// Stands in for the native executor.
    pub executor: Option<Arc<dyn Executor>>,
    /// The address for links that are made with no request at hand, without a slash at the end.
    pub public_url: Option<String>,
    /// Is told how builds went.
    pub observer: Option<Arc<dyn Observer>>,
    /// BuildKit daemons; Dockerfiles go there when there are any.
    pub buildkit: Vec<BuildkitAddress>,
    /// Executors that are taken before the native one for what they serve, the first first.
    pub executors: Vec<Arc<dyn Executor>>,
}

impl ServiceConfig {
    /// Returns the defaults for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            database: None,
            database_connections: None,
            slots: SLOTS_DEFAULT,
            registries: RegistrySettings::default(),
            admin_token: None,
            secrets_key: None,
            limits: BuildLimits::default(),
            log_cap: LOG_CAP_DEFAULT,
            network: Network::Isolated,
            ca_bundle: None,
            git_file_root: None,
            blob_store: None,
            lease: LEASE,
            retention: Retention::default(),
            drain: DRAIN_DEFAULT,
            requests_per_second: None,
            uploads: UploadLimits::default(),
            executor: None,
            public_url: None,
            observer: None,
            buildkit: Vec::new(),
            executors: Vec::new(),
        }
    }
}
