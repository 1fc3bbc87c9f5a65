//! Lists of builds.

use std::sync::Arc;

use ashlar_core::BuildId;
use ashlar_core::identity::Role;
use ashlar_records::{Filter, Listed, Page};

use crate::{Actor, Error, Service};

impl Service {
    /// Lists builds: those of the actor's tenant, whatever the filter says; an admin's filter may
    /// name another tenant, or none for all.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the page's size is out of bounds.
    pub async fn list(
        &self,
        actor: &Actor,
        filter: &Filter,
        page: &Page,
    ) -> Result<Arc<Listed>, Error> {
        let mut filter = filter.clone();
        if actor.role != Role::Admin {
            filter.tenant = Some(actor.tenant.id);
        }
        Ok(self.counters().timed("list", self.store().list(&filter, page)).await?)
    }

    /// Lists the builds of a run.
    ///
    /// # Errors
    /// As [`Service::list`].
    pub async fn children(
        &self,
        actor: &Actor,
        parent: BuildId,
        page: &Page,
    ) -> Result<Arc<Listed>, Error> {
        let filter = Filter { parent: Some(parent), ..Filter::default() };
        self.list(actor, &filter, page).await
    }
}
