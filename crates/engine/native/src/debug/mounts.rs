//! What a failed step had mounted, as far as it can be mounted again.

use std::path::PathBuf;

use ashlar_core::Digest;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::{CacheSharing, MountKind};
use ashlar_sandbox::Mount;
use ashlar_snapshots::{Lease, Tree};
use serde::{Deserialize, Serialize};

use super::FailedRoot;
use crate::Engine;
use crate::engine::Shared;
use crate::error::internal;
use crate::mounts::{About, Fresh, HeldMount, MountError};

/// A mount of a failed step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptMount {
    /// Where the step had it.
    pub target: String,
    /// What it showed.
    pub shows: Shown,
}

/// What a mount showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// A path of a tree: of a stage, an image or a context.
    Tree {
        /// Its layers, bottom first.
        tree: Vec<Digest>,
        /// The path.
        path: PathBuf,
        /// Whether the step could write; what it wrote was thrown away.
        writable: bool,
    },
    /// A cache mount or a cache volume.
    Cache {
        /// Whose it is, and its id.
        about: About,
        /// What two users at once do.
        sharing: CacheSharing,
        /// How it is made anew if it was removed since.
        fresh: Fresh,
        /// Whether one may only look.
        readonly: bool,
    },
    /// Memory, empty again.
    Tmpfs {
        /// Bound in bytes.
        size: Option<u64>,
    },
}

/// Mounts of a shell, and what must live as long as it does.
#[derive(Default)]
pub(super) struct ShellMounts {
    pub(super) mounts: Vec<Mount>,
    _leases: Vec<Lease>,
    _held: Vec<HeldMount>,
    _scratch: Vec<tempfile::TempDir>,
}

impl ShellMounts {
    /// Mounts what is still there.
    pub(super) fn of(engine: &Shared, failed: &FailedRoot) -> Result<Self, Failure> {
        let mut made = Self::default();
        for kept in &failed.mounts {
            let kind = match &kept.shows {
                Shown::Tree { tree, path, writable } => {
                    made.tree(engine, &Tree(tree.clone()), path, *writable)?
                }
                Shown::Cache { about, sharing, fresh, readonly } => {
                    let held = take(engine, about, *sharing, *fresh)?;
                    let (source, subpath) = (held.path.clone(), PathBuf::new());
                    made._held.push(held);
                    let readonly = *readonly;
                    Some(ashlar_sandbox::MountKind::Bind { source, subpath, readonly })
                }
                Shown::Tmpfs { size } => Some(ashlar_sandbox::MountKind::tmpfs(*size)),
            };
            let target = PathBuf::from(&kept.target);
            made.mounts.extend(kind.map(|kind| Mount { target, kind }));
        }
        Ok(made)
    }

    fn tree(
        &mut self,
        engine: &Shared,
        tree: &Tree,
        path: &std::path::Path,
        writable: bool,
    ) -> Result<Option<ashlar_sandbox::MountKind>, Failure> {
        // What was collected since is said by `Engine::absent_mounts`.
        let Ok(lease) = engine.snapshots.hold(tree) else { return Ok(None) };
        self._leases.push(lease);
        let scratch = if writable {
            let dir = tempfile::tempdir_in(engine.dir.scratch()).map_err(internal)?;
            let place = dir.path().to_owned();
            self._scratch.push(dir);
            Some(place)
        } else {
            None
        };
        let lowers = engine.snapshots.lowers(tree).map_err(internal)?;
        let subpath = path.to_owned();
        Ok(Some(ashlar_sandbox::MountKind::Layers { lowers, subpath, scratch }))
    }
}

/// Takes a cache mount as the step did, but does not wait behind a running one: nobody sees in a
/// shell that does not open why it does not.
fn take(
    engine: &Shared,
    about: &About,
    sharing: CacheSharing,
    fresh: Fresh,
) -> Result<HeldMount, Failure> {
    engine.mounts.take(about, sharing, fresh, &|| true).map_err(|e| match e {
        MountError::Cancelled(id) => {
            let text = format!("a running step has the cache mount '{id}' for itself");
            Failure::new(FailureKind::Step, text).hint("try again when that step has ended")
        }
        other => internal(other),
    })
}

impl Engine {
    /// Returns, for people, the mounts of a failed step that [`Engine::debug`] cannot make again:
    /// secrets and agents, which were never stored, and files that were collected since.
    pub fn absent_mounts(&self, failed: &FailedRoot) -> Vec<String> {
        let is_there = |kept: &KeptMount| match &kept.shows {
            Shown::Tree { tree, .. } => self.shared.snapshots.hold(&Tree(tree.clone())).is_ok(),
            Shown::Cache { .. } | Shown::Tmpfs { .. } => true,
        };
        let has = |target: &str| failed.mounts.iter().any(|k| k.target == target && is_there(k));
        let absent = failed.exec.mounts.iter().filter(|m| !has(&m.destination));
        absent.map(|m| described(&m.kind, &m.destination)).collect()
    }
}

fn described(kind: &MountKind, target: &str) -> String {
    match kind {
        MountKind::Secret { id, env: Some(name), file: false, .. } => {
            format!("the secret '{id}' in the variable {name}")
        }
        MountKind::Secret { id, env: Some(name), .. } => {
            format!("the secret '{id}' at {target} and in the variable {name}")
        }
        MountKind::Secret { id, .. } => format!("the secret '{id}' at {target}"),
        MountKind::Ssh { id, .. } => format!("the ssh agent '{id}' at {target}"),
        MountKind::Bind { .. } => format!("the files at {target}, which were removed since"),
        MountKind::Cache { id, .. } => format!("the cache mount '{id}' at {target}"),
        MountKind::Volume { id } => format!("the cache volume '{id}' at {target}"),
        MountKind::Tmpfs { .. } => format!("the memory at {target}"),
    }
}
