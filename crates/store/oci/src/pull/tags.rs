//! What tags led to when they were last resolved: the memory of the pull cache.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ashlar_core::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Images, Result};
use crate::files;
use crate::manifest::Descriptor;
use crate::reference::Reference;
use crate::walk::{self, Absent};

/// What a tag led to when it was last asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PulledTag {
    /// The reference.
    pub reference: Reference,
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// When the registry first said so.
    pub since: Timestamp,
}

impl Images {
    /// Returns what a tag led to when it was last resolved.
    ///
    /// # Errors
    /// When the record can not be read.
    pub fn pulled(&self, reference: &Reference) -> Result<Option<PulledTag>> {
        Ok(files::read_json(&self.pulled_path(reference))?)
    }

    /// Lists what tags led to when they were last resolved.
    ///
    /// # Errors
    /// When a record can not be read.
    pub fn pulled_tags(&self) -> Result<Vec<PulledTag>> {
        let dir = self.store.pulled_dir();
        let mut tags = Vec::new();
        for name in files::list(&dir)?.iter().filter(|n| n.ends_with(".json")) {
            tags.extend(files::read_json(&dir.join(name))?);
        }
        Ok(tags)
    }

    /// Forgets what a tag led to, so that garbage collection may take its blobs.
    ///
    /// # Errors
    /// When the record can not be removed.
    pub fn forget_pulled(&self, reference: &Reference) -> Result<()> {
        Ok(files::remove(&self.pulled_path(reference))?)
    }

    fn pulled_path(&self, reference: &Reference) -> PathBuf {
        let hash = Digest::of(reference.to_string());
        self.store.pulled_dir().join(format!("{}.json", hash.hex()))
    }

    pub(super) fn note_pulled(&self, reference: &Reference, digest: Digest) -> Result<()> {
        let tag = PulledTag { reference: reference.clone(), digest, since: files::now() };
        Ok(files::write_json(&self.pulled_path(reference), &tag)?)
    }

    /// Lists the blobs that the store holds of a manifest or index and all below it: what garbage
    /// collection keeps for a tag, or takes with it.
    ///
    /// # Errors
    /// When a manifest can not be read.
    pub fn blobs_below(&self, root: Digest) -> Result<Vec<Digest>> {
        if !self.blobs().has(&root)? {
            return Ok(Vec::new());
        }
        let nodes = walk::documents(self.blobs(), &Descriptor::new("", root, 0), Absent::Skip)?;
        let mut found = BTreeSet::new();
        for node in &nodes {
            found.insert(node.descriptor.digest);
            for blob in node.blobs() {
                if self.blobs().has(&blob.digest)? {
                    found.insert(blob.digest);
                }
            }
        }
        Ok(found.into_iter().collect())
    }
}
