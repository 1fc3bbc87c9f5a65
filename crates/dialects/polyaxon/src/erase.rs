//! Erases what was deleted: it is hidden at once and gone once its builds have ended.
//!
//! What is left to do lies in the store: a deleted thing is found by its index until it is gone, so
//! that the next process goes on where one ended too early.

use std::sync::Arc;

use ashlar_core::BuildId;
use ashlar_core::identity::Tenant;
use ashlar_service::{Actor, DialectStore, DocumentType, Error, ErrorKind, Service};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::DIALECT;
use crate::dispatch::Context;
use crate::model::{BY_PROJECT, BY_SHOWN, Build, Commit, Project, Shown};
use crate::statuses::DELETED;

/// Documents or tenants that one look takes.
const PIECE: u32 = 1000;
/// Journal entries that one look takes while the end of a build is waited for.
const WAIT_PIECE: usize = 1000;
/// Things that are erased at once: each of them may have to wait for builds.
const AT_ONCE: usize = 64;

/// Erases for somebody.
#[derive(Clone)]
pub(crate) struct Eraser {
    service: Arc<Service>,
    store: DialectStore,
    actor: Actor,
}

impl Eraser {
    /// Returns what erases for whoever asks.
    pub(crate) fn of(context: &Context) -> Self {
        Self {
            service: Arc::clone(&context.service),
            store: context.store.clone(),
            actor: context.actor.clone(),
        }
    }

    fn tenant(&self) -> Option<ashlar_core::TenantId> {
        Some(self.actor.tenant.id)
    }

    /// Stops a build, waits until it has ended, and forgets it. It was hidden before: until it is
    /// gone, only the native API shows it.
    pub(crate) async fn build(&self, id: BuildId) {
        match self.try_build(id).await {
            Ok(()) => {}
            // Somebody else erased it, or retention did.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let error = error.internal_text();
                tracing::warn!(build = %id, error, "a deleted build is still there; the next start tries again");
            }
        }
    }

    async fn try_build(&self, id: BuildId) -> Result<(), Error> {
        let row = self.service.cancel(&self.actor, id, Some(DELETED)).await?;
        let mut follower = self.service.follow(&self.actor, id, row.next_number).await?;
        while !follower.next(WAIT_PIECE).await?.is_empty() {}
        self.service.delete(&self.actor, id).await
    }

    /// Erases a project that was hidden, with its builds and commits.
    pub(crate) async fn project(&self, id: Uuid) {
        if let Err(error) = self.try_project(id).await {
            let error = error.internal_text();
            tracing::warn!(project = %id, error, "a deleted project is still there; the next start tries again");
        }
    }

    async fn try_project(&self, id: Uuid) -> Result<(), Error> {
        let value = id.to_string();
        let index = (BY_PROJECT, value.as_str());
        let builds = self.ids_by::<Build>(index).await?;
        // All of them are asked to stop before one is waited for.
        for build in &builds {
            match self.service.cancel(&self.actor, BuildId::from_uuid(*build), Some(DELETED)).await
            {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        for build in &builds {
            self.build(BuildId::from_uuid(*build)).await;
        }
        if !self.store.documents_by::<Build>(self.tenant(), index, 0, 1).await?.is_empty() {
            // Something is still there, which a warning has named: the project stays with it.
            return Ok(());
        }
        loop {
            let commits = self.store.documents_by::<Commit>(self.tenant(), index, 0, PIECE).await?;
            if commits.is_empty() {
                break;
            }
            for commit in commits {
                self.store.remove_document::<Commit>(self.tenant(), commit.id).await?;
            }
        }
        self.store.remove_document::<Project>(self.tenant(), id).await.map(drop)
    }

    /// Returns the ids of the documents in an index.
    async fn ids_by<T: DocumentType>(&self, index: (&str, &str)) -> Result<Vec<Uuid>, Error> {
        let (mut ids, mut after) = (Vec::new(), 0);
        loop {
            let piece = self.store.documents_by::<T>(self.tenant(), index, after, PIECE).await?;
            let Some(last) = piece.last() else { return Ok(ids) };
            after = last.position;
            ids.extend(piece.iter().map(|document| document.id));
        }
    }

    /// Erases all that a tenant has deleted.
    async fn all(&self) -> Result<(), Error> {
        let index = (BY_SHOWN, Shown::Deleted.word());
        let mut tasks = JoinSet::new();
        for project in self.ids_by::<Project>(index).await? {
            room(&mut tasks).await;
            let eraser = self.clone();
            tasks.spawn(async move { eraser.project(project).await });
        }
        for build in self.ids_by::<Build>(index).await? {
            room(&mut tasks).await;
            let eraser = self.clone();
            tasks.spawn(async move { eraser.build(BuildId::from_uuid(build)).await });
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

/// Waits until another thing may be erased beside those that are.
async fn room(tasks: &mut JoinSet<()>) {
    if tasks.len() >= AT_ONCE {
        tasks.join_next().await;
    }
}

/// Goes on with what earlier processes had begun to erase.
pub(crate) async fn resume(service: Arc<Service>) {
    if let Err(error) = try_resume(&service).await {
        let error = error.internal_text();
        tracing::warn!(error, "what was deleted earlier is not erased; the next start tries again");
    }
}

async fn try_resume(service: &Arc<Service>) -> Result<(), Error> {
    let (admin, mut after) = (service.admin().clone(), String::new());
    loop {
        let tenants = service.tenants(&admin, &after, PIECE).await?;
        let Some(last) = tenants.last() else { return Ok(()) };
        after.clone_from(&last.name);
        for tenant in &tenants {
            if has_deleted(service, tenant).await? {
                let actor = service.act_for(&admin, &tenant.name).await?;
                let (service, store) = (Arc::clone(service), service.dialect(DIALECT));
                Eraser { service, store, actor }.all().await?;
            }
        }
    }
}

async fn has_deleted(service: &Service, tenant: &Tenant) -> Result<bool, Error> {
    let (store, tenant) = (service.dialect(DIALECT), Some(tenant.id));
    let index = (BY_SHOWN, Shown::Deleted.word());
    let projects = store.documents_by::<Project>(tenant, index, 0, 1).await?;
    let builds = store.documents_by::<Build>(tenant, index, 0, 1).await?;
    Ok(!projects.is_empty() || !builds.is_empty())
}
