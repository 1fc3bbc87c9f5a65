//! Which tenant may read which blob, where several servers share a blob store.
//!
//! Rows and not empty objects beside the blobs: a client asks for many digests at once, which is a
//! few statements here and a request each there.
//!
//! A right says when it was last used, so that one that nobody uses and nothing needs can lapse. A
//! blob that somebody has a right to is never removed from the store ([`crate::Store::begin_removal`]).

use std::collections::BTreeSet;
use std::time::Duration;

use ashlar_core::{Digest, TenantId, Timestamp};
use sqlx::AssertSqlSafe;

use crate::db::{Arg, Row, Tx, args, pieces, placeholders};
use crate::leases::after;
use crate::removals::{self, Removals};
use crate::store::retried;
use crate::{Error, Store};

/// How exactly the time of the last use is kept: a use within it costs no write.
pub const USED_EVERY: Duration = Duration::from_secs(3600);
/// Rights that one look returns at most.
pub const GRANTS_MAX: u32 = 1000;

/// A right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Whose.
    pub tenant: TenantId,
    /// To which blob.
    pub digest: Digest,
    /// When it was last used, give or take [`USED_EVERY`].
    pub used_at: Timestamp,
}

impl Store {
    /// Lets a tenant read blobs, or says that some of them are being removed from the store just
    /// now: nothing was granted then, ask again in a moment. Once they are granted they are not
    /// removed before the right has lapsed; so grant first, then see to it that they are stored.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn grant(
        &self,
        tenant: TenantId,
        digests: &[Digest],
        is_context: bool,
        now: Timestamp,
    ) -> Result<bool, Error> {
        // In one order, so that two that grant the same do not wait for each other in a circle.
        let sorted: Vec<Digest> =
            digests.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        retried(|| self.grant_once(tenant, &sorted, is_context, now)).await
    }

    async fn grant_once(
        &self,
        tenant: TenantId,
        sorted: &[Digest],
        is_context: bool,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut tx = self.db.write().await?;
        removals::lock(&mut tx, Removals::MustNotBegin).await?;
        for piece in pieces(sorted) {
            if removals::under_way(&mut tx, piece, now).await? {
                return Ok(false);
            }
            insert(&mut tx, tenant, piece, is_context, now).await?;
        }
        tx.commit().await.map(|()| true)
    }

    /// Returns which of these blobs a tenant may read, and notes that the rights are used.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn granted(
        &self,
        tenant: TenantId,
        digests: &[Digest],
        now: Timestamp,
    ) -> Result<BTreeSet<Digest>, Error> {
        self.granted_as(tenant, digests, false, now).await
    }

    /// Says whether a tenant may read a blob that was granted as a context.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn granted_context(
        &self,
        tenant: TenantId,
        digest: Digest,
        now: Timestamp,
    ) -> Result<bool, Error> {
        Ok(!self.granted_as(tenant, &[digest], true, now).await?.is_empty())
    }

    async fn granted_as(
        &self,
        tenant: TenantId,
        digests: &[Digest],
        as_context: bool,
        now: Timestamp,
    ) -> Result<BTreeSet<Digest>, Error> {
        let (mut found, mut stale) = (BTreeSet::new(), Vec::new());
        let fresh = before(now, USED_EVERY);
        for piece in pieces(digests) {
            let mut values = args![tenant, as_context];
            values.extend(piece.iter().map(|digest| Arg::from(*digest)));
            let places: Vec<String> = (3..=values.len()).map(|n| format!("${n}")).collect();
            let sql = format!(
                "SELECT digest, used_at FROM grants WHERE tenant = $1 AND context >= $2 \
                 AND digest IN ({})",
                places.join(",")
            );
            for row in self.db.all(AssertSqlSafe(sql), values).await? {
                let digest = row.digest(0)?;
                if row.time(1)? < fresh {
                    stale.push(digest);
                } else {
                    found.insert(digest);
                }
            }
        }
        if !stale.is_empty() {
            stale.sort_unstable();
            found.extend(retried(|| self.use_again(tenant, &stale, now)).await?);
        }
        Ok(found)
    }

    /// Notes that rights are used; returns those that have not lapsed meanwhile.
    async fn use_again(
        &self,
        tenant: TenantId,
        digests: &[Digest],
        now: Timestamp,
    ) -> Result<Vec<Digest>, Error> {
        let (mut tx, mut there) = (self.db.write().await?, Vec::new());
        for digest in digests {
            let sql = "UPDATE grants SET used_at = $3 WHERE tenant = $1 AND digest = $2";
            if tx.run(sql, args![tenant, *digest, now]).await? > 0 {
                there.push(*digest);
            }
        }
        tx.commit().await.map(|()| there)
    }

    /// Lists rights by tenant and digest, after one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn grants(&self, after: Option<&Grant>, limit: u32) -> Result<Vec<Grant>, Error> {
        let sql = "SELECT tenant, digest, used_at FROM grants WHERE (tenant, digest) > ($1, $2) \
                   ORDER BY tenant, digest LIMIT $3";
        let rows = self.db.all(sql, place(after, limit)).await?;
        rows.iter().map(grant).collect()
    }

    /// Lists rights to contexts that were used since a time, by digest and tenant, after one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn granted_contexts(
        &self,
        after: Option<&Grant>,
        used_since: Timestamp,
        limit: u32,
    ) -> Result<Vec<Grant>, Error> {
        let sql = "SELECT tenant, digest, used_at FROM grants WHERE context = 1 \
                   AND (digest, tenant) > ($2, $1) AND used_at >= $4 \
                   ORDER BY digest, tenant LIMIT $3";
        let mut values = place(after, limit);
        values.push(used_since.into());
        let rows = self.db.all(sql, values).await?;
        rows.iter().map(grant).collect()
    }

    /// Takes rights back, but for those that were used since a time; returns how many went.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lapse(&self, grants: &[Grant], used_since: Timestamp) -> Result<u64, Error> {
        let mut gone = 0;
        for piece in pieces(grants) {
            gone += retried(|| self.lapse_once(piece, used_since)).await?;
        }
        Ok(gone)
    }

    async fn lapse_once(&self, grants: &[Grant], used_since: Timestamp) -> Result<u64, Error> {
        let (mut tx, mut gone) = (self.db.write().await?, 0);
        for grant in grants {
            let sql = "DELETE FROM grants WHERE tenant = $1 AND digest = $2 AND used_at < $3";
            gone += tx.run(sql, args![grant.tenant, grant.digest, used_since]).await?;
        }
        tx.commit().await.map(|()| gone)
    }
}

