//! Daemons, a store for images, and what was told of a build.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use ashlar_blobs::BlobStore;
use ashlar_buildkit::{Address, Buildkit, Job, Made};
use ashlar_core::failure::Failure;
use ashlar_core::frontend::{Answers, Diagnostic, Frontend, Lowered};
use ashlar_core::graph::Network;
use ashlar_core::image::ImageConfig;
use ashlar_core::journal::{Event, LogText, Sink, StepOutcome};
use ashlar_frontend_dockerfile::{Request, Source};
use ashlar_native::{BuildLimits, BuildRequest};
use ashlar_oci::{ImageStore, Images, Registry, RegistrySettings};
use ashlar_sandbox::Cancel;
use tempfile::TempDir;

/// The two Docker daemons of `scripts/peers`.
pub(crate) const STORES: [&str; 2] = ["classic", "store"];

/// How many names are tried until a build comes to one daemon of two.
pub(crate) const NAMES_MAX: usize = 30;

pub(crate) fn peers_home() -> PathBuf {
    std::env::var_os("ASHLAR_PEERS_DIR").unwrap_or("/var/tmp/ashlar-peers".into()).into()
}

/// Starts the registry and both daemons, once; they go on running, as for the other tests.
pub(crate) fn peers() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        script(&["start", "registry", "store", "classic"], &[]);
    });
}

/// Runs `scripts/peers`.
pub(crate) fn script(args: &[&str], env: &[(&str, &str)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../scripts/peers");
    let done = Command::new(&path).args(args).envs(env.iter().copied()).output();
    let done = done.unwrap_or_else(|e| panic!("{}: {e}; install python3", path.display()));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "scripts/peers {args:?} (see scripts/setup test): {said}");
}

/// Returns the address of a daemon of `scripts/peers`.
pub(crate) fn daemon(name: &str) -> Address {
    peers();
    peers_home().join(name).join("docker.sock").to_str().unwrap().parse().unwrap()
}

/// Returns the registry's address.
pub(crate) fn registry() -> String {
    peers();
    std::env::var("ASHLAR_PEERS_REGISTRY").unwrap_or_else(|_| "127.0.0.1:5077".into())
}

/// Returns a name that no earlier run used, so that nothing is cached under it.
pub(crate) fn fresh() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// A context, a store, and what was told.
pub(crate) struct World {
    dir: TempDir,
    pub(crate) images: Images,
    pub(crate) heard: Arc<Heard>,
    pub(crate) buildkit: Buildkit,
    pub(crate) cancel: Cancel,
    pub(crate) build: BuildRequest,
}

/// Returns a request for the context in a directory.
fn request(dir: &Path, heard: Arc<Heard>) -> BuildRequest {
    BuildRequest {
        frontend: Arc::new(Never),
        tenant: "t".into(),
        scope: "s".into(),
        name: fresh(),
        build: "b".into(),
        contexts: BTreeMap::from([("context".to_owned(), dir.join("context"))]),
        secrets: BTreeMap::new(),
        hidden: BTreeMap::new(),
        credentials: BTreeMap::new(),
        pull: false,
        ssh: BTreeMap::new(),
        limits: BuildLimits::default(),
        network: Network::Isolated,
        entitlements: BTreeSet::new(),
        asked: std::time::Instant::now(),
        identity: None,
        epoch: None,
        sink: heard,
    }
}

impl World {
    /// Uses one daemon of `scripts/peers`.
    pub(crate) fn on(name: &str) -> Self {
        Self::with(vec![daemon(name)])
    }

    pub(crate) fn with(addresses: Vec<Address>) -> Self {
        Self::with_settings(addresses, RegistrySettings::default())
    }

