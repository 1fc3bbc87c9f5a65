//! Projects.

use std::collections::HashSet;

use ashlar_service::Document;
use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::body::Fields;
use crate::bookmarks;
use crate::dispatch::{Context, is_conflict};
use crate::erase::Eraser;
use crate::error::{Answer, Refusal, empty, reply};
use crate::list::PAGE_DEFAULT;
use crate::listing;
use crate::model::{FoundProject, PROJECT_NAMES, PROJECT_NUMBERS, Project, Shown};
use crate::wire::{self, Counts};

/// The page size of the list of names.
const NAMES_PAGE: usize = 300_000;
/// Documents that one look takes.
const PIECE: u32 = 1000;
/// How often a change is tried again when somebody else was faster.
const TRIES: usize = 5;
/// Names that mean something else in paths or to the CLI.
const RESERVED: [&str; 8] =
    ["user", "admin", "project", "api", "polyaxon", "superuser", "version", "projects"];

fn found(context: &Context, document: Document<Project>) -> FoundProject {
    FoundProject {
        id: document.id,
        version: document.version,
        owner: context.owner().to_owned(),
        created_at: document.created_at,
        updated_at: document.updated_at,
        project: document.value,
    }
}

async fn find_any(context: &Context, name: &str) -> Result<FoundProject, Refusal> {
    let id = context.store.resolve(context.tenant(), PROJECT_NAMES, name).await?;
    let id = id.ok_or(Refusal::NotFound)?;
    by_id(context, id).await
}

/// Returns the project of an id, however it is shown.
pub(crate) async fn by_id(context: &Context, id: Uuid) -> Result<FoundProject, Refusal> {
    let document = context.store.document::<Project>(context.tenant(), id).await?;
    document.map(|d| found(context, d)).ok_or(Refusal::NotFound)
}

/// Returns the project of a name.
pub(crate) async fn find(context: &Context, name: &str) -> Result<FoundProject, Refusal> {
    let found = find_any(context, name).await?;
    if found.project.shown == Shown::Yes { Ok(found) } else { Err(Refusal::NotFound) }
}

/// Returns the owner's projects, newest change first.
pub(crate) async fn all(context: &Context, shown: Shown) -> Result<Vec<FoundProject>, Refusal> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let piece = context.store.documents::<Project>(context.tenant(), after, PIECE).await?;
        let Some(last) = piece.last() else { break };
        after = last.position;
        all.extend(piece.into_iter().filter(|d| d.value.shown == shown).map(|d| found(context, d)));
    }
    all.sort_by_key(|p| std::cmp::Reverse((p.updated_at, p.project.number)));
    Ok(all)
}

pub(crate) async fn list(context: &Context) -> Answer {
    let marked: HashSet<Uuid> = bookmarks::targets(context, "project").await?;
    let page = context.asked.page(all(context, Shown::Yes).await?, PAGE_DEFAULT);
    let item = |p: &FoundProject| {
        let mut map = wire::project(p);
        map.insert("bookmarked".into(), json!(marked.contains(&p.id)));
        Value::Object(map)
    };
    let results = page.items.iter().map(item).collect();
    Ok(page.answer(results))
}

pub(crate) async fn names(context: &Context) -> Answer {
    let page = context.asked.page(all(context, Shown::Yes).await?, NAMES_PAGE);
    let item = |p: &FoundProject| json!({ "user": p.owner, "unique_name": format!("{}.{}", p.owner, p.project.name) });
    let results = page.items.iter().map(item).collect();
    Ok(page.answer(results))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if RESERVED.contains(&name.to_lowercase().as_str()) {
        return Err(Refusal::Field("name", format!("`{name}` is a reserved word.")));
    }
    Ok(())
}

fn taken(name: &str) -> Refusal {
    Refusal::Text(format!("A project with name `{name}` already exists."))
}

