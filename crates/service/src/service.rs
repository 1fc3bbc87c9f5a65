//! The open service.

use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ashlar_blobs::BlobStore;
use ashlar_buildkit::{BUILDKIT_KEY, Buildkit};
use ashlar_core::identity::Role;
use ashlar_core::{Digest, WorkerId};
use ashlar_native::gc::WorkLease;
use ashlar_native::{DataDir, Engine, EngineConfig};
use ashlar_oci::pull::Marks;
use ashlar_records::{KeyRing, Options, Store, TokenText, new_build_id, now, records_file};
use ashlar_sandbox::{NativeConfig, NativeSandbox};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::buildkit::OnBuildkit;
use crate::contexts::Contexts;
use crate::executor::{Executors, Native};
use crate::grants::Grants;
use crate::marks::SharedMarks;
use crate::metrics::Counters;
use crate::own_store;
use crate::places::Places;
use crate::rates::Rates;
use crate::retention::RetentionState;
use crate::segments::Segments;
use crate::token_file;
use crate::worker::Workers;
use crate::workflow::Runs;
use crate::{Actor, Away, Error, Executor, ServiceConfig};

/// The tenant that the admin belongs to.
const TENANT_DEFAULT: &str = "default";
/// The admin's name.
const ADMIN: &str = "admin";
/// How long whoever asks whether the service is ready waits for the database, and for the blob
/// store. Those who ask give up soon themselves.
pub(crate) const READY_MAX: Duration = Duration::from_secs(2);

/// The build service of one process. Shared as an [`Arc`].
pub struct Service {
    config: ServiceConfig,
    store: Store,
    keys: KeyRing,
    engine: Engine,
    executors: Executors,
    grants: Grants,
    contexts: Contexts,
    workers: Workers,
    counters: Counters,
    retention: RetentionState,
    rates: Rates,
    places: Places,
    runs: Runs,
    admin: Actor,
    admin_hash: Digest,
    /// Held as long as the process lives: two servers in one data directory would take each
    /// other's builds for lost.
    _lock: File,
    /// Held as long as the service lives: what has just been stored is granted a moment later, and
    /// garbage may be collected in between.
    _work: WorkLease,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("data_dir", &self.config.data_dir).finish_non_exhaustive()
    }
}

impl Service {
    /// Opens the data directory and the database. Workers do not run before [`Service::start`].
    ///
    /// # Errors
    /// When a directory, key, token or database cannot be used, or another server uses the data
    /// directory.
    pub async fn open(config: ServiceConfig) -> Result<Arc<Self>, Error> {
        let setup = config.clone();
        let parts = tokio::task::spawn_blocking(move || open_disk(&setup));
        let disk = parts.await.map_err(Error::internal)??;
        let database = match &config.database {
            Some(url) => url.clone(),
            None => {
                let root = disk.root.clone();
                let found = tokio::task::spawn_blocking(move || records_file(&root)).await;
                found.map_err(Error::internal)??.display().to_string()
            }
        };
        let options = Options { connections: config.database_connections, ..Options::default() };
        let store = Store::open_with(&database, options).await?.with_lease(config.lease);
        if config.database.is_some() {
            store.check_key(&disk.keys).await?;
            own_store::check(&store, config.blob_store.as_ref()).await?;
        }
        // Builds of an earlier process of this data directory: the lock says that it is dead.
        let lost = store.lose_worker(disk.worker).await?;
        if lost > 0 {
            tracing::info!(builds = lost, "an earlier server ended with builds at work");
        }
        let admin = open_admin(&store).await?;
        let shared = config.blob_store.is_some().then(|| (store.clone(), Handle::current()));
        if let Some((store, runtime)) = &shared {
            disk.marks.connect(store.clone(), runtime.clone());
            let images = disk.engine.images().clone();
            let marks = tokio::task::spawn_blocking(move || images.share_marks());
            marks.await.map_err(Error::internal)?.map_err(Error::internal)?;
        }
        let grants = Grants::new(disk.root.join("grants"), shared);
        let blobs = disk.engine.images().blobs().clone();
        let segments = Segments { blobs, grants: grants.clone() };
        let store = store.with_segments(Arc::new(segments));
        Ok(Arc::new(Self {
            keys: disk.keys,
            executors: disk.executors,
            engine: disk.engine,
            grants,
            contexts: disk.contexts,
            workers: Workers::new(disk.worker, config.slots),
            counters: Counters::new()?,
            retention: RetentionState::default(),
            rates: Rates::new(config.requests_per_second),
            places: Places::new(config.uploads),
            runs: Runs::default(),
            admin,
            admin_hash: Digest::of(disk.token.expose()),
            _lock: disk.lock,
            _work: disk.work,
            store,
            config,
        }))
    }

