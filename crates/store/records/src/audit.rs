//! The audit log: who changed what.

use ashlar_core::{PrincipalId, TenantId, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::db::{Row, Tx, args};
use crate::{Error, Store};

/// Entries that one look returns at most.
pub const AUDIT_MAX: u32 = 1000;
/// Entries that one call removes at most.
const REMOVE_AT_ONCE: u32 = 5000;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Whose things were changed.
    pub tenant: TenantId,
    /// Who did it; none for the service itself.
    pub principal: Option<PrincipalId>,
    /// What was done, for example `build.cancel`.
    pub action: String,
    /// To what, for example a build's id.
    pub subject: String,
    /// More, without secrets.
    pub detail: Value,
}

impl Store {
    /// Writes an entry.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&self, entry: &AuditEntry) -> Result<(), Error> {
        let mut tx = self.db.write().await?;
        insert(&mut tx, entry).await?;
        tx.commit().await
    }

    /// Reads a tenant's entries, newest first, before a cursor (none: the newest). Each comes with
    /// the cursor that continues after it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_log(
        &self,
        tenant: TenantId,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, AuditEntry)>, Error> {
        let sql = "SELECT position, at, tenant, principal, action, subject, detail FROM audit \
                   WHERE tenant = $1 AND position < $2 ORDER BY position DESC LIMIT $3";
        let before = before.unwrap_or(i64::MAX);
        let rows = self.db.all(sql, args![tenant, before, limit.min(AUDIT_MAX)]).await?;
        rows.iter().map(|row| Ok((row.int(0)?, entry(row)?))).collect()
    }

    /// Removes entries older than a time, some at a time; returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_audit(&self, before: Timestamp) -> Result<u64, Error> {
        let sql = "DELETE FROM audit WHERE position IN \
                   (SELECT position FROM audit WHERE at < $1 ORDER BY at LIMIT $2)";
        self.db.run(sql, args![before, REMOVE_AT_ONCE]).await
    }
}

/// Writes an entry as a part of what it tells.
pub(crate) async fn insert(tx: &mut Tx, entry: &AuditEntry) -> Result<(), Error> {
    let sql = "INSERT INTO audit (at, tenant, principal, action, subject, detail) \
               VALUES ($1, $2, $3, $4, $5, $6)";
    let detail = entry.detail.to_string();
    let (action, subject) = (&entry.action, &entry.subject);
    let values = args![entry.at, entry.tenant, entry.principal, action, subject, detail];
    tx.run(sql, values).await.map(drop)
}

fn entry(row: &Row) -> Result<AuditEntry, Error> {
    let principal = row.maybe_bytes(3)?.map(|b| Uuid::from_slice(&b)).transpose();
    let principal = principal.map_err(|e| Error::damaged("the audit log", e))?;
    Ok(AuditEntry {
        at: row.time(1)?,
        tenant: row.tenant(2)?,
        principal: principal.map(PrincipalId::from_uuid),
        action: row.text(4)?,
        subject: row.text(5)?,
        detail: row.json(6, "the audit log")?,
    })
}
