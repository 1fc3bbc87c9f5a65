//! Held secrets: values that belong to something that lasts, such as a trigger or a registry.

use ashlar_core::Timestamp;
use ashlar_core::identity::Role;
use ashlar_records::{Secret, now};
use serde_json::json;

use crate::{Actor, Error, Service};

impl Service {
    /// Keeps a secret of the actor's tenant, in place of an earlier one of the same name.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::TooLarge`].
    pub async fn hold_secret(
        &self,
        actor: &Actor,
        holder: &str,
        name: &str,
        secret: &Secret,
    ) -> Result<(), Error> {
        actor.needs(Role::Developer)?;
        let place = (actor.tenant.id, holder, name);
        self.store().hold_secret(self.keys(), place, secret, now()).await?;
        self.audit(actor, "secret.hold", holder, json!({ "name": name })).await
    }

    /// Returns a held secret, for use: values are never shown to clients.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; when it was sealed with a key that is gone.
    pub async fn held_secret(
        &self,
        actor: &Actor,
        holder: &str,
        name: &str,
    ) -> Result<Option<Secret>, Error> {
        actor.needs(Role::Developer)?;
        Ok(self.store().held_secret(self.keys(), (actor.tenant.id, holder, name)).await?)
    }

    /// Returns the names of a holder's secrets with the times when they were set.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn held_secret_names(
        &self,
        actor: &Actor,
        holder: &str,
    ) -> Result<Vec<(String, Timestamp)>, Error> {
        Ok(self.store().held_secret_names(actor.tenant.id, holder).await?)
    }

    /// Erases a holder's secret, or with no name all of them; returns how many.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn erase_held_secrets(
        &self,
        actor: &Actor,
        holder: &str,
        name: Option<&str>,
    ) -> Result<u64, Error> {
        actor.needs(Role::Developer)?;
        let erased = self.store().erase_held_secrets(actor.tenant.id, holder, name).await?;
        self.audit(actor, "secret.erase", holder, json!({ "name": name })).await?;
        Ok(erased)
    }
}