async fn insert(
    tx: &mut Tx,
    tenant: TenantId,
    digests: &[Digest],
    is_context: bool,
    now: Timestamp,
) -> Result<(), Error> {
    let rows = placeholders(1, digests.len(), 4);
    // A context stays one when its bytes are granted again as any others.
    let sql = format!(
        "INSERT INTO grants (tenant, digest, used_at, context) VALUES {rows} \
         ON CONFLICT (tenant, digest) DO UPDATE SET used_at = excluded.used_at, \
         context = CASE WHEN excluded.context = 1 THEN 1 ELSE grants.context END"
    );
    let values = digests.iter().flat_map(|d| args![tenant, *d, now, is_context]).collect();
    tx.run(AssertSqlSafe(sql), values).await.map(drop)
}

/// Returns the place in a walk, as values.
fn place(after: Option<&Grant>, limit: u32) -> Vec<Arg> {
    let nothing = (Vec::new(), Vec::new());
    let (tenant, digest) = after
        .map_or(nothing, |g| (g.tenant.uuid().as_bytes().to_vec(), g.digest.as_bytes().to_vec()));
    args![tenant, digest, limit.min(GRANTS_MAX)]
}

fn grant(row: &Row) -> Result<Grant, Error> {
    Ok(Grant { tenant: row.tenant(0)?, digest: row.digest(1)?, used_at: row.time(2)? })
}

pub(crate) fn before(now: Timestamp, time: Duration) -> Timestamp {
    let nanos = after(Timestamp::from_nanos(0), time).nanos();
    Timestamp::from_nanos(now.nanos().saturating_sub(nanos))
}
