//! Templates deleted: gone for everybody at once, and their builds as these end.
//!
//! The template's document is marked and stays until the last of its builds is forgotten, so that a
//! server that stops in between goes on when it starts again.

use std::sync::Arc;

use ashlar_core::BuildId;
use ashlar_service::{Actor, At, ErrorKind, Filter, Page, Tenant};

use crate::DIALECT;
use crate::app::{App, now};
use crate::documents::{BY_DELETED, DELETED, Template};
use crate::errors::{Answer, ApiError};
use crate::ids;
use crate::refs::slug_of;
use crate::templates::{Found, found_of};

/// Builds of one piece of a deletion.
const BUILDS_PIECE: u32 = 200;
/// Templates of one piece of those that are deleted.
const TEMPLATES_PIECE: u32 = 100;
/// Tenants of one piece of all.
const TENANTS_PIECE: u32 = 500;

impl App {
    /// Deletes a template with its tags, names and history. Builds that run are stopped.
    pub(crate) async fn delete(self: &Arc<Self>, actor: &Actor, found: Found) -> Answer<()> {
        let at = now();
        let found = self.change(&found, |template| template.delete(at)).await?;
        self.publish(&found).await?;
        // Nobody finds them any more; that they go away has time.
        let (app, actor) = (Arc::clone(self), actor.clone());
        tokio::spawn(async move { app.erase(&actor, &found).await });
        Ok(())
    }

    /// Goes on with deletions that were cut off.
    pub(crate) async fn resume_deletions(&self) {
        let admin = self.service.admin();
        let mut after = String::new();
        loop {
            let tenants = match self.service.tenants(admin, &after, TENANTS_PIECE).await {
                Ok(tenants) => tenants,
                Err(error) => {
                    let error = error.internal_text();
                    tracing::warn!(error, "deleted templates are not looked for");
                    return;
                }
            };
            let Some(last) = tenants.last() else { return };
            after.clone_from(&last.name);
            for tenant in &tenants {
                if let Err(error) = self.resume_of(admin, tenant).await {
                    let tenant = tenant.name.as_str();
                    tracing::warn!(tenant, error = error.message, "deleted templates stay");
                }
            }
        }
    }

    async fn resume_of(&self, admin: &Actor, tenant: &Tenant) -> Answer<()> {
        let (index, mut after) = ((BY_DELETED, DELETED), 0);
        loop {
            let found = self.objects.documents_by::<Template>(
                Some(tenant.id),
                index,
                after,
                TEMPLATES_PIECE,
            );
            let found = found.await?;
            let Some(last) = found.last() else { return Ok(()) };
            after = last.position;
            for document in found {
                self.erase(admin, &found_of(tenant.id, slug_of(tenant), document, true)).await;
            }
        }
    }

    /// Forgets the builds of a deleted template, and then the template. What fails is tried again
    /// when the server starts.
    async fn erase(&self, actor: &Actor, found: &Found) {
        if let Err(error) = self.erased(actor, found).await {
            let template = ids::template(found.id);
            tracing::warn!(template, error = error.message, "builds of a deleted template stay");
        }
    }

    async fn erased(&self, actor: &Actor, found: &Found) -> Answer<()> {
        loop {
            let (seen, forgotten) = self.forget_builds(actor, found).await?;
            if seen == 0 {
                let tenant = Some(found.tenant);
                self.objects.remove_document::<Template>(tenant, found.id).await?;
                return Ok(());
            }
            // Some were pinned by somebody, or the server stops.
            if forgotten < seen {
                return Ok(());
            }
        }
    }

    /// Stops and forgets builds of a template; returns how many there were and how many went.
    async fn forget_builds(&self, actor: &Actor, found: &Found) -> Answer<(usize, usize)> {
        let filter = Filter {
            tenant: Some(found.tenant),
            scope: Some(ids::template(found.id)),
            dialect: Some(DIALECT.to_owned()),
            ..Filter::default()
        };
        let (mut page, mut seen, mut forgotten) = (Page::newest(BUILDS_PIECE), 0, 0);
        loop {
            let listed = self.service.list(actor, &filter, &page).await?;
            seen += listed.records.len();
            // All are asked first: they stop at the same time and not one after the other.
            for record in &listed.records {
                self.stop_build(actor, record.submission.build).await?;
            }
            for record in &listed.records {
                let gone = self.forget_build(actor, record.submission.build).await?;
                forgotten += usize::from(gone);
            }
            match listed.next {
                Some(cursor) => page.at = At::After(cursor),
                None => return Ok((seen, forgotten)),
            }
        }
    }

    async fn stop_build(&self, actor: &Actor, build: BuildId) -> Answer<()> {
        match self.service.cancel(actor, build, Some("the template was deleted")).await {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Forgets a build once it has ended; says whether it is gone.
    async fn forget_build(&self, actor: &Actor, build: BuildId) -> Answer<bool> {
        match self.wait_for_end(actor, build).await {
            Ok(()) => {}
            Err(e) if e.status == axum::http::StatusCode::NOT_FOUND => return Ok(true),
            Err(e) => return Err(e),
        }
        match self.service.delete(actor, build).await {
            // Pinned by somebody, so it stays.
            Err(e) if e.kind() == ErrorKind::Conflict => Ok(false),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
            other => Ok(other.map(|()| true)?),
        }
    }

    /// Takes away a build that was accepted while its template was deleted.
    pub(crate) async fn take_back(&self, actor: &Actor, build: BuildId) -> ApiError {
        let done = async {
            self.stop_build(actor, build).await?;
            self.forget_build(actor, build).await
        };
        match done.await {
            Ok(_) => ApiError::conflict("the template was deleted meanwhile; try again"),
            Err(error) => error,
        }
    }
}
