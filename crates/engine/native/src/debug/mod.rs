//! What failed steps leave behind, so that somebody can look into them.

mod mounts;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ashlar_core::Digest;
use ashlar_core::graph::{Exec, StepId};
use ashlar_sandbox::{Cancel, Exit, Io, Process, Rootfs, Sandbox, Spec, remove_leftovers};
use ashlar_snapshots::{Draft, Tree};
use serde::{Deserialize, Serialize};

pub use mounts::{KeptMount, Shown};

use self::mounts::ShellMounts;
use crate::Engine;
use crate::engine::Shared;
use crate::error::internal;

/// Failed steps that are kept; older ones go.
const KEPT_MAX: usize = 8;

/// A failed step's files, as they were when it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailedRoot {
    /// The build, as its caller names it.
    pub build: String,
    /// The step.
    pub step: Option<StepId>,
    /// What people see.
    pub name: String,
    /// The tree that it started from, bottom layer first.
    pub tree: Vec<Digest>,
    /// The operation. It holds no values of secrets.
    pub exec: Exec,
    /// Its mounts but secrets and agents.
    #[serde(default)]
    pub mounts: Vec<KeptMount>,
}

impl FailedRoot {
    /// Moves what the step wrote into the debug folder.
    pub(crate) fn keep(&self, engine: &Shared, draft: Draft) -> io::Result<()> {
        let folder = engine.dir.debug();
        let place = folder.join(draft.id().to_string());
        draft.keep_failed(&place).map_err(io::Error::other)?;
        fs::write(place.join("failed.json"), serde_json::to_vec(self)?)?;
        thin_out(&folder)
    }
}

fn thin_out(folder: &Path) -> io::Result<()> {
    let mut places = list(folder)?;
    places.sort();
    let surplus = places.len().saturating_sub(KEPT_MAX);
    places.into_iter().take(surplus).try_for_each(|(_, place)| fs::remove_dir_all(place))
}

/// The step's own mount left a work directory that no second mount may use.
fn fresh_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::create_dir(path)
}

fn list(folder: &Path) -> io::Result<Vec<(SystemTime, PathBuf)>> {
    let mut places = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let Ok(about) = fs::metadata(path.join("failed.json")) {
            places.push((about.modified()?, path));
        }
    }
    Ok(places)
}

impl Engine {
    /// Lists the failed steps that can be looked into, the newest first.
    ///
    /// # Errors
    /// When the debug folder cannot be read.
    pub fn failed_steps(&self) -> io::Result<Vec<(FailedRoot, PathBuf)>> {
        let mut places = list(&self.shared.dir.debug())?;
        places.sort_by_key(|(when, _)| std::cmp::Reverse(*when));
        let read = |(_, place): (SystemTime, PathBuf)| {
            let bytes = fs::read(place.join("failed.json")).ok()?;
            Some((serde_json::from_slice(&bytes).ok()?, place))
        };
        Ok(places.into_iter().filter_map(read).collect())
    }

    /// Runs a command in a failed step's own files, with its mounts, environment, user and directory.
    /// What is not there says [`Engine::absent_mounts`].
    ///
    /// # Errors
    /// When the files are gone, a running step has a cache mount for itself, or the sandbox cannot be
    /// made.
    pub fn debug(
        &self,
        failed: &FailedRoot,
        place: &Path,
        args: &[String],
        io: Io<'_>,
        cancel: &Cancel,
    ) -> Result<Exit, ashlar_core::failure::Failure> {
        let tree = Tree(failed.tree.clone());
        let _lease = self.shared.snapshots.hold(&tree).map_err(internal)?;
        let lowers = self.shared.snapshots.lowers(&tree).map_err(internal)?;
        let (upper, work) = (place.join("fs"), place.join("work"));
        fresh_dir(&work).map_err(internal)?;
        let mounts = ShellMounts::of(&self.shared, failed)?;
        let rootfs = Rootfs::Overlay { lowers, upper: upper.clone(), work, volatile: false };
        let user = crate::user::look_up(&self.shared.snapshots, &tree, &failed.exec.user)?;
        let mut spec = Spec::new(rootfs, args.to_vec());
        let process = crate::job::process(&failed.exec, &user);
        spec.process = Process { args: args.iter().map(Into::into).collect(), ..process };
        spec.network = match failed.exec.network {
            ashlar_core::graph::Network::None => ashlar_sandbox::Network::None,
            _ => ashlar_sandbox::Network::Isolated,
        };
        spec.mounts.clone_from(&mounts.mounts);
        let sandbox: &dyn Sandbox = &*self.shared.sandbox;
        let exit = sandbox.run(&spec, io, cancel).map_err(|e| crate::job::sandbox_failure(&e))?;
        remove_leftovers(&upper, &exit.created_mountpoints).map_err(internal)?;
        Ok(exit)
    }
}
