//! What earlier builds came to, by key.
//!
//! Records are small JSON files below `cache/`, each written under a temporary name and renamed,
//! so any number of processes may share a data directory and a crash leaves whole records only.
//! A record names trees and blobs; whether those still exist is asked at each look-up.

mod contents;
mod files;
mod results;
mod steps;

pub use files::{CacheError, RecordDir};
pub use results::{FinalRecord, LayerRecord, ResultCache};
pub use steps::StepIdentity;
