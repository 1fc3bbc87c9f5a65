//! The sandbox of our own: namespaces, an overlay root, seccomp, capabilities and cgroups, in about two milliseconds.
//!
//! Where to read on: `keeper` enters the namespaces and builds the tree; `child` gives up the rights; `supervise`
//! watches. The tables are in `security`.

mod child;
mod image;
pub(crate) mod init;
pub(crate) mod keeper;
mod session;
mod shared;
pub(crate) mod supervise;
pub(crate) mod sys;

use std::path::PathBuf;
use std::sync::Arc;

use crate::cgroup::{Janitor, Layout, PARENT};
use crate::error::During;
use crate::mounts::cgroups::Cgroups;
use crate::mounts::rootfs::Staging;
use crate::network::Isolated;
use crate::security::seccomp::Profile;
use crate::{Cancel, Exit, Io, Network, NetworkConfig, Sandbox, SandboxError, Session, Spec};
use session::NativeSession;
use shared::Shared;

/// Settings of the native sandbox.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// A directory of the engine for a few empty mount points; made when missing, never holds data.
    pub state_dir: PathBuf,
    /// Isolated networks.
    pub network: NetworkConfig,
}

impl NativeConfig {
    /// Settings with the defaults and the given state directory.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self { state_dir: state_dir.into(), network: NetworkConfig::default() }
    }
}

/// Runs steps in sandboxes made by system calls alone. Needs root.
pub struct NativeSandbox {
    shared: Arc<Shared>,
}

impl NativeSandbox {
    /// Prepares what all sandboxes share, and removes cgroups that dead engines left.
    ///
    /// # Errors
    /// When the machine's cgroups can't be used or the state directory can't be made.
    pub fn new(config: &NativeConfig) -> Result<Self, SandboxError> {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").during("reading mounts")?;
        let own = std::fs::read_to_string("/proc/self/cgroup").during("reading own cgroup")?;
        let mut layout = Layout::parse(&mountinfo, &own, PARENT);
        layout
            .prepare()
            .during("preparing the parent cgroup (Ashlar's native executor needs root)")?;
        let janitor = Janitor::start(&layout).during("starting the cgroup janitor")?;
        let staging = Staging::new(&config.state_dir)?;
        let cgroups = Cgroups::new(&config.state_dir, &mut layout)?;
        let profile = Profile::compile()?;
        let isolated = Isolated::new(config.network.clone());
        let shared = Shared { staging, cgroups, profile, layout, janitor, isolated };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Sandbox for NativeSandbox {
    fn run(&self, spec: &Spec, io: Io<'_>, cancel: &Cancel) -> Result<Exit, SandboxError> {
        if cancel.is_cancelled() {
            return Err(SandboxError::Cancelled);
        }
        let session = NativeSession::start(&self.shared, spec, false)?;
        let mut exit = session.exec(&spec.process, io, cancel)?;
        exit.created_mountpoints = session.finish();
        Ok(exit)
    }

    fn start(&self, spec: &Spec) -> Result<Box<dyn Session>, SandboxError> {
        Ok(Box::new(NativeSession::start(&self.shared, spec, true)?))
    }

    fn expect(&self, network: Network) {
        if network == Network::Isolated {
            // The step that comes tries again and says what is wrong.
            let _ = self.shared.isolated.started();
        }
    }
}