    pub(crate) fn with_settings(addresses: Vec<Address>, settings: RegistrySettings) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("context")).unwrap();
        let blobs = BlobStore::open(dir.path().join("data")).unwrap();
        let store = ImageStore::open(dir.path().join("data")).unwrap();
        let heard = Arc::new(Heard::default());
        let build = request(dir.path(), heard.clone());
        Self {
            images: Images::new(blobs, store, Registry::new(settings)),
            buildkit: Buildkit::new(addresses).unwrap(),
            cancel: Cancel::new().unwrap(),
            heard,
            build,
            dir,
        }
    }

    /// Finds a name for the build such that it comes to this daemon, which then is warm.
    pub(crate) fn come_to(&mut self, daemon: &Address) {
        for _ in 0..NAMES_MAX {
            self.build.name = fresh();
            if self.build("FROM scratch\nCOPY Dockerfile /\n").daemon == *daemon {
                return;
            }
        }
        panic!("none of {NAMES_MAX} builds came to {daemon}");
    }

    /// Returns a new request like the one of this world.
    pub(crate) fn request(&self) -> BuildRequest {
        request(self.dir.path(), self.heard.clone())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the context.
    pub(crate) fn file(&self, name: &str, content: &str) -> &Self {
        let path = self.path("context").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A file that is written again counts as changed.
        if std::fs::read_to_string(&path).ok().as_deref() != Some(content) {
            std::fs::write(path, content).unwrap();
        }
        self
    }

    /// Builds a Dockerfile that lies in the context.
    pub(crate) fn try_build(&self, dockerfile: &str) -> Result<Made, Failure> {
        self.file("Dockerfile", dockerfile);
        let path = "Dockerfile".to_owned();
        self.try_request(&Request::new(Source::Context { context: "context".into(), path }))
    }

    pub(crate) fn try_request(&self, request: &Request) -> Result<Made, Failure> {
        self.heard.0.lock().unwrap().clear();
        let job =
            Job { dockerfile: request, build: &self.build, images: &self.images, pull: false };
        self.buildkit.build(&job, &self.cancel)
    }

    #[track_caller]
    pub(crate) fn build(&self, dockerfile: &str) -> Made {
        self.try_build(dockerfile).unwrap_or_else(|f| panic!("{f:?}\n{:#?}", self.heard.all()))
    }

    /// Returns the config of an image.
    pub(crate) fn config(&self, made: &Made) -> ImageConfig {
        serde_json::from_value(made.image.config.clone()).unwrap()
    }

    /// Returns the regular files of an image's own layers, the later ones over the earlier.
    pub(crate) fn files(&self, made: &Made) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for layer in &made.image.layers {
            let blob = layer.blob.as_ref().unwrap();
            let reader = self.images.blobs().open_read(&blob.digest).unwrap();
            let (_, plain) = ashlar_layers::decompress(reader).unwrap();
            for entry in tar::Archive::new(plain).entries().unwrap() {
                let mut entry = entry.unwrap();
                if entry.header().entry_type().is_file() {
                    let path = entry.path().unwrap().to_str().unwrap().to_owned();
                    let mut bytes = Vec::new();
                    std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                    files.insert(path.trim_start_matches("./").to_owned(), bytes);
                }
            }
        }
        files
    }
}

impl World {
    /// Returns the times of regular files as their layer's archive has them: the header's, and one
    /// of an extended header.
    pub(crate) fn times(&self, made: &Made) -> BTreeMap<String, Vec<String>> {
        let mut times = BTreeMap::new();
        for layer in &made.image.layers {
            let reader =
                self.images.blobs().open_read(&layer.blob.as_ref().unwrap().digest).unwrap();
            let (_, plain) = ashlar_layers::decompress(reader).unwrap();
            for entry in tar::Archive::new(plain).entries().unwrap() {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().to_str().unwrap().to_owned();
                let mut told = vec![entry.header().mtime().unwrap().to_string()];
                if let Some(more) = entry.pax_extensions().unwrap() {
                    let more = more.map(Result::unwrap).filter(|e| e.key() == Ok("mtime"));
                    told.extend(more.map(|e| e.value().unwrap().to_owned()));
                }
                times.insert(path, told);
            }
        }
        times
    }
}

/// BuildKit has a frontend of its own.
struct Never;

impl Frontend for Never {
    fn name(&self) -> &'static str {
        "never"
    }

    fn lower(&self, _: &Answers) -> Result<Lowered, Box<Diagnostic>> {
        panic!("the frontend is not asked")
    }
}

/// What was told of a build.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<Event>>);

impl Sink for Heard {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    fn text(&self, text: LogText) {
        text.lines().for_each(|line| self.event(Event::Log(line)));
    }
}

impl Heard {
    pub(crate) fn all(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the names of the steps as they were told last.
    pub(crate) fn steps(&self) -> Vec<String> {
        let names = |e: &Event| match e {
            Event::Steps { names } => Some(names.clone()),
            _ => None,
        };
        self.all().iter().rev().find_map(names).unwrap_or_default()
    }

    /// Returns how each step ended, by its name.
    pub(crate) fn outcomes(&self) -> BTreeMap<String, StepOutcome> {
        let names = self.steps();
        let ended = |e: &Event| match e {
            Event::StepEnded { step, outcome, .. } => {
                Some((names[step.0 as usize - 1].clone(), *outcome))
            }
            _ => None,
        };
        self.all().iter().filter_map(ended).collect()
    }

    /// Returns all log lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |e: Event| match e {
            Event::Log(line) => Some(line.text),
            _ => None,
        };
        self.all().into_iter().filter_map(line).collect()
    }
}
