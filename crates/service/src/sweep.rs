//! Finds what nobody needs any more on this machine's disk: images of builds that are gone, and
//! rights to blobs that no build or document names. Blobs and layers themselves are then collected
//! by the engine.
//!
//! What a crash left between a record's end and its image's is found here too.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ashlar_core::{BuildId, Digest, TenantId};
use ashlar_records::HELD_MAX;

use crate::context::MANIFEST_BYTES_MAX;
use crate::recipe::INTERNAL_HOST;
use crate::{ContextManifest, EntryKind, Error, Service};

/// A right to a blob that was used this lately stays: a build that needs it may be on its way.
pub(crate) const GRANT_KEPT: Duration = Duration::from_secs(2 * 24 * 3600);
/// Builds that are looked up at once.
const BUILDS_AT_ONCE: usize = 256;

impl Service {
    /// Removes images of builds that are gone or have no artifacts any more; returns how many.
    ///
    /// # Errors
    /// When the database or the image store fails.
    pub async fn sweep_images(self: &Arc<Self>) -> Result<usize, Error> {
        let named = self.blocking(|service| service.build_images()).await?;
        let mut removed = 0;
        for piece in named.chunks(BUILDS_AT_ONCE) {
            let builds: Vec<BuildId> = piece.iter().map(|(_, build)| *build).collect();
            let unneeded = self.store().without_artifacts(&builds).await?;
            for (tenant, build) in piece.iter().filter(|(_, build)| unneeded.contains(build)) {
                self.drop_image(*tenant, *build).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Returns the builds that have an image in the local store.
    fn build_images(&self) -> Result<Vec<(TenantId, BuildId)>, Error> {
        let names = self.engine().images().store().names().map_err(Error::internal)?;
        let read = |name: &ashlar_oci::Reference| {
            let repository = name.repository();
            if repository.host() != INTERNAL_HOST {
                return None;
            }
            let (tenant, build) = repository.path().split_once('/')?;
            Some((tenant.parse().ok()?, build.parse().ok()?))
        };
        Ok(names.iter().filter_map(|named| read(&named.name)).collect())
    }

    /// Takes tenants the rights to blobs that nothing of theirs needs and that were not used
    /// lately; returns how many. A blob without any is collected as other unused content is.
    ///
    /// # Errors
    /// When the database or a folder cannot be read.
    pub async fn sweep_grants(self: &Arc<Self>) -> Result<usize, Error> {
        let (mut held, mut contexts, mut after) = (HashSet::new(), Vec::new(), None);
        loop {
            let piece = self.store().held_blobs(after, HELD_MAX).await?;
            let Some((last, _)) = piece.last() else { break };
            after = Some(*last);
            contexts.extend(piece.iter().filter(|(_, context)| *context).map(|(d, _)| *d));
            held.extend(piece.into_iter().map(|(digest, _)| digest));
        }
        let until = SystemTime::now().checked_sub(GRANT_KEPT).unwrap_or(SystemTime::UNIX_EPOCH);
        self.blocking(move |service| {
            for context in contexts {
                held.extend(service.files_of_context(context)?);
            }
            service.grants().retain(until, |digest| held.contains(digest))
        })
        .await
    }

    /// Returns the blobs that a context lists. One whose manifest is not on this machine lists
    /// none here.
    fn files_of_context(&self, manifest: Digest) -> Result<Vec<Digest>, Error> {
        let blobs = self.engine().images().blobs();
        let bytes = match blobs.read(&manifest, MANIFEST_BYTES_MAX) {
            Err(ashlar_blobs::BlobError::Missing(_)) => return Ok(Vec::new()),
            other => other?,
        };
        let manifest: ContextManifest = serde_json::from_slice(&bytes).map_err(Error::internal)?;
        let digest = |kind: EntryKind| match kind {
            EntryKind::File { digest, .. } => Some(digest),
            _ => None,
        };
        Ok(manifest.files.into_iter().filter_map(|file| digest(file.kind)).collect())
    }
}
