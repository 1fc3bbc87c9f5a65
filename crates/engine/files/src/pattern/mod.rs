//! Wildcards of sources (Go's `filepath.Match`) and lists of patterns with negation.

mod glob;
mod list;
mod wildcard;

pub(crate) use list::Marks;
pub use list::{PatternError, Patterns};
pub(crate) use wildcard::{Wildcard, has_wildcards, split};
