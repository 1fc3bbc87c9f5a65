//! The second implementation: any OCI runtime as a program (`runc`, gVisor's `runsc`, Kata's `kata-runtime`).
//!
//! The tree is built by the same code as the native sandbox's, in a mount namespace of its own, and handed over as a
//! bundle: what the runtime adds is `/proc`, `/sys` and `/dev`. Capabilities, seccomp, masked paths and limits are the
//! same tables, written as its configuration. Slower by an order of magnitude (two processes in Go a step), for those who want
//! another wall around untrusted builds. Interactive terminals are the native sandbox's alone.

mod config;
mod program;
mod session;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;

use crate::cgroup::{Janitor, Layout, RUNTIME_PARENT};
use crate::error::During;
use crate::mounts::rootfs::Staging;
use crate::native::init;
use crate::network::Isolated;
use crate::{Cancel, Exit, Io, NetworkConfig, Sandbox, SandboxError, Session, Spec};
use program::Runtime;
use session::RuntimeSession;

/// Settings of the sandbox that drives an OCI runtime.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// The runtime: a name to look up in PATH, or a path.
    pub program: PathBuf,
    /// Arguments before the command, such as `--platform=systrap` for gVisor.
    pub args: Vec<String>,
    /// A directory of the engine for mount points, bundles and the runtime's own state.
    pub state_dir: PathBuf,
    /// Isolated networks.
    pub network: NetworkConfig,
}

impl RuntimeConfig {
    /// Settings for `runc`.
    pub fn runc(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            program: "runc".into(),
            args: Vec::new(),
            state_dir: state_dir.into(),
            network: NetworkConfig::default(),
        }
    }
}

/// What all sandboxes of one engine have in common.
pub(crate) struct Shared {
    pub(crate) runtime: Runtime,
    pub(crate) staging: Staging,
    pub(crate) layout: Layout,
    pub(crate) janitor: Janitor,
    pub(crate) isolated: Isolated,
    pub(crate) bundles: PathBuf,
    /// The idle pid 1 of sessions.
    pub(crate) init: PathBuf,
}

/// Runs steps by an OCI runtime. Needs root.
pub struct RuntimeSandbox {
    shared: Arc<Shared>,
}

impl RuntimeSandbox {
    /// Looks for the runtime and prepares what all sandboxes share.
    ///
    /// # Errors
    /// When the runtime is not installed, or the machine's cgroups or the state directory can't be used.
    pub fn new(config: &RuntimeConfig) -> Result<Self, SandboxError> {
        let staging = Staging::new(&config.state_dir)?;
        let state = std::path::absolute(&config.state_dir).during("finding the state directory")?;
        let bundles = state.join("bundles");
        std::fs::create_dir_all(&bundles).during("making the state directory")?;
        let runtime = Runtime::find(config, state.join("runtime"))?;
        runtime.remove_stale();
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").during("reading mounts")?;
        let own = std::fs::read_to_string("/proc/self/cgroup").during("reading own cgroup")?;
        let layout = Layout::parse(&mountinfo, &own, RUNTIME_PARENT);
        // The runtime makes the device rules and shows the groups.
        let layout = Layout { devices: None, hierarchies: Vec::new(), ..layout };
        layout.prepare().during("preparing the parent cgroup (this executor needs root)")?;
        let janitor = Janitor::start(&layout).during("starting the cgroup janitor")?;
        let init = state.join("init");
        init::write(&init).during("writing the init program")?;
        let isolated = Isolated::new(config.network.clone());
        let shared = Shared { runtime, staging, layout, janitor, isolated, bundles, init };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Sandbox for RuntimeSandbox {
    fn run(&self, spec: &Spec, io: Io<'_>, cancel: &Cancel) -> Result<Exit, SandboxError> {
        if cancel.is_cancelled() {
            return Err(SandboxError::Cancelled);
        }
        RuntimeSession::new(&self.shared, spec)?.run(io, cancel)
    }

    fn start(&self, spec: &Spec) -> Result<Box<dyn Session>, SandboxError> {
        Ok(Box::new(RuntimeSession::new(&self.shared, spec)?.start()?))
    }
}
