//! Documents that dialects keep: their own objects beside builds, found by declared indexes.

use ashlar_core::{BuildId, Digest, TenantId, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::aliases::or_all;
use crate::builds::json;
use crate::db::{Arg, Row, Tx, args, pieces, placeholders};
use crate::kept::{self, Held, Holder};
use crate::{Error, Store};

/// The longest document, in bytes of JSON.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Documents that one look returns at most.
pub const DOCUMENTS_MAX: u32 = 1000;

/// A type of document.
pub trait DocumentType: Serialize + DeserializeOwned {
    /// The dialect that owns it.
    const DIALECT: &'static str;
    /// What it is, unique within the dialect.
    const KIND: &'static str;

    /// Returns what it is found by: names of indexes and its values in them.
    fn keys(&self) -> Vec<(&'static str, String)>;

    /// Returns the blobs that it names: they stay as long as it does.
    fn blobs(&self) -> Vec<Digest> {
        Vec::new()
    }
}

/// A document to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDocument {
    dialect: &'static str,
    kind: &'static str,
    tenant: Option<TenantId>,
    id: Uuid,
    body: String,
    keys: Vec<(&'static str, String)>,
    blobs: Vec<Digest>,
}

impl NewDocument {
    /// Makes a document of a tenant, or of none.
    ///
    /// # Errors
    /// When it is too large or cannot be written as JSON.
    pub fn new<T: DocumentType>(
        tenant: Option<TenantId>,
        id: Uuid,
        value: &T,
    ) -> Result<Self, Error> {
        let body = json(value)?;
        if body.len() > DOCUMENT_BYTES_MAX {
            let max = DOCUMENT_BYTES_MAX as u64;
            return Err(Error::TooLarge { what: "the document", max, unit: "bytes" });
        }
        let (dialect, kind, keys) = (T::DIALECT, T::KIND, value.keys());
        Ok(Self { dialect, kind, tenant, id, body, keys, blobs: value.blobs() })
    }

    pub(crate) const fn id(&self) -> Uuid {
        self.id
    }
}

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<T> {
    /// Its id.
    pub id: Uuid,
    /// The build that it goes with, and goes away with.
    pub build: Option<BuildId>,
    /// Counts its changes, from 1.
    pub version: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Where it lies in lists: a cursor.
    pub position: i64,
    /// What it says.
    pub value: T,
}

pub(crate) async fn insert(
    tx: &mut Tx,
    new: &NewDocument,
    build: Option<BuildId>,
    now: Timestamp,
) -> Result<(), Error> {
    let sql = "INSERT INTO documents \
               (dialect, tenant, kind, id, build, version, created_at, updated_at, body) \
               VALUES ($1, $2, $3, $4, $5, 1, $6, $6, $7) \
               ON CONFLICT (dialect, tenant, kind, id) DO NOTHING RETURNING position";
    let body = new.body.as_str();
    let values = args![new.dialect, or_all(new.tenant), new.kind, new.id, build, now, body];
    let row = tx.maybe(sql, values).await?;
    let row = row.ok_or_else(|| Error::Taken { what: "document", name: new.id.to_string() })?;
    insert_parts(tx, new, row.int(0)?).await
}

/// Replaces a document that nobody changed since it had `version`; says whether it did.
pub(crate) async fn replace(
    tx: &mut Tx,
    new: &NewDocument,
    version: u64,
    now: Timestamp,
) -> Result<bool, Error> {
    let sql = "UPDATE documents SET body = $5, updated_at = $6, version = version + 1 \
               WHERE dialect = $1 AND tenant = $2 AND kind = $3 AND id = $4 AND version = $7 \
               RETURNING position";
    let (tenant, body) = (or_all(new.tenant), new.body.as_str());
    let values = args![new.dialect, tenant, new.kind, new.id, body, now, version];
    let Some(row) = tx.maybe(sql, values).await? else { return Ok(false) };
    let position = row.int(0)?;
    delete_parts(tx, position).await?;
    insert_parts(tx, new, position).await.map(|()| true)
}

async fn insert_parts(tx: &mut Tx, new: &NewDocument, position: i64) -> Result<(), Error> {
    for digest in &new.blobs {
        kept::hold(tx, *digest, Holder::Document(position), Held::Plain).await?;
    }
    for (name, value) in &new.keys {
        let sql = "INSERT INTO document_keys (dialect, tenant, kind, name, value, position) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let values = args![new.dialect, or_all(new.tenant), new.kind, *name, value, position];
        tx.run(sql, values).await?;
    }
    Ok(())
}

async fn delete_parts(tx: &mut Tx, position: i64) -> Result<(), Error> {
    let held = "DELETE FROM holds WHERE document = $1 AND document > 0";
    for sql in ["DELETE FROM document_keys WHERE position = $1", held] {
        tx.run(sql, args![position]).await?;
    }
    Ok(())
}

const COLUMNS: &str = "d.id, d.build, d.version, d.created_at, d.updated_at, d.position, d.body";

fn document<T: DocumentType>(row: &Row) -> Result<Document<T>, Error> {
    let build = row.maybe_bytes(1)?.map(|b| Uuid::from_slice(&b)).transpose();
    Ok(Document {
        id: row.uuid(0)?,
        build: build.map_err(|e| Error::damaged("a document", e))?.map(BuildId::from_uuid),
        version: row.count(2)?,
        created_at: row.time(3)?,
        updated_at: row.time(4)?,
        position: row.int(5)?,
        value: row.json(6, T::KIND)?,
    })
}

impl Store {
    /// Writes a new document.
    ///
    /// # Errors
    /// [`Error::Taken`] when its id is in use.
    pub async fn add_document(&self, new: &NewDocument, now: Timestamp) -> Result<(), Error> {
        let mut tx = self.db.write().await?;
        insert(&mut tx, new, None, now).await?;
        tx.commit().await
    }

    /// Replaces a document, if nobody changed it since it had `version`; says whether it did.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replace_document(
        &self,
        new: &NewDocument,
        version: u64,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut tx = self.db.write().await?;
        if !replace(&mut tx, new, version, now).await? {
            return Ok(false);
        }
        tx.commit().await.map(|()| true)
    }

    /// Returns a document.
    ///
    /// # Errors
    /// When the database fails or the document is damaged.
    pub async fn document<T: DocumentType>(
        &self,
        tenant: Option<TenantId>,
        id: Uuid,
    ) -> Result<Option<Document<T>>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM documents d \
             WHERE d.dialect = $1 AND d.tenant = $2 AND d.kind = $3 AND d.id = $4"
        );
        let values = args![T::DIALECT, or_all(tenant), T::KIND, id];
        let row = self.db.maybe(sqlx::AssertSqlSafe(sql), values).await?;
        row.map(|row| document(&row)).transpose()
    }

    /// Returns those of these documents that there are, in no order.
    ///
    /// # Errors
    /// When the database fails or a document is damaged.
    pub async fn documents_of<T: DocumentType>(
        &self,
        tenant: Option<TenantId>,
        ids: &[Uuid],
    ) -> Result<Vec<Document<T>>, Error> {
        let mut found = Vec::with_capacity(ids.len());
        for piece in pieces(ids) {
            let wanted = placeholders(4, piece.len(), 1);
            let sql = format!(
                "SELECT {COLUMNS} FROM documents d WHERE d.dialect = $1 AND d.tenant = $2 \
                 AND d.kind = $3 AND d.id IN (VALUES {wanted})"
            );
            let mut values = args![T::DIALECT, or_all(tenant), T::KIND];
            values.extend(piece.iter().map(|id| Arg::from(*id)));
            let rows = self.db.all(sqlx::AssertSqlSafe(sql), values).await?;
            for row in &rows {
                found.push(document(row)?);
            }
        }
        Ok(found)
    }

    /// Lists a tenant's documents of a type in the order in which they were made, after a cursor.
    ///
    /// # Errors
    /// When the database fails or a document is damaged.
    pub async fn documents<T: DocumentType>(
        &self,
        tenant: Option<TenantId>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<Document<T>>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM documents d WHERE d.dialect = $1 AND d.tenant = $2 \
             AND d.kind = $3 AND d.position > $4 ORDER BY d.position LIMIT $5"
        );
        let limit = limit.min(DOCUMENTS_MAX);
        let values = args![T::DIALECT, or_all(tenant), T::KIND, after, limit];
        let rows = self.db.all(sqlx::AssertSqlSafe(sql), values).await?;
        rows.iter().map(document).collect()
    }

    /// Lists those documents that have a value in an index.
    ///
    /// # Errors
    /// When the database fails or a document is damaged.
    pub async fn documents_by<T: DocumentType>(
        &self,
        tenant: Option<TenantId>,
        (index, value): (&str, &str),
        after: i64,
        limit: u32,
    ) -> Result<Vec<Document<T>>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM document_keys k CROSS JOIN documents d \
             WHERE k.dialect = $1 AND k.tenant = $2 AND k.kind = $3 AND k.name = $4 \
             AND k.value = $5 AND k.position > $6 AND d.position = k.position \
             ORDER BY k.position LIMIT $7"
        );
        let limit = limit.min(DOCUMENTS_MAX);
        let values = args![T::DIALECT, or_all(tenant), T::KIND, index, value, after, limit];
        let rows = self.db.all(sqlx::AssertSqlSafe(sql), values).await?;
        rows.iter().map(document).collect()
    }

    /// Removes a document; says whether it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_document<T: DocumentType>(
        &self,
        tenant: Option<TenantId>,
        id: Uuid,
    ) -> Result<bool, Error> {
        let mut tx = self.db.write().await?;
        let sql = "DELETE FROM documents WHERE dialect = $1 AND tenant = $2 AND kind = $3 \
                   AND id = $4 RETURNING position";
        let values = args![T::DIALECT, or_all(tenant), T::KIND, id];
        let Some(row) = tx.maybe(sql, values).await? else { return Ok(false) };
        let position = row.int(0)?;
        delete_parts(&mut tx, position).await?;
        tx.commit().await.map(|()| true)
    }
}
