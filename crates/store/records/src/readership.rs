//! Whose content is that came with somebody's credentials or that a build made, where several
//! servers share a blob store: a mark that one server sets holds on all of them. A row is a tenant, or
//! stands for everybody (the nil id) or nobody (the largest one).

use ashlar_core::{Digest, TenantId};

use crate::db::{Tx, args};
use crate::{Error, Store};

/// What is known of a tenant and some content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readership {
    /// The tenant is marked as a reader or has a right to the blob, or everybody may read it.
    Reader,
    /// Others are marked and the tenant is not.
    Others,
    /// Nobody is marked.
    Unknown,
}

/// Who may read content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// One tenant.
    Tenant(TenantId),
    /// Everybody: a registry gave it that asked for no credentials.
    Everybody,
    /// Nobody yet: it is being fetched, and is not everybody's.
    Nobody,
}

impl Reader {
    const fn id(self) -> TenantId {
        match self {
            Self::Tenant(tenant) => tenant,
            Self::Everybody => TenantId::from_uuid(uuid::Uuid::nil()),
            Self::Nobody => TenantId::from_uuid(uuid::Uuid::max()),
        }
    }
}

impl Store {
    /// Returns whether a tenant may read content.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn readership(&self, tenant: TenantId, digest: Digest) -> Result<Readership, Error> {
        // One statement a question that has one row for an answer, and none reads a whole table.
        let sql = "SELECT CAST(1 AS BIGINT) FROM readers \
                   WHERE digest = $1 AND tenant IN ($2, $3) UNION ALL \
                   SELECT CAST(1 AS BIGINT) FROM grants \
                   WHERE tenant = $2 AND digest = $1 UNION ALL \
                   SELECT CAST(0 AS BIGINT) FROM readers WHERE digest = $1";
        let rows = self.db.all(sql, args![digest, tenant, Reader::Everybody.id()]).await?;
        let mut found = Readership::Unknown;
        for row in rows {
            match row.int(0)? {
                0 => found = Readership::Others,
                _ => return Ok(Readership::Reader),
            }
        }
        Ok(found)
    }

    /// Marks a reader of content; with `if_marked` only where somebody is marked already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_reader(
        &self,
        reader: Reader,
        digest: Digest,
        if_marked: bool,
    ) -> Result<(), Error> {
        let reader = reader.id();
        let sql = "SELECT tenant FROM readers WHERE digest = $1 AND tenant IN ($2, $3)";
        let known = self.db.all(sql, args![digest, reader, Reader::Everybody.id()]).await?;
        // Most of what is asked for is known, and costs no write then.
        if !known.is_empty() {
            return Ok(());
        }
        let mut tx = self.db.write().await?;
        if !if_marked || is_marked(&mut tx, digest).await? {
            let sql = "INSERT INTO readers (digest, tenant) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            tx.run(sql, args![digest, reader]).await?;
        }
        tx.commit().await
    }
}

async fn is_marked(tx: &mut Tx, digest: Digest) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM readers WHERE digest = $1 LIMIT 1";
    Ok(tx.maybe(sql, args![digest]).await?.is_some())
}
