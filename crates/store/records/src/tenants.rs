//! Tenants and their principals.

use ashlar_core::identity::{Principal, Tenant, is_name};
use ashlar_core::{PrincipalId, TenantId, Timestamp};
use uuid::Uuid;

use crate::db::{Row, args};
use crate::{Error, Store, random};

/// Tenants or principals that one look returns at most.
pub const TENANTS_MAX: u32 = 1000;

fn check(name: &str) -> Result<(), Error> {
    if is_name(name) { Ok(()) } else { Err(Error::Name(name.chars().take(100).collect())) }
}

impl Store {
    /// Makes a tenant.
    ///
    /// # Errors
    /// [`Error::Name`] when the name does not fit, [`Error::Taken`] when it is in use.
    pub async fn add_tenant(&self, name: &str, now: Timestamp) -> Result<Tenant, Error> {
        let id = TenantId::from_parts(now.millis(), random::bytes()?);
        self.put_tenant(&Tenant { id, name: name.to_owned() }, now).await
    }

    /// Makes a tenant with an id of the caller's.
    ///
    /// # Errors
    /// As [`Store::add_tenant`].
    pub async fn put_tenant(&self, tenant: &Tenant, now: Timestamp) -> Result<Tenant, Error> {
        check(&tenant.name)?;
        let sql = "INSERT INTO tenants (id, name, created_at) VALUES ($1, $2, $3) \
                   ON CONFLICT DO NOTHING";
        match self.db.run(sql, args![tenant.id, &tenant.name, now]).await? {
            0 => Err(Error::Taken { what: "tenant", name: tenant.name.clone() }),
            _ => Ok(tenant.clone()),
        }
    }

    /// Returns a tenant by its id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenant(&self, id: TenantId) -> Result<Option<Tenant>, Error> {
        let sql = "SELECT id, name FROM tenants WHERE id = $1";
        self.db.maybe(sql, args![id]).await?.map(|row| tenant(&row)).transpose()
    }

    /// Returns a tenant by its name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenant_named(&self, name: &str) -> Result<Option<Tenant>, Error> {
        let sql = "SELECT id, name FROM tenants WHERE name = $1";
        self.db.maybe(sql, args![name]).await?.map(|row| tenant(&row)).transpose()
    }

    /// Lists tenants by name, after a name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenants(&self, after: &str, limit: u32) -> Result<Vec<Tenant>, Error> {
        let sql = "SELECT id, name FROM tenants WHERE name > $1 ORDER BY name LIMIT $2";
        let rows = self.db.all(sql, args![after, limit.min(TENANTS_MAX)]).await?;
        rows.iter().map(tenant).collect()
    }

    /// Makes a principal of a tenant.
    ///
    /// # Errors
    /// [`Error::Name`] when the name does not fit, [`Error::Taken`] when it is in use.
    pub async fn add_principal(
        &self,
        tenant: TenantId,
        name: &str,
        email: &str,
        now: Timestamp,
    ) -> Result<Principal, Error> {
        check(name)?;
        let id = PrincipalId::from_parts(now.millis(), random::bytes()?);
        let sql = "INSERT INTO principals (id, tenant, name, email, created_at) \
                   VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        match self.db.run(sql, args![id, tenant, name, email, now]).await? {
            0 => Err(Error::Taken { what: "principal", name: name.to_owned() }),
            _ => Ok(Principal { id, tenant, name: name.to_owned(), email: email.to_owned() }),
        }
    }

    /// Returns a principal by its id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn principal(&self, id: PrincipalId) -> Result<Option<Principal>, Error> {
        let sql = "SELECT id, tenant, name, email FROM principals WHERE id = $1";
        self.db.maybe(sql, args![id]).await?.map(|row| principal(&row)).transpose()
    }

    /// Returns a tenant's principal by its name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn principal_named(
        &self,
        tenant: TenantId,
        name: &str,
    ) -> Result<Option<Principal>, Error> {
        let sql = "SELECT id, tenant, name, email FROM principals WHERE tenant = $1 AND name = $2";
        self.db.maybe(sql, args![tenant, name]).await?.map(|row| principal(&row)).transpose()
    }

    /// Lists a tenant's principals by name, after a name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn principals(
        &self,
        tenant: TenantId,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Principal>, Error> {
        let sql = "SELECT id, tenant, name, email FROM principals \
                   WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3";
        let rows = self.db.all(sql, args![tenant, after, limit.min(TENANTS_MAX)]).await?;
        rows.iter().map(principal).collect()
    }
}

fn tenant(row: &Row) -> Result<Tenant, Error> {
    Ok(Tenant { id: row.tenant(0)?, name: row.text(1)? })
}

fn principal(row: &Row) -> Result<Principal, Error> {
    let id: Uuid = row.uuid(0)?;
    let (tenant, name, email) = (row.tenant(1)?, row.text(2)?, row.text(3)?);
    Ok(Principal { id: PrincipalId::from_uuid(id), tenant, name, email })
}
