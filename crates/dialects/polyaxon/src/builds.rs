//! Builds: how they are found, changed, stopped, put away and deleted.

use std::sync::Arc;

use ashlar_core::BuildId;
use ashlar_core::journal::Record;
use ashlar_service::{Document, now};
use axum::http::StatusCode;
use serde_json::Value;

use crate::dispatch::{Context, Subject, is_conflict};
use crate::erase::Eraser;
use crate::error::{Answer, Refusal, empty, reply};
use crate::model::{
    ARCHIVED, BUILD_NUMBERS, Build, Details, FoundBuild, FoundProject, LISTED, Shown, listed_in,
};
use crate::statuses::{DELETED, Projection, Status};
use crate::{bookmarks, status_rows, wire};

/// How often a change is tried again when somebody else was faster.
const TRIES: usize = 5;

/// Returns the build of a number in a project.
pub(crate) async fn find(
    context: &Context,
    project: &FoundProject,
    number: u64,
) -> Result<FoundBuild, Refusal> {
    of_number(context, project, number, Shown::Yes).await
}

/// Returns an archived build.
pub(crate) async fn find_archived(
    context: &Context,
    project: &FoundProject,
    number: u64,
) -> Result<FoundBuild, Refusal> {
    of_number(context, project, number, Shown::Archived).await
}

async fn of_number(
    context: &Context,
    project: &FoundProject,
    number: u64,
    shown: Shown,
) -> Result<FoundBuild, Refusal> {
    let number = number.to_string();
    let id = context.store.resolve_build(context.tenant(), BUILD_NUMBERS, &number).await?;
    let id = id.ok_or(Refusal::NotFound)?;
    let found = by_id(context, id).await?;
    if found.build.project != project.id || found.build.shown != shown {
        return Err(Refusal::NotFound);
    }
    Ok(found)
}

/// Returns the build of an id, wherever and however it is shown.
pub(crate) async fn by_id(context: &Context, id: BuildId) -> Result<FoundBuild, Refusal> {
    let document = context.store.document::<Build>(context.tenant(), id.uuid()).await?;
    let document = document.ok_or(Refusal::NotFound)?;
    let record = context.service.row(&context.actor, id).await?;
    joined(context, document, record).await
}

/// Joins a build's document with its record.
pub(crate) async fn joined(
    context: &Context,
    document: Document<Build>,
    record: impl Into<Arc<Record>>,
) -> Result<FoundBuild, Refusal> {
    let record = record.into();
    let (version, build) = (document.version, document.value);
    let (status, started_at) = match (&build.outside, Status::of(&record)) {
        _ if !build.is_managed => outside(&build, &record),
        (_, Some(status)) => (status, record.started_at),
        // It runs again after its worker was lost, which does not show.
        (_, None) => {
            let projection = status_rows::projected(context, &record, &build).await?;
            let status = projection.last().unwrap_or(Status::Created);
            (status, projection.started_at())
        }
    };
    let done = status.is_done();
    let started_at = started_at.or_else(|| done.then_some(record.created_at));
    Ok(FoundBuild { version, build, record, status, started_at })
}

fn outside(build: &Build, record: &Record) -> (Status, Option<ashlar_core::Timestamp>) {
    let ended = record.state.is_terminal();
    match &build.outside {
        Some(said) if said.status.is_done() || !ended => (said.status, said.started_at),
        said => {
            let status = Status::of(record).filter(|_| ended).unwrap_or(Status::Created);
            (status, said.as_ref().and_then(|s| s.started_at))
        }
    }
}

/// Returns what only a build's own page shows.
pub(crate) async fn details(context: &Context, id: BuildId) -> Result<Details, Refusal> {
    let document = context.store.document::<Details>(context.tenant(), id.uuid()).await?;
    Ok(document.map(|d| d.value).unwrap_or_default())
}

pub(crate) async fn show(subject: Subject<'_>) -> Answer {
    let body = page(subject.context, subject.project, &subject.build).await?;
    Ok(reply(StatusCode::OK, &body))
}

/// Returns a build's own page.
pub(crate) async fn page(
    context: &Context,
    project: &FoundProject,
    found: &FoundBuild,
) -> Result<Value, Refusal> {
    let details = details(context, found.id()).await?;
    let bookmarked = bookmarks::has(context, found.id().uuid()).await?;
    Ok(wire::full_build(project, found, &details, bookmarked))
}

/// Changes a build's document, again when somebody else was faster.
pub(crate) async fn edit(
    context: &Context,
    found: FoundBuild,
    change: impl Fn(&mut Build),
) -> Result<FoundBuild, Refusal> {
    let mut found = found;
    let id = found.id();
    for _ in 0..TRIES {
        change(&mut found.build);
        let tenant = context.tenant();
        let replaced =
            context.store.replace_document(tenant, id.uuid(), found.version, &found.build);
        match replaced.await {
            Err(error) if is_conflict(&error) => found = by_id(context, id).await?,
            other => {
                other?;
                return by_id(context, id).await;
            }
        }
    }
    Err(Refusal::Text("The build is being changed by others; try again.".into()))
}

pub(crate) async fn stop(subject: Subject<'_>) -> Answer {
    let Subject { context, build, .. } = subject;
    context.may_change()?;
    context.service.cancel(&context.actor, build.id(), None).await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn invalidate(subject: Subject<'_>) -> Answer {
    let Subject { context, build, .. } = subject;
    context.may_change()?;
    edit(context, build, |b| b.valid = false).await?;
    Ok(empty(StatusCode::OK))
}

/// Hides a build at once and erases it as soon as it has ended.
pub(crate) async fn delete(subject: Subject<'_>) -> Answer {
    let Subject { context, build, .. } = subject;
    context.may_change()?;
    let found = edit(context, build, |b| b.shown = Shown::Deleted).await?;
    let id = found.id();
    list_in(context, id, None).await?;
    context.service.cancel(&context.actor, id, Some(DELETED)).await?;
    let eraser = Eraser::of(context);
    tokio::spawn(async move { eraser.build(id).await });
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn archive(subject: Subject<'_>) -> Answer {
    let Subject { context, build, .. } = subject;
    context.may_change()?;
    let found = edit(context, build, |b| b.shown = Shown::Archived).await?;
    list_in(context, found.id(), Some(ARCHIVED.to_owned())).await?;
    context.service.cancel(&context.actor, found.id(), Some(DELETED)).await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn restore(context: &Context, found: FoundBuild) -> Answer {
    context.may_change()?;
    let found = edit(context, found, |b| b.shown = Shown::Yes).await?;
    list_in(context, found.id(), Some(listed_in(found.build.project))).await?;
    Ok(empty(StatusCode::OK))
}

/// Says in which lists a build is.
async fn list_in(context: &Context, id: BuildId, value: Option<String>) -> Result<(), Refusal> {
    let changes = [(LISTED.to_owned(), value)].into();
    context.service.set_labels(&context.actor, id, changes).await?;
    Ok(())
}

/// Writes that a build was changed by somebody now.
pub(crate) fn touch(build: &mut Build) {
    build.patched_at = Some(now());
}

/// Begins the projection of a build's journal.
pub(crate) fn projection(build: &Build, details: &Details) -> Projection {
    Projection::new(!build.is_managed, details.dockerfile_missing)
}
