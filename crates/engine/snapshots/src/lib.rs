//! Layer directories on disk and the overlay mounts made of them.
//!
//! A [`Tree`] is a root file system as a list of layers. [`SnapshotStore::begin`] gives a [`Draft`]
//! whose upper directory takes the changes of a step; [`Draft::commit`] reads it once, names it by its
//! content and moves it into place by one rename. A step that makes the same content again thus gives
//! the same [`LayerId`], and what follows it needs no new run. Image layers are unpacked one by one,
//! independent of those below them, and named by their diff_id ([`SnapshotStore::import_layer`]).
//!
//! Everything blocks, and any number of threads and processes may share a store: layers never change,
//! appear and disappear by a rename, and a [`Lease`] keeps those in use. Nothing here decides *what*
//! to keep: [`SnapshotStore::usage`] and [`SnapshotStore::remove`] serve whoever holds the disk
//! budget. Start reading at `store` (the directory layout), then `draft`.

mod content;
mod copied;
mod draft;
mod entry_cache;
mod error;
mod import;
mod lock;
mod merged;
mod meta;
mod mount;
mod nursery;
mod physical;
mod repair;
mod squash;
mod store;
mod trash;
mod tree;
mod usage;
mod view;

pub use content::{Exclude, Selector};
pub use draft::{Commit, CommitOptions, Draft};
pub use error::{Result, SnapshotError};
pub use import::ImportOptions;
pub use meta::{BlobRef, LayerKind, LayerMeta};
pub use mount::{LOWERS_MAX, Mounted};
pub use repair::Repairs;
pub use store::{Lease, Removal, SnapshotStore};
pub use tree::{LayerId, Tree};
pub use usage::Usage;
pub use view::{Follow, Found, FoundKind};
