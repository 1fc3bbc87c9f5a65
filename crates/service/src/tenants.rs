//! Tenants, their principals, the policies of their scopes, and the audit log.

use ashlar_core::identity::{Principal, Role, Tenant};
use ashlar_records::{AuditEntry, Policy, now};
use serde_json::{Value, json};

use crate::client::ClientInfo;
use crate::{Actor, Error, Service};

impl Service {
    /// Makes a tenant.
    ///
    /// # Errors
    /// [`Error::Forbidden`] unless an admin asks; [`Error::Invalid`]; [`Error::Conflict`].
    pub async fn add_tenant(&self, actor: &Actor, name: &str) -> Result<Tenant, Error> {
        actor.needs(Role::Admin)?;
        let tenant = self.store().add_tenant(name, now()).await?;
        self.audit(actor, "tenant.add", tenant.id, json!({ "name": name })).await?;
        Ok(tenant)
    }

    /// Lists tenants by name: all for an admin, the own one for others.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tenants(
        &self,
        actor: &Actor,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Tenant>, Error> {
        if actor.role != Role::Admin {
            return Ok(vec![actor.tenant.clone()]);
        }
        Ok(self.store().tenants(after, limit).await?)
    }

    /// Returns a tenant that the actor may know of.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn tenant_named(&self, actor: &Actor, name: &str) -> Result<Tenant, Error> {
        if actor.tenant.name == name {
            return Ok(actor.tenant.clone());
        }
        let found = self.store().tenant_named(name).await?.filter(|t| actor.sees(t.id));
        found.ok_or_else(|| Error::not_found("tenant", name))
    }

    /// Lets an admin act for another tenant, as that tenant's principal `admin`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn act_for(&self, actor: &Actor, tenant: &str) -> Result<Actor, Error> {
        let tenant = self.tenant_named(actor, tenant).await?;
        if tenant.id == actor.tenant.id {
            return Ok(actor.clone());
        }
        if ClientInfo::is_request() {
            self.count_for(actor.tenant.id, tenant.id)?;
        }
        let principal = self.principal_or_new(&tenant, &actor.principal.name).await?;
        Ok(Actor { tenant, principal, ..actor.clone() })
    }

    pub(crate) async fn principal_or_new(
        &self,
        tenant: &Tenant,
        name: &str,
    ) -> Result<Principal, Error> {
        use ashlar_records::Error as Store;
        if let Some(found) = self.store().principal_named(tenant.id, name).await? {
            return Ok(found);
        }
        let email = format!("{name}@localhost");
        match self.store().add_principal(tenant.id, name, &email, now()).await {
            // Somebody else was faster.
            Err(Store::Taken { .. }) => {
                let found = self.store().principal_named(tenant.id, name).await?;
                found.ok_or_else(|| Error::not_found("principal", name))
            }
            other => Ok(other?),
        }
    }

    /// Makes a principal of the actor's tenant.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Invalid`], [`Error::Conflict`].
    pub async fn add_principal(
        &self,
        actor: &Actor,
        name: &str,
        email: &str,
    ) -> Result<Principal, Error> {
        Self::manages(actor)?;
        let principal = self.store().add_principal(actor.tenant.id, name, email, now()).await?;
        self.audit(actor, "principal.add", principal.id, json!({ "name": name })).await?;
        Ok(principal)
    }

    /// Lists the principals of the actor's tenant by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn principals(
        &self,
        actor: &Actor,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Principal>, Error> {
        Ok(self.store().principals(actor.tenant.id, after, limit).await?)
    }

    /// Returns who submitted a build, for its views.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn principal(
        &self,
        actor: &Actor,
        id: ashlar_core::PrincipalId,
    ) -> Result<Option<Principal>, Error> {
        Ok(self.store().principal(id).await?.filter(|p| actor.sees(p.tenant)))
    }

    /// Sets what new builds of a scope mean for those that are there.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn set_scope_policy(
        &self,
        actor: &Actor,
        scope: &str,
        policy: Policy,
        active_max: Option<u32>,
    ) -> Result<(), Error> {
        actor.needs(Role::Developer)?;
        self.store().set_scope_policy(actor.tenant.id, scope, policy, active_max).await?;
        let detail = json!({ "policy": policy.as_str(), "active_max": active_max });
        self.audit(actor, "scope.policy", scope, detail).await
    }

    /// Returns what new builds of a scope mean for those that are there, and how many may be at work
    /// at once.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn scope_policy(
        &self,
        actor: &Actor,
        scope: &str,
    ) -> Result<(Policy, Option<u32>), Error> {
        Ok(self.store().scope_policy(actor.tenant.id, scope).await?)
    }

    /// Reads the audit log of the actor's tenant, newest first, before a cursor.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn audit_log(
        &self,
        actor: &Actor,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, AuditEntry)>, Error> {
        Self::manages(actor)?;
        Ok(self.store().audit_log(actor.tenant.id, before, limit).await?)
    }

    /// Writes down that the actor changed something.
    pub(crate) async fn audit(
        &self,
        actor: &Actor,
        action: &str,
        subject: impl ToString,
        detail: Value,
    ) -> Result<(), Error> {
        Ok(self.store().audit(&audit_entry(actor, action, subject, detail)).await?)
    }
}

/// Returns what the audit log says about a change that the actor makes.
pub(crate) fn audit_entry(
    actor: &Actor,
    action: &str,
    subject: impl ToString,
    detail: Value,
) -> AuditEntry {
    AuditEntry {
        at: now(),
        tenant: actor.tenant.id,
        principal: Some(actor.principal.id),
        action: action.to_owned(),
        subject: subject.to_string(),
        detail: ClientInfo::current().add_to(detail),
    }
}
