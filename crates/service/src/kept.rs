//! Whether what a build made is still there.

use ashlar_core::journal::Record;

use crate::Service;
use crate::artifacts::image_of;

impl Service {
    /// Says whether a build's image can still be had: its record names one, and the image is among
    /// the local ones or stored where all machines find it. Looks at a file's name, no more.
    pub fn image_is_kept(&self, record: &Record) -> bool {
        let Some(id) = image_of(record) else { return false };
        let shared = record.artifacts.iter().any(|a| a.digest == id && !a.references.is_empty());
        shared || self.engine().images().store().has(&id)
    }
}
