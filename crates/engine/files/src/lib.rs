//! Context directories and the execution of file operations.
//!
//! Blocking; scans and copies use two threads of their own. Nothing here follows a symbolic link
//! out of the tree that it was given: paths are resolved by `openat2` below a directory handle.
//!
//! - [`context`]: what a copy selects from a directory on disk, with digests and key parts.
//! - [`ops`]: carries file actions out on a tree.
//! - [`ops::lookup`]: users and groups of a tree.

pub mod context;
mod entry;
mod error;
mod listing;
pub mod ops;
mod path;
mod pattern;
mod root;
mod select;
mod walk;

pub use context::{Context, Ignore, IgnoreNothing, Manifest, Selection};
pub use entry::{Entry, Kind, Stamp, Time};
pub use error::ContextError;
pub use pattern::{PatternError, Patterns};
pub use root::Root;
pub use select::Source;
