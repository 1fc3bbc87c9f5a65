//! What every command needs: the data directory, the registries, the engine and the history.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use ashlar_native::{Engine, EngineConfig};
use ashlar_oci::{Mirror, PullPolicy, RegistrySettings};
use ashlar_records::blocking::LocalHistory;
use ashlar_sandbox::{
    Cancel, Exit, Io, NativeConfig, NativeSandbox, Network, Sandbox, SandboxError, Session, Spec,
};
use clap::Args;

use crate::commands::usage;

/// What a certificate in PEM form begins with (RFC 7468).
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Settings that all commands share.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// Directory for images, caches and history [default: /var/lib/ashlar for root, else
    /// ~/.local/share/ashlar]
    #[arg(long, global = true, env = "ASHLAR_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Mirror of a registry, e.g. docker.io=https://mirror.example.com (repeatable)
    #[arg(
        long = "registry-mirror",
        global = true,
        env = "ASHLAR_REGISTRY_MIRROR",
        value_name = "HOST=URL",
        value_delimiter = ','
    )]
    pub(crate) mirrors: Vec<Mirror>,
    /// Registry that is spoken to by plain http; loopback always is (repeatable)
    #[arg(
        long = "plain-http",
        global = true,
        env = "ASHLAR_PLAIN_HTTP",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub(crate) plain_http: Vec<String>,
    /// CA certificates (PEM) for registries and for steps; they never get into layers
    #[arg(long, global = true, env = "ASHLAR_CA_BUNDLE", value_name = "FILE")]
    pub(crate) ca_bundle: Option<PathBuf>,
    /// Folder below which git remotes may be plain paths
    #[arg(long, global = true, env = "ASHLAR_GIT_FILE_ROOT", value_name = "DIR")]
    pub(crate) git_file_root: Option<PathBuf>,
    /// Whether --data-dir was typed: whoever does that means this machine.
    #[arg(skip)]
    pub(crate) is_dir_typed: bool,
}

impl Settings {
    /// Returns the data directory, made absolute.
    pub(crate) fn dir(&self) -> Result<PathBuf> {
        let dir = match &self.data_dir {
            Some(dir) => dir.clone(),
            None => default_dir().context("no data directory: set --data-dir or HOME")?,
        };
        Ok(std::path::absolute(dir)?)
    }

    /// Returns the CA bundle, made absolute.
    ///
    /// # Errors
    /// [`crate::commands::Usage`] when it is no file of certificates that can be read.
    pub(crate) fn ca_bundle(&self) -> Result<Option<PathBuf>> {
        self.ca_bundle.as_deref().map(certificates).transpose()
    }

    /// Returns the folder of git remotes, made absolute.
    ///
    /// # Errors
    /// [`crate::commands::Usage`] when it is no folder that can be read.
    pub(crate) fn git_file_root(&self) -> Result<Option<PathBuf>> {
        let folder = |path: &PathBuf| match std::fs::read_dir(path) {
            Ok(_) => Ok(std::path::absolute(path)?),
            Err(e) => usage(format!("--git-file-root: cannot read {}: {e}", path.display())),
        };
        self.git_file_root.as_ref().map(folder).transpose()
    }

    /// Opens the engine. The sandbox is prepared when the first step runs.
    pub(crate) fn engine(&self, pull: PullPolicy) -> Result<Engine> {
        let dir = self.dir()?;
        let mut registries = RegistrySettings::of_user();
        registries.mirrors.clone_from(&self.mirrors);
        registries.plain_http.clone_from(&self.plain_http);
        registries.ca_bundle.clone_from(&self.ca_bundle);
        let config = EngineConfig {
            registries,
            pull,
            ca_bundle: self.ca_bundle()?,
            git_file_root: self.git_file_root()?,
            ..EngineConfig::new(&dir)
        };
        Ok(Engine::open(config, Arc::new(LazySandbox::new(dir.join("sandbox"))))?)
    }

    /// Opens the history of local builds.
    pub(crate) fn history(&self) -> Result<LocalHistory> {
        let dir = self.dir()?;
        ashlar_native::DataDir::open(&dir)
            .with_context(|| format!("cannot use the data directory {}", dir.display()))?;
        let history = LocalHistory::open(&ashlar_records::records_file(&dir)?)?;
        Ok(history.with_segments(ashlar_service::log_segments(&dir)))
    }
}

/// Checks that a file has certificates. Whether they are good is found where they are used: a bundle
/// may well hold some that one of those who read it does not know.
fn certificates(path: &Path) -> Result<PathBuf> {
    let shown = path.display();
    match std::fs::read(path) {
        Ok(pem) if pem.windows(CERTIFICATE.len()).any(|w| w == CERTIFICATE) => {
            Ok(std::path::absolute(path)?)
        }
        Ok(_) => usage(format!("--ca-bundle: {shown} has no certificate in PEM form")),
        Err(e) => usage(format!("--ca-bundle: cannot read {shown}: {e}")),
    }
}

fn default_dir() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/var/lib/ashlar".into());
    }
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")))?;
    Some(data.join("ashlar"))
}

/// Prepares the native sandbox when the first step needs it: a build that is answered from the
/// cache starts none.
struct LazySandbox {
    config: NativeConfig,
    ready: OnceLock<Result<NativeSandbox, String>>,
}

impl LazySandbox {
    fn new(state_dir: PathBuf) -> Self {
        Self { config: NativeConfig::new(state_dir), ready: OnceLock::new() }
    }

    fn get(&self) -> Result<&NativeSandbox, SandboxError> {
        let make =
            || NativeSandbox::new(&self.config).map_err(|e| format!("{:#}", anyhow::Error::new(e)));
        self.ready.get_or_init(make).as_ref().map_err(|text| SandboxError::Invalid(text.clone()))
    }
}

impl Sandbox for LazySandbox {
    fn run(&self, spec: &Spec, io: Io<'_>, cancel: &Cancel) -> Result<Exit, SandboxError> {
        self.get()?.run(spec, io, cancel)
    }

    fn start(&self, spec: &Spec) -> Result<Box<dyn Session>, SandboxError> {
        self.get()?.start(spec)
    }

    fn expect(&self, network: Network) {
        // What is wrong is said when a step runs.
        let _ = self.get().map(|sandbox| sandbox.expect(network));
    }
}