pub(crate) async fn create(context: &Context, fields: &Fields) -> Answer {
    context.may_change()?;
    let name = fields.slug("name")?.ok_or_else(|| Refusal::required("name"))?;
    check_name(&name)?;
    let project = Project {
        number: context.store.next_number(None, PROJECT_NUMBERS).await?,
        scope: name.clone(),
        name: name.clone(),
        description: fields.text("description")?,
        tags: fields.tags()?,
        is_public: fields.flag("is_public")?.unwrap_or(true),
        readme: fields.text("readme")?,
        head: None,
        shown: Shown::Yes,
    };
    let id = Uuid::now_v7();
    let named = context.store.add_alias(context.tenant(), PROJECT_NAMES, &name, id).await;
    match named {
        Err(error) if is_conflict(&error) => return Err(taken(&name)),
        other => other?,
    }
    context.store.add_document(context.tenant(), id, &project).await?;
    let found = by_id(context, id).await?;
    let mut map = wire::project(&found);
    map.insert("readme".into(), json!(found.project.readme));
    Ok(reply(StatusCode::CREATED, &Value::Object(map)))
}

pub(crate) async fn show(context: &Context, found: &FoundProject) -> Answer {
    let bookmarked = bookmarks::has(context, found.id).await?;
    let builds = listing::count(context, found).await?;
    Ok(reply(StatusCode::OK, &wire::full_project(found, bookmarked, Counts { builds })))
}

/// Changes a project, again when somebody else was faster.
pub(crate) async fn edit(
    context: &Context,
    found: FoundProject,
    change: impl Fn(&mut Project),
) -> Result<FoundProject, Refusal> {
    let mut found = found;
    for _ in 0..TRIES {
        change(&mut found.project);
        let (tenant, id) = (context.tenant(), found.id);
        match context.store.replace_document(tenant, id, found.version, &found.project).await {
            Err(error) if is_conflict(&error) => found = by_id(context, id).await?,
            other => {
                other?;
                return by_id(context, id).await;
            }
        }
    }
    Err(Refusal::Text("The project is being changed by others; try again.".into()))
}

pub(crate) async fn change(context: &Context, found: FoundProject, fields: &Fields) -> Answer {
    context.may_change()?;
    let old = found.project.name.clone();
    let name = fields.slug("name")?.filter(|name| *name != old);
    let tags = fields.patched_tags(found.project.tags.as_ref())?;
    let is_public = fields.flag("is_public")?;
    let description = fields.text("description")?;
    let readme = fields.text("readme")?;
    if let Some(name) = &name {
        check_name(name)?;
        match context.store.add_alias(context.tenant(), PROJECT_NAMES, name, found.id).await {
            Err(error) if is_conflict(&error) => return Err(taken(name)),
            other => other?,
        }
    }
    let (has_description, has_readme) = (fields.has("description"), fields.has("readme"));
    let changed = edit(context, found, |project| {
        if let Some(name) = &name {
            project.name.clone_from(name);
        }
        if has_description {
            project.description.clone_from(&description);
        }
        if has_readme {
            project.readme.clone_from(&readme);
        }
        if let Some(tags) = &tags {
            project.tags.clone_from(tags);
        }
        project.is_public = is_public.unwrap_or(project.is_public);
    });
    let changed = changed.await?;
    if name.is_some() {
        context.store.remove_alias(context.tenant(), PROJECT_NAMES, &old).await?;
    }
    show(context, &changed).await
}

/// Hides a project and its builds at once; they are erased as soon as the running ones have ended.
pub(crate) async fn delete(context: &Context, found: FoundProject) -> Answer {
    context.may_change()?;
    let name = found.project.name.clone();
    let found = edit(context, found, |project| project.shown = Shown::Deleted).await?;
    context.store.remove_alias(context.tenant(), PROJECT_NAMES, &name).await?;
    let eraser = Eraser::of(context);
    tokio::spawn(async move { eraser.project(found.id).await });
    Ok(empty(StatusCode::NO_CONTENT))
}

pub(crate) async fn archive(context: &Context, found: FoundProject) -> Answer {
    context.may_change()?;
    let found = edit(context, found, |project| project.shown = Shown::Archived).await?;
    listing::stop_all(context, &found).await?;
    Ok(empty(StatusCode::OK))
}

pub(crate) async fn restore(context: &Context, name: &str) -> Answer {
    context.may_change()?;
    let found = find_any(context, name).await?;
    if found.project.shown == Shown::Deleted {
        return Err(Refusal::NotFound);
    }
    edit(context, found, |project| project.shown = Shown::Yes).await?;
    Ok(empty(StatusCode::OK))
}
