//! Which tenant may read which blob, where several servers share a blob store.
//!
//! Rows and not empty objects beside the blobs: a client asks for many digests at once, which is a
//! few statements here and a request each there.

use std::collections::BTreeSet;

use ashlar_core::{Digest, TenantId};
use sqlx::AssertSqlSafe;

use crate::db::{Arg, args, pieces, placeholders};
use crate::{Error, Store};

impl Store {
    /// Lets a tenant read blobs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn grant(&self, tenant: TenantId, digests: &[Digest]) -> Result<(), Error> {
        let mut tx = self.db.write().await?;
        // In one order, so that two that grant the same do not wait for each other in a circle.
        let sorted: Vec<Digest> =
            digests.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        for piece in pieces(&sorted) {
            let rows = placeholders(1, piece.len(), 2);
            let sql = format!(
                "INSERT INTO grants (tenant, digest) VALUES {rows} \
                 ON CONFLICT (tenant, digest) DO NOTHING"
            );
            let values = piece.iter().flat_map(|digest| args![tenant, *digest]).collect();
            tx.run(AssertSqlSafe(sql), values).await?;
        }
        tx.commit().await
    }

    /// Returns which of these blobs a tenant may read.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn granted(
        &self,
        tenant: TenantId,
        digests: &[Digest],
    ) -> Result<BTreeSet<Digest>, Error> {
        let mut found = BTreeSet::new();
        for piece in pieces(digests) {
            let mut values = args![tenant];
            values.extend(piece.iter().map(|digest| Arg::from(*digest)));
            let places: Vec<String> = (2..=values.len()).map(|n| format!("${n}")).collect();
            let sql = format!(
                "SELECT digest FROM grants WHERE tenant = $1 AND digest IN ({})",
                places.join(",")
            );
            for row in self.db.all(AssertSqlSafe(sql), values).await? {
                found.insert(row.digest(0)?);
            }
        }
        Ok(found)
    }
}
