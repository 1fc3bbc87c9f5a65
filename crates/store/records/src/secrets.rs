//! Secrets at rest: sealed records of two lives.
//!
//! *Held* secrets belong to something that lasts (a trigger, a registry) and stay until they are
//! removed. *Build-bound* ones come with a submission and are erased in the transaction that ends
//! the build; a retry has to bring them again. Those whose names begin with [`KEPT_PREFIX`] stay
//! until the build is forgotten.

use ashlar_core::{BuildId, Hasher, TenantId, Timestamp};

use crate::db::{Row, Tx, args};
use crate::seal::{KeyRing, Secret};
use crate::{Error, Store};

/// The longest secret, in bytes.
pub const SECRET_BYTES_MAX: usize = 1024 * 1024;
/// What names of secrets begin with that stay as long as the build's record.
pub const KEPT_PREFIX: &str = "kept/";
/// Values that one step of a rotation seals anew.
const ROTATE_AT_ONCE: u32 = 100;

/// A value sealed for one build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    name: String,
    key: String,
    sealed: Vec<u8>,
}

impl Sealed {
    /// Seals a value for a build that is about to be submitted.
    ///
    /// # Errors
    /// When the value is too large.
    pub fn for_build(
        keys: &KeyRing,
        build: BuildId,
        name: &str,
        secret: &Secret,
    ) -> Result<Self, Error> {
        check_size(secret)?;
        let (key, sealed) = keys.seal(&build_place(build, name), secret)?;
        Ok(Self { name: name.to_owned(), key, sealed })
    }
}

fn check_size(secret: &Secret) -> Result<(), Error> {
    if secret.expose().len() > SECRET_BYTES_MAX {
        let max = SECRET_BYTES_MAX as u64;
        return Err(Error::TooLarge { what: "the secret", max, unit: "bytes" });
    }
    Ok(())
}

fn build_place(build: BuildId, name: &str) -> Vec<u8> {
    place("build", &[build.uuid().as_bytes(), name.as_bytes()])
}

fn held_place(tenant: TenantId, holder: &str, name: &str) -> Vec<u8> {
    place("held", &[tenant.uuid().as_bytes(), holder.as_bytes(), name.as_bytes()])
}

fn place(kind: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut hasher = Hasher::new();
    hasher.field("ashlar.sealed.v1").field(kind);
    for part in parts {
        hasher.field(part);
    }
    hasher.finish().as_bytes().to_vec()
}

pub(crate) async fn bind(tx: &mut Tx, build: i64, sealed: &Sealed) -> Result<(), Error> {
    let sql = "INSERT INTO build_secrets (build, name, key_id, sealed) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (build, name) DO NOTHING";
    let bytes = sealed.sealed.as_slice();
    match tx.run(sql, args![build, &sealed.name, &sealed.key, bytes]).await? {
        0 => Err(Error::Taken { what: "secret", name: sealed.name.clone() }),
        _ => Ok(()),
    }
}

/// What is sealed to know a key again.
const CHECK: &str = "check";

/// Erases the secrets of a build that has ended.
pub(crate) async fn erase_bound(tx: &mut Tx, build: i64) -> Result<(), Error> {
    let sql = "DELETE FROM build_secrets WHERE build = $1 AND substr(name, 1, 5) <> $2";
    tx.run(sql, args![build, KEPT_PREFIX]).await.map(drop)
}

impl Store {
    /// Makes sure that these keys are those of the database: the first server writes a sealed value
    /// down, all others must be able to open it.
    ///
    /// # Errors
    /// [`Error::OtherKey`]; when the database fails.
    pub async fn check_key(&self, keys: &KeyRing) -> Result<(), Error> {
        let at = place(CHECK, &[]);
        let (key, sealed) = keys.seal(&at, &Secret::new(CHECK.into()))?;
        let mut tx = self.db.write().await?;
        let sql = "INSERT INTO key_check (name, key_id, sealed) VALUES ($1, $2, $3) \
                   ON CONFLICT (name) DO NOTHING";
        tx.run(sql, args![CHECK, &key, sealed.as_slice()]).await?;
        let sql = "SELECT key_id, sealed FROM key_check WHERE name = $1";
        let row = tx.one(sql, args![CHECK]).await?;
        let known = row.text(0)?;
        keys.open((&known, &row.bytes(1)?), &at, CHECK).map_err(|_| Error::OtherKey)?;
        if known != key {
            let sql = "UPDATE key_check SET key_id = $2, sealed = $3 WHERE name = $1";
            tx.run(sql, args![CHECK, key, sealed]).await?;
        }
        tx.commit().await
    }

