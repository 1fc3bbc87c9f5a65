//! The engine of one process: its stores, its cache, its sandbox, its scheduler.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use ashlar_blobs::{BlobStore, Remote};
use ashlar_core::failure::Failure;
use ashlar_core::{Digest, Hasher};
use ashlar_oci::pull::Marks;
use ashlar_oci::{ImageStore, Images, PullPolicy, Registry, RegistrySettings, ResolvedImage};
use ashlar_sandbox::{Network, Sandbox};
use ashlar_snapshots::SnapshotStore;

use crate::cache::ResultCache;
use crate::dir::DataDir;
use crate::error::internal;
use crate::job::ImageLayers;
use crate::mounts::CacheMounts;
use crate::request::BuildRequest;
use crate::scheduler::Scheduler;

/// Free space below which no step may go on, unless set otherwise.
pub const DISK_FREE_BYTES_DEFAULT: u64 = 256 << 20;

/// What stands in place of a hidden value begins with.
const HIDDEN_PREFIX: &str = "hidden:";

/// Settings of an engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// How registries are reached.
    pub registries: RegistrySettings,
    /// Whether registries are asked for images.
    pub pull: PullPolicy,
    /// CA certificates that steps shall trust, as a PEM file.
    pub ca_bundle: Option<PathBuf>,
    /// Bytes that stay free on the disk.
    pub disk_free_bytes: u64,
    /// Folder below which git remotes may be plain paths.
    pub git_file_root: Option<PathBuf>,
    /// The store of which the data directory's blobs are a cache.
    pub blob_store: Option<Arc<dyn Remote>>,
    /// Who may read private content, where several machines share that store.
    pub marks: Option<Arc<dyn Marks>>,
}

impl EngineConfig {
    /// Returns the defaults for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            registries: RegistrySettings::default(),
            pull: PullPolicy::Default,
            ca_bundle: None,
            disk_free_bytes: DISK_FREE_BYTES_DEFAULT,
            git_file_root: None,
            blob_store: None,
            marks: None,
        }
    }
}

/// Builds graphs. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What all builds of a process share.
pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    pub(crate) dir: DataDir,
    pub(crate) images: Images,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) cache: ResultCache,
    pub(crate) mounts: CacheMounts,
    pub(crate) sandbox: Arc<dyn Sandbox>,
    /// Whether the sandbox knows that there will be steps.
    expected: Once,
    pub(crate) scheduler: Arc<Scheduler>,
    image_layers: Mutex<ImageLayers>,
    /// By tenant and manifest: what one tenant may have, another one may not.
    resolved: Mutex<BTreeMap<(String, Digest), Arc<ResolvedImage>>>,
    /// Makes hashes of secret values useless to whoever reads the records.
    hash_key: [u8; 32],
}

impl Engine {
    /// Opens the data directory and all that is in it.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(config: EngineConfig, sandbox: Arc<dyn Sandbox>) -> Result<Self, Failure> {
        let dir = DataDir::open(&config.data_dir).map_err(|e| {
            let place = config.data_dir.display();
            internal(std::io::Error::other(format!("cannot use the data directory {place}: {e}")))
        })?;
        let remote = config.blob_store.clone();
        let blobs = BlobStore::open_with(dir.root(), remote).map_err(internal)?;
        let store = ImageStore::open(dir.root()).map_err(internal)?;
        let images = Images::new(blobs, store, Registry::new(config.registries.clone()));
        let images = match &config.marks {
            Some(marks) => images.with_marks(Arc::clone(marks)),
            None => images,
        };
        let snapshots = SnapshotStore::open(dir.snapshots()).map_err(internal)?;
        crate::repair::at_start(&dir, &snapshots)?;
        let hash_key = crate::keyfile::load(&dir.root().join("hash.key")).map_err(internal)?;
        Ok(Self {
            shared: Arc::new(Shared {
                cache: ResultCache::new(&dir.cache()),
                mounts: CacheMounts::new(dir.mounts()),
                config,
                dir,
                images,
                snapshots,
                sandbox,
                expected: Once::new(),
                scheduler: Scheduler::new(),
                image_layers: Mutex::default(),
                resolved: Mutex::default(),
                hash_key,
            }),
        })
    }

    /// The local images and the registries behind them.
    pub fn images(&self) -> &Images {
        &self.shared.images
    }

    /// The layers on disk.
    pub fn snapshots(&self) -> &SnapshotStore {
        &self.shared.snapshots
    }

    /// The named cache directories.
    pub fn cache_mounts(&self) -> &CacheMounts {
        &self.shared.mounts
    }

    /// The cache of results.
    pub fn results(&self) -> &ResultCache {
        &self.shared.cache
    }

    /// Returns what stands for a variable's value in records: a hash that says nothing to those
    /// who lack this machine's key, and another one for each tenant.
    pub fn hidden(&self, tenant: &str, name: &str, value: &str) -> String {
        let mut text = Hasher::new();
        text.field(tenant).field(name).field(value);
        let hash = self.shared.keyed_hash("variable", text.finish().as_bytes());
        format!("{HIDDEN_PREFIX}{}", hash.hex())
    }

    /// Returns a key for one purpose, made of this data directory's own: what is named by it can be
    /// named by nobody else.
    pub fn key_for(&self, purpose: &str) -> Digest {
        self.shared.keyed_hash("purpose", purpose.as_bytes())
    }

    /// The data directory.
    pub fn dir(&self) -> &DataDir {
        &self.shared.dir
    }
}

impl Shared {
    /// Returns a hash of a secret that says nothing to those who lack this machine's key.
    pub(crate) fn keyed_hash(&self, id: &str, value: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.field(self.hash_key).field(id).field(value).field(self.hash_key);
        hasher.finish()
    }

    /// Lets the sandbox make what steps share while the first of them is still being prepared.
    pub(crate) fn expect_step(&self, network: Network) {
        self.expected.call_once(|| {
            let sandbox = Arc::clone(&self.sandbox);
            let expect = move || sandbox.expect(network);
            // Without the thread the step itself makes it.
            let _ = std::thread::Builder::new().name("sandbox".into()).spawn(expect);
        });
    }

    pub(crate) fn image_layers(&self) -> MutexGuard<'_, ImageLayers> {
        self.image_layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the image that a tenant has resolved before.
    pub(crate) fn resolved(&self, view: &Images, manifest: Digest) -> Option<Arc<ResolvedImage>> {
        let key = (view.tenant().unwrap_or_default().to_owned(), manifest);
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// Remembers what a tenant has resolved.
    pub(crate) fn remember(&self, view: &Images, image: Arc<ResolvedImage>) {
        let key = (view.tenant().unwrap_or_default().to_owned(), image.id());
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner).insert(key, image);
    }

    /// Returns the images as a build's tenant sees them.
    pub(crate) fn view(&self, request: &BuildRequest) -> Images {
        let logins = request.credentials.iter();
        let credentials = logins.map(|(host, login)| (host.clone(), login.credential())).collect();
        self.images.for_tenant(&request.tenant, credentials).since(request.asked)
    }
}
