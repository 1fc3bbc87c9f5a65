//! Who asks, and what they may see and do.

use ashlar_core::TenantId;
use ashlar_core::identity::{Principal, Role, Tenant};
use ashlar_core::journal::Record;
use uuid::Uuid;

use crate::Error;

/// Whoever a request comes from, as far as the service knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// For whom they act.
    pub tenant: Tenant,
    /// Who they are.
    pub principal: Principal,
    /// What they may do.
    pub role: Role,
    /// The token that they came with; none for the admin's own.
    pub token: Option<Uuid>,
}

impl Actor {
    /// Fails when the actor may do less than a role.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn needs(&self, role: Role) -> Result<(), Error> {
        if self.role >= role {
            return Ok(());
        }
        let (has, wants) = (self.role.as_str(), role.as_str());
        Err(Error::Forbidden(format!("this needs the role {wants}; the token has {has}")))
    }

    /// Says whether the actor may know of a tenant's things.
    pub fn sees(&self, tenant: TenantId) -> bool {
        self.tenant.id == tenant || self.role == Role::Admin
    }

    /// Fails as if there were no such build when it is another tenant's.
    pub(crate) fn sees_build(&self, record: &Record) -> Result<(), Error> {
        if self.sees(record.submission.tenant) {
            return Ok(());
        }
        Err(Error::not_found("build", record.submission.build))
    }
}