    /// Returns a secret of a build that has ended: one that stays with its record.
    ///
    /// # Errors
    /// [`Error::Sealed`] when it cannot be opened with these keys.
    pub async fn kept_secret(
        &self,
        keys: &KeyRing,
        build: BuildId,
        name: &str,
    ) -> Result<Option<Secret>, Error> {
        let sql = "SELECT s.key_id, s.sealed FROM builds b \
                   JOIN build_secrets s ON s.build = b.position WHERE b.id = $1 AND s.name = $2";
        let Some(row) = self.db.maybe(sql, args![build, name]).await? else { return Ok(None) };
        keys.open((&row.text(0)?, &row.bytes(1)?), &build_place(build, name), name).map(Some)
    }

    /// Returns a build's secrets by name, for the worker that holds it; none once it has ended.
    ///
    /// # Errors
    /// [`Error::Sealed`] when one cannot be opened with these keys.
    pub async fn build_secrets(
        &self,
        keys: &KeyRing,
        build: BuildId,
        fence: u64,
    ) -> Result<Vec<(String, Secret)>, Error> {
        let sql = "SELECT s.name, s.key_id, s.sealed FROM builds b \
                   JOIN leases l ON l.build = b.position \
                   JOIN build_secrets s ON s.build = b.position \
                   WHERE b.id = $1 AND l.fence = $2 ORDER BY s.name";
        let rows = self.db.all(sql, args![build, fence]).await?;
        let open = |row: &Row| {
            let (name, key, sealed) = (row.text(0)?, row.text(1)?, row.bytes(2)?);
            let secret = keys.open((&key, &sealed), &build_place(build, &name), &name)?;
            Ok((name, secret))
        };
        rows.iter().map(open).collect()
    }

    /// Keeps a secret, in place of an earlier one of the same name.
    ///
    /// # Errors
    /// When it is too large or the database fails.
    pub async fn hold_secret(
        &self,
        keys: &KeyRing,
        (tenant, holder, name): (TenantId, &str, &str),
        secret: &Secret,
        now: Timestamp,
    ) -> Result<(), Error> {
        check_size(secret)?;
        let (key, sealed) = keys.seal(&held_place(tenant, holder, name), secret)?;
        let sql = "INSERT INTO held_secrets (tenant, holder, name, key_id, sealed, updated_at) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant, holder, name) DO UPDATE \
                   SET key_id = excluded.key_id, sealed = excluded.sealed, \
                   updated_at = excluded.updated_at";
        self.db.run(sql, args![tenant, holder, name, key, sealed, now]).await.map(drop)
    }

    /// Returns a held secret.
    ///
    /// # Errors
    /// [`Error::Sealed`] when it cannot be opened with these keys.
    pub async fn held_secret(
        &self,
        keys: &KeyRing,
        (tenant, holder, name): (TenantId, &str, &str),
    ) -> Result<Option<Secret>, Error> {
        let sql = "SELECT key_id, sealed FROM held_secrets \
                   WHERE tenant = $1 AND holder = $2 AND name = $3";
        let Some(row) = self.db.maybe(sql, args![tenant, holder, name]).await? else {
            return Ok(None);
        };
        let place = held_place(tenant, holder, name);
        keys.open((&row.text(0)?, &row.bytes(1)?), &place, name).map(Some)
    }

