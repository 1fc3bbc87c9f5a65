//! What the data directory holds, by whom it is needed, and making room.
//!
//! [`Engine::usage`] gathers [`Item`]s, [`decide`] says which of them go (pure, no I/O), and
//! [`Engine::collect`] removes those. A build holds a [`WorkLease`] while it reads and writes what
//! nothing refers to yet; collecting spares what is young while such a lease exists, and never
//! removes what a tag or a running step needs. An image whose last name went to a later build is cache as
//! its layers are.

mod facts;
mod grants;
mod lease;
mod policy;
mod remove;

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use ashlar_core::Digest;
use ashlar_core::failure::Failure;

pub use lease::WorkLease;
pub use policy::{GRACE, GcPolicy, IDLE_DEFAULT, Plan, Why, decide};

use crate::Engine;

/// What an item is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKind {
    /// A blob: a manifest, config or compressed layer.
    Blob(Digest),
    /// A layer on disk.
    Layer(Digest),
    /// A cache mount, by its folder.
    CacheMount(std::path::PathBuf),
    /// What a failed step left, by its folder.
    FailedStep(std::path::PathBuf),
    /// Cache records and other small files, which are not collected one by one.
    Records,
    /// Uploads to a server that are not finished, which the server gives up in time.
    Uploads,
    /// Contexts that a server has laid out as directories, of which it keeps the last ones.
    Contexts,
    /// The history of builds.
    History,
}

impl ItemKind {
    /// Returns the word used in listings.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Blob(_) => "blob",
            Self::Layer(_) => "layer",
            Self::CacheMount(_) => "cache-mount",
            Self::FailedStep(_) => "failed-step",
            Self::Records => "records",
            Self::Uploads => "uploads",
            Self::Contexts => "contexts",
            Self::History => "history",
        }
    }
}

/// Why something is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// An image, by its name or id.
    Image(String),
    /// A server: a tenant's context or result, or a piece of a log.
    Server,
    /// A running build or command.
    Running,
    /// It is not a cache at all.
    Always,
}

/// What something is good for when nothing needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It makes later builds faster.
    Cache,
    /// Nothing refers to it any more.
    None,
}

/// One thing that takes up space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What.
    pub kind: ItemKind,
    /// For people: an image, a step, a mount's id.
    pub name: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// When it was last used.
    pub last_used: SystemTime,
    /// By whom it is needed; empty when it may go.
    pub holders: Vec<Holder>,
    /// What it is good for otherwise.
    pub good_for: Use,
}

/// All that a data directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The things.
    pub items: Vec<Item>,
    /// Bytes free on its file system.
    pub free_bytes: u64,
    /// When it was looked at.
    pub now: SystemTime,
    /// Whether builds are running.
    pub busy: bool,
    /// What images without a name are made of, by their ids. They are cache: nothing holds their
    /// parts, and one goes with the first of them.
    pub untagged: BTreeMap<Digest, BTreeSet<Digest>>,
}

impl Usage {
    /// Returns the bytes of all items.
    pub fn total_bytes(&self) -> u64 {
        self.items.iter().map(|i| i.bytes).sum()
    }
}

impl Engine {
    /// Returns what the data directory holds.
    ///
    /// # Errors
    /// When a folder or record cannot be read.
    pub fn usage(&self) -> Result<Usage, Failure> {
        facts::gather(self, WorkLease::any(self.dir().root()))
    }

    /// Removes what the policy lets go. With `dry_run`, only says what would go.
    ///
    /// # Errors
    /// When a folder or record cannot be read, or something cannot be removed.
    pub fn collect(&self, policy: &GcPolicy, dry_run: bool) -> Result<(Usage, Plan), Failure> {
        let alone = WorkLease::exclusive(self.dir().root()).map_err(crate::error::internal)?;
        let usage = facts::gather(self, alone.is_none())?;
        let mut plan = decide(&usage, policy);
        if !dry_run {
            remove::apply(self, &usage, &mut plan)?;
        }
        Ok((usage, plan))
    }

    /// Says for as long as the lease lives that this process works with the data directory.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn work_lease(&self) -> Result<WorkLease, Failure> {
        WorkLease::shared(self.dir().root()).map_err(crate::error::internal)
    }
}
