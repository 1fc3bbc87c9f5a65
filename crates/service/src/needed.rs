//! Which blobs nothing needs: what builds and documents hold, what is listed by a context or by the
//! record of an image that one of them holds, and what is listed by a context that a tenant was
//! granted lately and may be about to submit.
//!
//! Lists are read one by one and asked about a set of blobs, so that memory is bounded by the set
//! and the largest list, however many blobs there are.

use std::collections::{BTreeSet, HashSet};

use ashlar_blobs::BlobError;
use ashlar_core::{Digest, TenantId, Timestamp};
use ashlar_records::{HELD_MAX, HeldAs};
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::artifacts::{DOCUMENT_BYTES_MAX, blobs_of};
use crate::context::MANIFEST_BYTES_MAX;
use crate::{Error, Service};

/// What is left of a set of blobs.
pub(crate) struct Unneeded {
    /// The blobs that nothing needs, as far as lists could be read.
    pub(crate) blobs: HashSet<Digest>,
    /// Tenants who have a list that cannot be read: what they need is not known.
    pub(crate) in_doubt: BTreeSet<TenantId>,
}

/// A context's entries, as far as they name blobs.
#[derive(Deserialize)]
struct Listing {
    files: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: Option<Digest>,
}

/// An image's record, as far as it names the manifest that names all else.
#[derive(Deserialize)]
struct ImageListing {
    image: ImageEntry,
}

#[derive(Deserialize)]
struct ImageEntry {
    manifest: Entry,
}

fn take_out(blobs: &mut HashSet<Digest>, listed: &[Digest]) {
    for digest in listed {
        blobs.remove(digest);
    }
}

impl Service {
    /// Takes from a set of blobs those that are needed; contexts count that were granted or used
    /// since a time. Blocks.
    ///
    /// # Errors
    /// When the database or the blob store does not answer.
    pub(crate) fn unneeded(
        &self,
        runtime: &Handle,
        mut blobs: HashSet<Digest>,
        used_since: Timestamp,
    ) -> Result<Unneeded, Error> {
        let (mut in_doubt, mut after) = (BTreeSet::new(), None);
        while !blobs.is_empty() {
            let piece = runtime.block_on(self.store().held_blobs(after, HELD_MAX))?;
            let Some((last, _)) = piece.last() else { break };
            after = Some(*last);
            for (digest, held) in piece {
                blobs.remove(&digest);
                match self.listed(&digest, held)? {
                    Some(listed) => take_out(&mut blobs, &listed),
                    None => in_doubt.extend(runtime.block_on(self.store().holders(digest))?),
                }
            }
        }
        self.grants().each_context(used_since, |grant| {
            match self.listed(&grant.digest, HeldAs::Context)? {
                Some(listed) => take_out(&mut blobs, &listed),
                None => {
                    in_doubt.insert(grant.tenant);
                }
            }
            Ok(())
        })?;
        Ok(Unneeded { blobs, in_doubt })
    }

    /// Returns the blobs that one lists; none when it cannot be read, which is no reason to leave
    /// all others where they are.
    fn listed(&self, digest: &Digest, held: HeldAs) -> Result<Option<Vec<Digest>>, Error> {
        let listed = match held {
            HeldAs::Plain => return Ok(Some(Vec::new())),
            HeldAs::Context => self.files_of_context(digest),
            HeldAs::Image => self.blobs_of_image(digest),
        };
        match listed {
            Ok(listed) => Ok(Some(listed)),
            // While the store does not answer nothing is known of any list.
            Err(error @ (Error::Unavailable(_) | Error::Away(_))) => Err(error),
            Err(error) => {
                let error = error.internal_text();
                tracing::warn!(%digest, error, "a list of blobs cannot be read");
                Ok(None)
            }
        }
    }

    /// Returns the blobs that a context lists. One whose manifest is gone lists none: nothing can
    /// be built from it.
    pub(crate) fn files_of_context(&self, manifest: &Digest) -> Result<Vec<Digest>, Error> {
        let Some(bytes) = self.read_list(manifest, MANIFEST_BYTES_MAX)? else {
            return Ok(Vec::new());
        };
        let listing: Listing = serde_json::from_slice(&bytes).map_err(Error::internal)?;
        Ok(listing.files.into_iter().filter_map(|entry| entry.digest).collect())
    }

    fn blobs_of_image(&self, record: &Digest) -> Result<Vec<Digest>, Error> {
        let Some(bytes) = self.read_list(record, DOCUMENT_BYTES_MAX)? else {
            return Ok(Vec::new());
        };
        let listing: ImageListing = serde_json::from_slice(&bytes).map_err(Error::internal)?;
        let Some(manifest) = listing.image.manifest.digest else { return Ok(Vec::new()) };
        match self.read_list(&manifest, DOCUMENT_BYTES_MAX)? {
            Some(bytes) => blobs_of(&manifest, &bytes),
            None => Ok(Vec::new()),
        }
    }

    fn read_list(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        match self.blobs().read(digest, limit) {
            Err(BlobError::Missing(_)) => Ok(None),
            other => Ok(Some(other?)),
        }
    }
}