    /// Returns the names of a holder's secrets with the times when they were set.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn held_secret_names(
        &self,
        tenant: TenantId,
        holder: &str,
    ) -> Result<Vec<(String, Timestamp)>, Error> {
        let sql = "SELECT name, updated_at FROM held_secrets \
                   WHERE tenant = $1 AND holder = $2 ORDER BY name";
        let rows = self.db.all(sql, args![tenant, holder]).await?;
        rows.iter().map(|row| Ok((row.text(0)?, row.time(1)?))).collect()
    }

    /// Erases a holder's secret, or with no name all of them; returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn erase_held_secrets(
        &self,
        tenant: TenantId,
        holder: &str,
        name: Option<&str>,
    ) -> Result<u64, Error> {
        // PostgreSQL has to be told the type of a value that is only compared with null.
        let sql = "DELETE FROM held_secrets WHERE tenant = $1 AND holder = $2 \
                   AND (CAST($3 AS TEXT) IS NULL OR name = $3)";
        let mut tx = self.db.write().await?;
        let erased = tx.run(sql, args![tenant, holder, name]).await?;
        tx.commit().await.map(|()| erased)
    }

    /// Seals values anew that an older key sealed, some at a time; returns how many. After it has
    /// returned 0 the older keys may be thrown away.
    ///
    /// # Errors
    /// [`Error::Sealed`] when a value cannot be opened with any of the keys.
    pub async fn rotate_secrets(&self, keys: &KeyRing) -> Result<u64, Error> {
        let mut tx = self.db.write().await?;
        let held = rotate_held(&mut tx, keys).await?;
        let bound = rotate_bound(&mut tx, keys).await?;
        tx.commit().await.map(|()| held + bound)
    }
}

async fn rotate_held(tx: &mut Tx, keys: &KeyRing) -> Result<u64, Error> {
    // Two ranges of the index on keys: "not equal" would read all secrets.
    let sql = "SELECT tenant, holder, name, key_id, sealed FROM held_secrets WHERE key_id < $1 \
               UNION ALL \
               SELECT tenant, holder, name, key_id, sealed FROM held_secrets WHERE key_id > $1 \
               LIMIT $2";
    let rows = tx.all(sql, args![keys.id(), ROTATE_AT_ONCE]).await?;
    for row in &rows {
        let (tenant, holder, name) = (row.tenant(0)?, row.text(1)?, row.text(2)?);
        let place = held_place(tenant, &holder, &name);
        let old = row.text(3)?;
        let secret = keys.open((&old, &row.bytes(4)?), &place, &name)?;
        let (key, sealed) = keys.seal(&place, &secret)?;
        // A value that was set in the meantime stays.
        let sql = "UPDATE held_secrets SET key_id = $4, sealed = $5 \
                   WHERE tenant = $1 AND holder = $2 AND name = $3 AND key_id = $6";
        tx.run(sql, args![tenant, holder, name, key, sealed, old]).await?;
    }
    Ok(rows.len() as u64)
}

async fn rotate_bound(tx: &mut Tx, keys: &KeyRing) -> Result<u64, Error> {
    let sql = "SELECT b.id, s.build, s.name, s.key_id, s.sealed FROM build_secrets s \
               JOIN builds b ON b.position = s.build WHERE s.key_id < $1 \
               UNION ALL \
               SELECT b.id, s.build, s.name, s.key_id, s.sealed FROM build_secrets s \
               JOIN builds b ON b.position = s.build WHERE s.key_id > $1 LIMIT $2";
    let rows = tx.all(sql, args![keys.id(), ROTATE_AT_ONCE]).await?;
    for row in &rows {
        let (build, position, name) = (row.build(0)?, row.int(1)?, row.text(2)?);
        let place = build_place(build, &name);
        let secret = keys.open((&row.text(3)?, &row.bytes(4)?), &place, &name)?;
        let (key, sealed) = keys.seal(&place, &secret)?;
        let sql = "UPDATE build_secrets SET key_id = $3, sealed = $4 \
                   WHERE build = $1 AND name = $2";
        tx.run(sql, args![position, name, key, sealed]).await?;
    }
    Ok(rows.len() as u64)
}
