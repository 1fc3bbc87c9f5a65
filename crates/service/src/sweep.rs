//! Finds what nobody needs any more on this machine's disk: images of builds that are gone, and
//! rights to blobs that no build or document names. Blobs and layers themselves are then collected
//! by the engine; objects of a store that servers share by [`crate::collect`].
//!
//! What a crash left between a record's end and its image's is found here too.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ashlar_core::{BuildId, Digest, TenantId, Timestamp};
use ashlar_records::Grant;
use tokio::runtime::Handle;

use crate::maintain::ago;
use crate::recipe::INTERNAL_HOST;
use crate::{Error, Service};

/// A right to a blob that was used this lately stays: a build that needs it may be on its way.
pub(crate) const GRANT_KEPT: Duration = Duration::from_secs(2 * 24 * 3600);
/// Builds that are looked up at once.
const BUILDS_AT_ONCE: usize = 256;
/// Rights that are held against what is needed at once: a bound on memory. For each such piece all
/// lists are read.
const GRANTS_AT_ONCE: usize = 1 << 17;

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
    /// When the database, a folder or the blob store cannot be read.
    pub async fn sweep_grants(self: &Arc<Self>) -> Result<usize, Error> {
        let runtime = Handle::current();
        self.blocking(move |service| service.lapse_grants(&runtime)).await
    }

    /// As [`sweep_grants`](Self::sweep_grants). Blocks.
    pub(crate) fn lapse_grants(&self, runtime: &Handle) -> Result<usize, Error> {
        let (until, mut gone) = (ago(GRANT_KEPT), 0);
        self.grants().each_old(until, GRANTS_AT_ONCE, |piece| {
            gone += self.lapse_unneeded(runtime, piece, until)?;
            Ok(())
        })?;
        Ok(gone)
    }

    fn lapse_unneeded(
        &self,
        runtime: &Handle,
        mut piece: Vec<Grant>,
        until: Timestamp,
    ) -> Result<usize, Error> {
        let blobs: HashSet<Digest> = piece.iter().map(|grant| grant.digest).collect();
        let unneeded = self.unneeded(runtime, blobs, until)?;
        piece.retain(|grant| {
            unneeded.blobs.contains(&grant.digest) && !unneeded.in_doubt.contains(&grant.tenant)
        });
        self.grants().lapse(&piece, until)
    }
}
