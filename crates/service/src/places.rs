//! Places for uploads. An upload holds a thread while it waits for its client, and builds need
//! threads too: so there are only so many uploads at once, and of one tenant fewer still.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ashlar_core::TenantId;
use ashlar_core::identity::Role;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::{Actor, Error, Service};

/// Uploads at once in one process: an eighth of the threads that may block.
pub const UPLOADS_DEFAULT: usize = 64;
/// Uploads at once of one tenant.
pub const TENANT_UPLOADS_DEFAULT: usize = 16;
/// How long an upload waits for its place.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// How many uploads there may be at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadLimits {
    /// In this process.
    pub all: usize,
    /// Of one tenant.
    pub tenant: usize,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self { all: UPLOADS_DEFAULT, tenant: TENANT_UPLOADS_DEFAULT }
    }
}

/// The right to hold a thread for an upload; given back when it is dropped.
#[derive(Debug)]
pub struct UploadPlace {
    _all: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
}

/// All places.
#[derive(Debug)]
pub(crate) struct Places {
    limits: UploadLimits,
    all: Arc<Semaphore>,
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

impl Places {
    pub(crate) fn new(limits: UploadLimits) -> Self {
        Self { limits, all: Arc::new(Semaphore::new(limits.all)), tenants: Mutex::default() }
    }

    fn of_tenant(&self, tenant: TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever uploads or waits holds one more.
        tenants.retain(|_, places| Arc::strong_count(places) > 1);
        let new = || Arc::new(Semaphore::new(self.limits.tenant));
        Arc::clone(tenants.entry(tenant).or_insert_with(new))
    }

    /// Takes the tenant's place first: a tenant that has none left keeps nobody else's.
    async fn take(&self, tenant: TenantId) -> Result<UploadPlace, Error> {
        let own = self.of_tenant(tenant).acquire_owned().await.map_err(Error::internal)?;
        let any = Arc::clone(&self.all).acquire_owned().await.map_err(Error::internal)?;
        Ok(UploadPlace { _all: any, _tenant: own })
    }
}

impl Service {
    /// Waits for a place for an upload of the actor's. Whoever receives bytes from a client in a
    /// thread takes one first and keeps it as long as the thread.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Unavailable`] when there is none for too long.
    pub async fn upload_place(&self, actor: &Actor) -> Result<UploadPlace, Error> {
        actor.needs(Role::Developer)?;
        let busy = || Error::Unavailable("there are too many uploads at once; try again".into());
        timeout(WAIT_MAX, self.places().take(actor.tenant.id)).await.map_err(|_| busy())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(n: u8) -> TenantId {
        TenantId::from_parts(1, [n; 10])
    }

    #[tokio::test]
    async fn a_tenant_that_has_no_place_left_keeps_nobody_elses() {
        let places = Arc::new(Places::new(UploadLimits { all: 3, tenant: 2 }));
        let first = [places.take(tenant(1)).await.unwrap(), places.take(tenant(1)).await.unwrap()];
        let waits = Arc::clone(&places);
        let third = tokio::spawn(async move { waits.take(tenant(1)).await });
        tokio::task::yield_now().await;
        let other = places.take(tenant(2)).await.unwrap();
        assert_eq!(places.all.available_permits(), 0);
        assert!(!third.is_finished());
        drop(other);
        drop(first);
        third.await.unwrap().unwrap();
        assert_eq!(places.all.available_permits(), 3);
        drop(places.take(tenant(3)).await.unwrap());
        assert_eq!(places.tenants.lock().unwrap().len(), 1, "who is gone is forgotten");
    }
}
