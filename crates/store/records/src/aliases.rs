//! Names that dialects give things, and the counters that some names are drawn from.

use ashlar_core::TenantId;
use uuid::Uuid;

use crate::db::{Tx, args};
use crate::{Error, Store};

/// Where a dialect's names live: what is found is never another tenant's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// The dialect.
    pub dialect: String,
    /// Whose names; none for names that are unique over all tenants.
    pub tenant: Option<TenantId>,
    /// What they name, for example `run`; for counters the counter's name.
    pub kind: String,
}

impl Namespace {
    /// Makes a namespace.
    pub fn new(dialect: &str, tenant: Option<TenantId>, kind: &str) -> Self {
        Self { dialect: dialect.to_owned(), tenant, kind: kind.to_owned() }
    }
}

/// A name to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAlias {
    /// Where.
    pub namespace: Namespace,
    /// The name.
    pub alias: String,
    /// Whether retention spares the build that it leads to. A name that people move from build to
    /// build does, for they count on what is behind it; one that belongs to a single build says
    /// nothing about how long that is wanted.
    pub protects: bool,
}

impl NewAlias {
    /// Makes a name that belongs to one thing and protects nothing.
    pub const fn own(namespace: Namespace, alias: String) -> Self {
        Self { namespace, alias, protects: false }
    }

    /// Makes a name that people count on: the build that it leads to stays.
    pub const fn protecting(namespace: Namespace, alias: String) -> Self {
        Self { namespace, alias, protects: true }
    }
}

/// A name that is the next number of a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedAlias {
    /// Where the name is given.
    pub namespace: Namespace,
    /// The counter that it is drawn from.
    pub counter: Namespace,
}

/// Returns the tenant that stands for all of them in a key.
pub(crate) fn or_all(tenant: Option<TenantId>) -> TenantId {
    tenant.unwrap_or(TenantId::from_uuid(Uuid::nil()))
}

pub(crate) async fn insert(tx: &mut Tx, new: &NewAlias, target: Uuid) -> Result<(), Error> {
    let n = &new.namespace;
    let sql = "INSERT INTO aliases (dialect, tenant, kind, alias, target, promoted) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    let values = args![&n.dialect, or_all(n.tenant), &n.kind, &new.alias, target, new.protects];
    match tx.run(sql, values).await? {
        0 => Err(Error::Taken { what: "alias", name: new.alias.clone() }),
        _ => Ok(()),
    }
}

pub(crate) async fn insert_numbered(
    tx: &mut Tx,
    new: &NumberedAlias,
    target: Uuid,
) -> Result<u64, Error> {
    let number = draw(tx, &new.counter).await?;
    let alias = NewAlias::own(new.namespace.clone(), number.to_string());
    insert(tx, &alias, target).await?;
    Ok(number)
}

async fn draw(tx: &mut Tx, counter: &Namespace) -> Result<u64, Error> {
    let sql = "INSERT INTO counters (dialect, tenant, name, value) VALUES ($1, $2, $3, 1) \
               ON CONFLICT (dialect, tenant, name) DO UPDATE SET value = counters.value + 1 \
               RETURNING value";
    let values = args![&counter.dialect, or_all(counter.tenant), &counter.kind];
    tx.one(sql, values).await?.count(0)
}

impl Store {
    /// Gives a thing a name.
    ///
    /// # Errors
    /// [`Error::Taken`] when the name is in use.
    pub async fn add_alias(&self, alias: &NewAlias, target: Uuid) -> Result<(), Error> {
        let mut tx = self.db.write().await?;
        insert(&mut tx, alias, target).await?;
        tx.commit().await
    }

    /// Takes a name away; says whether it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_alias(&self, namespace: &Namespace, alias: &str) -> Result<bool, Error> {
        let n = namespace;
        let sql = "DELETE FROM aliases WHERE dialect = $1 AND tenant = $2 AND kind = $3 \
                   AND alias = $4";
        let values = args![&n.dialect, or_all(n.tenant), &n.kind, alias];
        Ok(self.db.run(sql, values).await? > 0)
    }

    /// Returns what a name stands for.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resolve(&self, namespace: &Namespace, alias: &str) -> Result<Option<Uuid>, Error> {
        let n = namespace;
        let sql = "SELECT target FROM aliases WHERE dialect = $1 AND tenant = $2 AND kind = $3 \
                   AND alias = $4";
        let values = args![&n.dialect, or_all(n.tenant), &n.kind, alias];
        self.db.maybe(sql, values).await?.map(|row| row.uuid(0)).transpose()
    }

    /// Returns the names that a dialect has given a thing, by kind.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn aliases_of(
        &self,
        dialect: &str,
        target: Uuid,
    ) -> Result<Vec<(String, String)>, Error> {
        let sql = "SELECT kind, alias FROM aliases WHERE target = $1 AND dialect = $2 \
                   ORDER BY kind, alias";
        let rows = self.db.all(sql, args![target, dialect]).await?;
        rows.iter().map(|row| Ok((row.text(0)?, row.text(1)?))).collect()
    }

    /// Draws the next number of a counter, from 1. No number is drawn twice.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next_number(&self, counter: &Namespace) -> Result<u64, Error> {
        let mut tx = self.db.write().await?;
        let number = draw(&mut tx, counter).await?;
        tx.commit().await.map(|()| number)
    }
}