    /// Returns where the admin's token is kept, when it was not given.
    pub fn token_path(&self) -> Option<PathBuf> {
        let made = self.config.admin_token.is_none();
        made.then(|| token_file::path(&self.config.data_dir))
    }

    /// Returns the actor that the admin's own token stands for: for work that no client asked for.
    pub fn admin(&self) -> &Actor {
        &self.admin
    }

    pub(crate) fn admin_hash(&self) -> Digest {
        self.admin_hash
    }

    pub(crate) fn config(&self) -> &ServiceConfig {
        &self.config
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn keys(&self) -> &KeyRing {
        &self.keys
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The blobs of this data directory, and of the store behind it.
    pub(crate) fn blobs(&self) -> &BlobStore {
        self.engine.images().blobs()
    }

    pub(crate) fn executors(&self) -> &Executors {
        &self.executors
    }

    pub(crate) fn grants(&self) -> &Grants {
        &self.grants
    }

    pub(crate) fn contexts(&self) -> &Contexts {
        &self.contexts
    }

    pub(crate) fn workers(&self) -> &Workers {
        &self.workers
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn runs(&self) -> &Runs {
        &self.runs
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.rates
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    pub(crate) fn retention_state(&self) -> &RetentionState {
        &self.retention
    }

    /// Runs work that blocks (files, hashing, the engine) beside the async threads.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let service = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&service));
        done.await.map_err(Error::internal)?
    }

    /// Says whether the database and the blob store answer, in [`READY_MAX`] at the latest.
    ///
    /// # Errors
    /// When one does not.
    pub async fn check_ready(self: &Arc<Self>) -> Result<(), Error> {
        if self.workers.is_draining() {
            return Err(Error::Unavailable("the server is shutting down".into()));
        }
        within(READY_MAX, Away::Database, async { Ok(self.store.waiting().await?) }).await?;
        let blobs = self.blocking(|service| Ok(service.blobs().check_remote()?));
        within(READY_MAX, Away::BlobStore, blobs).await
    }

    /// Returns the link to a path of this server that is made with no request at hand; none when
    /// the operator gave no address for such links.
    pub fn public_link(&self, path: &str) -> Option<String> {
        self.config.public_url.as_ref().map(|url| format!("{url}{path}"))
    }
}

/// Waits so long for something that may not answer.
pub(crate) async fn within<T>(
    time: Duration,
    what: Away,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(time, answer).await.unwrap_or(Err(Error::Away(what)))
}

/// What lies in the data directory.
struct Disk {
    root: PathBuf,
    lock: File,
    work: WorkLease,
    worker: WorkerId,
    token: TokenText,
    keys: KeyRing,
    engine: Engine,
    executors: Executors,
    contexts: Contexts,
    marks: Arc<SharedMarks>,
}

fn open_disk(config: &ServiceConfig) -> Result<Disk, Error> {
    let marks = Arc::new(SharedMarks::default());
    let engine = open_engine(config, &marks)?;
    let root = engine.dir().root().to_owned();
    let lock = lock(&root)?;
    let keys = match &config.secrets_key {
        Some(text) => KeyRing::parse(text).map_err(|e| Error::invalid("ASHLAR_SECRETS_KEY", e))?,
        None => KeyRing::load_or_create(&root.join("secrets.key"))?,
    };
    let native = config.executor.clone();
    let native = native.unwrap_or_else(|| Arc::new(Native(engine.clone())));
    Ok(Disk {
        work: engine.work_lease().map_err(Error::internal)?,
        worker: worker_id(&root)?,
        token: token_file::load(&root, config.admin_token.clone())?,
        keys,
        executors: Executors::new(native, preferred(config, &engine)?),
        contexts: Contexts::open(root.join("contexts"))?,
        engine,
        lock,
        root,
        marks,
    })
}

/// Returns the executors that are taken before the native one.
fn preferred(config: &ServiceConfig, engine: &Engine) -> Result<Vec<Arc<dyn Executor>>, Error> {
    let mut preferred = config.executors.clone();
    if !config.buildkit.is_empty() {
        let daemons = Buildkit::new(config.buildkit.clone()).map_err(Error::internal)?;
        let daemons = daemons.with_key(engine.key_for(BUILDKIT_KEY));
        let (engine, limits) = (engine.clone(), config.limits.clone());
        preferred.push(Arc::new(OnBuildkit { daemons, engine, limits }));
    }
    Ok(preferred)
}

fn open_engine(config: &ServiceConfig, marks: &Arc<SharedMarks>) -> Result<Engine, Error> {
    // Before the sandbox makes a folder in it: it is made private.
    let dir = DataDir::open(&config.data_dir).map_err(Error::internal)?;
    let sandbox = NativeConfig::new(dir.root().join("sandbox"));
    let sandbox = NativeSandbox::new(&sandbox).map_err(Error::internal)?;
    let mut engine = EngineConfig::new(dir.root());
    engine.registries = config.registries.clone();
    engine.ca_bundle.clone_from(&config.ca_bundle);
    engine.git_file_root.clone_from(&config.git_file_root);
    engine.blob_store.clone_from(&config.blob_store);
    if config.blob_store.is_some() {
        engine.marks = Some(Arc::clone(marks) as Arc<dyn Marks>);
    }
    Engine::open(engine, Arc::new(sandbox)).map_err(Error::internal)
}

fn lock(root: &std::path::Path) -> Result<File, Error> {
    let path = root.join("serve.lock");
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(Error::internal)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let place = root.display();
            Err(Error::internal(format!("another server uses the data directory {place}")))
        }
        Err(TryLockError::Error(e)) => Err(Error::internal(e)),
    }
}

/// Returns the id of the workers of this data directory, the same at every start.
fn worker_id(root: &std::path::Path) -> Result<WorkerId, Error> {
    let path = root.join("worker-id");
    if let Ok(text) = std::fs::read_to_string(&path)
        && let Ok(id) = text.trim().parse()
    {
        return Ok(id);
    }
    let id = WorkerId::from_uuid(new_build_id(now())?.uuid());
    std::fs::write(&path, id.to_string()).map_err(Error::internal)?;
    Ok(id)
}

async fn open_admin(store: &Store) -> Result<Actor, Error> {
    use ashlar_records::Error as StoreError;
    let tenant = match store.tenant_named(TENANT_DEFAULT).await? {
        Some(tenant) => tenant,
        None => match store.add_tenant(TENANT_DEFAULT, now()).await {
            // Another server of the same database was faster.
            Err(StoreError::Taken { .. }) => store
                .tenant_named(TENANT_DEFAULT)
                .await?
                .ok_or_else(|| Error::not_found("tenant", TENANT_DEFAULT))?,
            other => other?,
        },
    };
    let principal = match store.principal_named(tenant.id, ADMIN).await? {
        Some(principal) => principal,
        None => match store.add_principal(tenant.id, ADMIN, "root@localhost", now()).await {
            Err(StoreError::Taken { .. }) => store
                .principal_named(tenant.id, ADMIN)
                .await?
                .ok_or_else(|| Error::not_found("principal", ADMIN))?,
            other => other?,
        },
    };
    Ok(Actor { tenant, principal, role: Role::Admin, token: None })
}
