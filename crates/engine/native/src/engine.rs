//! The engine of one process: its stores, its cache, its sandbox, its scheduler.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ashlar_blobs::BlobStore;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::Answer;
use ashlar_core::journal::{Progress, Sink};
use ashlar_core::{Digest, Hasher, Platform};
use ashlar_oci::{
    ImageStore, Images, PullPolicy, Reference, Registry, RegistrySettings, ResolvedImage, Transfer,
};
use ashlar_sandbox::Sandbox;
use ashlar_snapshots::{SnapshotStore, Tree};

use crate::cache::ResultCache;
use crate::dir::DataDir;
use crate::error::{internal, source};
use crate::job::ImageLayers;
use crate::mounts::CacheMounts;
use crate::scheduler::Scheduler;

/// Free space below which no step may go on, unless set otherwise.
pub const DISK_FREE_BYTES_DEFAULT: u64 = 256 << 20;

/// Layers of an image that are fetched and unpacked at once.
const LAYERS_AT_ONCE: usize = 3;

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
    pub(crate) scheduler: Arc<Scheduler>,
    image_layers: Mutex<ImageLayers>,
    resolved: Mutex<BTreeMap<Digest, Arc<ResolvedImage>>>,
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
        let blobs = BlobStore::open(dir.root()).map_err(internal)?;
        let store = ImageStore::open(dir.root()).map_err(internal)?;
        let images = Images::new(blobs, store, Registry::new(config.registries.clone()));
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

    pub(crate) fn image_layers(&self) -> MutexGuard<'_, ImageLayers> {
        self.image_layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resolved(&self) -> MutexGuard<'_, BTreeMap<Digest, Arc<ResolvedImage>>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds an image and remembers where its layers are.
    pub(crate) fn resolve_image(
        &self,
        text: &str,
        platform: &Platform,
        sink: &dyn Sink,
    ) -> Result<Answer, Failure> {
        let reference: Reference = text.parse().map_err(source)?;
        let subject = format!("resolve {reference}");
        sink.progress(Progress { subject, done: 0, total: 0 });
        let pull = self.config.pull;
        let image = self.images.resolve(&reference, platform, pull, &Transfer::quiet());
        let image = Arc::new(image.map_err(|e| {
            let hint = e.hint().map(ToOwned::to_owned);
            Failure { hint, ..source(e) }
        })?);
        if let Some(why) = &image.stale {
            let line = ashlar_core::journal::LogLine::service(
                ashlar_core::journal::Level::Warn,
                format!("{reference}: {why}"),
            );
            sink.event(ashlar_core::journal::Event::Log(line));
        }
        let config = image.image_config().map_err(source)?;
        let manifest = image.id();
        self.resolved().insert(manifest, image);
        Ok(Answer::Image { reference: reference.to_string(), manifest, config: Box::new(config) })
    }

    /// Returns the tree of an image that was resolved before, or is resolved now by its digest.
    pub(crate) fn image_tree(
        &self,
        reference: &str,
        manifest: Digest,
        platform: &Platform,
        sink: &dyn Sink,
    ) -> Result<Tree, Failure> {
        let known = self.resolved().get(&manifest).cloned();
        let image = match known {
            Some(image) => image,
            None => self.resolve_pinned(reference, manifest, platform, sink)?,
        };
        self.image_layers().learn(&image)
    }

    /// Finds an image by its digest: among the local ones by its name, since what was built here may
    /// have no manifest yet, else at its registry.
    fn resolve_pinned(
        &self,
        reference: &str,
        manifest: Digest,
        platform: &Platform,
        sink: &dyn Sink,
    ) -> Result<Arc<ResolvedImage>, Failure> {
        let named: Reference = reference.parse().map_err(source)?;
        let quiet = Transfer::quiet();
        let local = self.images.resolve(&named, platform, PullPolicy::Local, &quiet);
        if let Some(image) = local.ok().filter(|image| image.id() == manifest) {
            let image = Arc::new(image);
            self.resolved().insert(manifest, image.clone());
            return Ok(image);
        }
        let pinned = format!("{}@{manifest}", named.repository());
        self.resolve_image(&pinned, platform, sink)?;
        self.resolved().get(&manifest).cloned().ok_or_else(|| {
            let text = format!("'{reference}' no longer leads to {manifest}");
            source(std::io::Error::other(text))
        })
    }

    /// Brings layers into the snapshot store that are not there yet, a few at a time.
    pub(crate) fn materialise(&self, layers: &[Digest], sink: &dyn Sink) -> Result<(), Failure> {
        let mut missing = Vec::new();
        for id in layers {
            if !self.snapshots.has(id) {
                missing.push(*id);
            }
        }
        match missing.as_slice() {
            [] => Ok(()),
            [one] => self.import(one, sink),
            many => self.import_all(many, sink),
        }
    }

    fn import_all(&self, layers: &[Digest], sink: &dyn Sink) -> Result<(), Failure> {
        let (stop, next) = (AtomicBool::new(false), Mutex::new(layers.iter()));
        let work = || -> Result<(), Failure> {
            while !stop.load(Ordering::Relaxed) {
                let id = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(id) = id else { break };
                self.import(id, sink).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            }
            Ok(())
        };
        let gone = |_| {
            let text = "a thread that unpacked a layer panicked";
            Err(Failure::new(FailureKind::Internal, text))
        };
        std::thread::scope(|scope| {
            let threads = (0..layers.len().min(LAYERS_AT_ONCE)).map(|_| scope.spawn(work));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(gone))
        })
    }

    fn import(&self, id: &Digest, sink: &dyn Sink) -> Result<(), Failure> {
        let place = self.image_layers().0.get(id).cloned();
        let (image, layer) = place.ok_or_else(|| {
            let text = format!("the layer {id} was removed; build again");
            internal(std::io::Error::other(text))
        })?;
        let subject = format!("pull {} {}", image.reference, id.short());
        let report = |p: ashlar_oci::Progress| {
            let subject = subject.clone();
            sink.progress(Progress { subject, done: p.done, total: p.total });
        };
        let transfer = Transfer::quiet().with_progress(&report);
        let blob = self.images.fetch_layer(&image, layer, &transfer).map_err(source)?;
        let file = self.images.blobs().open_read(&blob.digest).map_err(internal)?;
        let origin = image.reference.to_string();
        let options = ashlar_snapshots::ImportOptions { origin, ..Default::default() };
        self.snapshots.import_layer(*id, file, &options).map_err(source)?;
        Ok(())
    }
}
