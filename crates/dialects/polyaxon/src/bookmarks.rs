//! Bookmarks, and the lists of what was marked and of what was put away.

use std::collections::{HashMap, HashSet};

use ashlar_core::BuildId;
use ashlar_service::{Document, Role};
use axum::http::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::dispatch::{Context, is_conflict};
use crate::error::{Answer, Refusal, empty};
use crate::list::PAGE_DEFAULT;
use crate::model::{BY_USER, Bookmark, FoundProject, Shown};
use crate::path::Kept;
use crate::{builds, listing, projects, wire};

/// Documents or principals that one look takes.
const PIECE: u32 = 1000;
/// How often a change is tried again when somebody else was faster.
const TRIES: usize = 5;

fn user(context: &Context) -> Uuid {
    context.actor.principal.id.uuid()
}

async fn get(context: &Context, target: Uuid) -> Result<Option<Document<Bookmark>>, Refusal> {
    let id = Bookmark::id(user(context), target);
    Ok(context.store.document::<Bookmark>(context.tenant(), id).await?)
}

/// Says whether whoever asks has marked a thing.
pub(crate) async fn has(context: &Context, target: Uuid) -> Result<bool, Refusal> {
    Ok(get(context, target).await?.is_some_and(|d| d.value.enabled))
}

/// Marks a thing, again or for the first time.
pub(crate) async fn add(context: &Context, what: &str, target: Uuid) -> Answer {
    let bookmark = Bookmark { user: user(context), what: what.to_owned(), target, enabled: true };
    let (tenant, id) = (context.tenant(), Bookmark::id(bookmark.user, target));
    for _ in 0..TRIES {
        let done = match get(context, target).await? {
            Some(document) if document.value.enabled => Ok(()),
            Some(document) => {
                context.store.replace_document(tenant, id, document.version, &bookmark).await
            }
            None => context.store.add_document(tenant, id, &bookmark).await,
        };
        match done {
            Err(error) if is_conflict(&error) => {}
            other => {
                other?;
                return Ok(empty(StatusCode::CREATED));
            }
        }
    }
    Err(Refusal::Text("The bookmark is being changed by others; try again.".into()))
}

/// Takes a mark back. The record stays, so that a second time is no error.
pub(crate) async fn take_back(context: &Context, target: Uuid) -> Answer {
    for _ in 0..TRIES {
        let document = get(context, target).await?.ok_or(Refusal::NotFound)?;
        if !document.value.enabled {
            return Ok(empty(StatusCode::NO_CONTENT));
        }
        let off = Bookmark { enabled: false, ..document.value };
        let (tenant, version) = (context.tenant(), document.version);
        match context.store.replace_document(tenant, document.id, version, &off).await {
            Err(error) if is_conflict(&error) => {}
            other => {
                other?;
                return Ok(empty(StatusCode::NO_CONTENT));
            }
        }
    }
    Err(Refusal::Text("The bookmark is being changed by others; try again.".into()))
}

async fn of_user(
    context: &Context,
    user: Uuid,
    what: &str,
) -> Result<Vec<Document<Bookmark>>, Refusal> {
    let (mut all, mut after) = (Vec::new(), 0);
    let value = format!("{what}:{user}");
    loop {
        let (tenant, index) = (context.tenant(), (BY_USER, value.as_str()));
        let piece = context.store.documents_by::<Bookmark>(tenant, index, after, PIECE).await?;
        let Some(last) = piece.last() else { return Ok(all) };
        after = last.position;
        all.extend(piece.into_iter().filter(|d| d.value.enabled));
    }
}

/// Returns what whoever asks has marked.
pub(crate) async fn targets(context: &Context, what: &str) -> Result<HashSet<Uuid>, Refusal> {
    let marked = of_user(context, user(context), what).await?;
    Ok(marked.into_iter().map(|d| d.value.target).collect())
}

/// Returns whose bookmarks are asked for, when whoever asks may see them.
async fn whose(context: &Context, name: &str) -> Result<Option<Uuid>, Refusal> {
    if [&context.actor.principal.name, context.owner()].contains(&name) {
        return Ok(Some(user(context)));
    }
    let mut after = String::new();
    loop {
        let piece = context.service.principals(&context.actor, &after, PIECE).await?;
        if let Some(found) = piece.iter().find(|p| p.name == name) {
            let may = context.actor.role == Role::Admin;
            return Ok(may.then(|| found.id.uuid()));
        }
        match piece.last() {
            Some(last) if piece.len() == PIECE as usize => after.clone_from(&last.name),
            _ => return Err(Refusal::NotFound),
        }
    }
}

pub(crate) async fn list(context: &Context, name: &str, kind: Kept) -> Answer {
    let what = match kind {
        Kept::Builds => "build",
        Kept::Projects => "project",
        Kept::Nothing => "",
    };
    let mut marked = match whose(context, name).await? {
        Some(user) => of_user(context, user, what).await?,
        None => Vec::new(),
    };
    sort(&mut marked, context.asked.parameter("sort").unwrap_or_default());
    let (mut items, mut projects) = (Vec::new(), HashMap::new());
    for bookmark in marked {
        if let Some(object) = object(context, &bookmark.value, &mut projects).await? {
            items.push(json!({ "content_object": object }));
        }
    }
    let mut page = context.asked.page(items, PAGE_DEFAULT);
    let results = std::mem::take(&mut page.items);
    Ok(page.answer(results))
}

/// Sorts by the first known name; the newest change of a mark comes first otherwise.
fn sort(marked: &mut [Document<Bookmark>], by: &str) {
    let known = |name: &&str| matches!(name.trim_start_matches('-'), "created_at" | "updated_at");
    let by = by.split(',').map(str::trim).find(known).unwrap_or("-updated_at");
    marked.sort_by_key(|d| match by.ends_with("created_at") {
        true => d.created_at,
        false => d.updated_at,
    });
    if by.starts_with('-') {
        marked.reverse();
    }
}

/// Returns a marked thing; nothing when it is gone or put away.
async fn object(
    context: &Context,
    bookmark: &Bookmark,
    projects: &mut HashMap<Uuid, Option<FoundProject>>,
) -> Result<Option<Value>, Refusal> {
    if bookmark.what == "project" {
        let found = project(context, bookmark.target, projects).await?;
        return Ok(found.map(|p| Value::Object(wire::project(&p))));
    }
    let build = match builds::by_id(context, BuildId::from_uuid(bookmark.target)).await {
        Ok(build) if build.build.shown == Shown::Yes => build,
        Ok(_) | Err(Refusal::NotFound) => return Ok(None),
        Err(other) => return Err(other),
    };
    let found = project(context, build.build.project, projects).await?;
    Ok(found.map(|p| Value::Object(wire::build(&p, &build))))
}

async fn project(
    context: &Context,
    id: Uuid,
    known: &mut HashMap<Uuid, Option<FoundProject>>,
) -> Result<Option<FoundProject>, Refusal> {
    if let Some(found) = known.get(&id) {
        return Ok(found.clone());
    }
    let found = match projects::by_id(context, id).await {
        Ok(found) => Some(found).filter(|p| p.project.shown == Shown::Yes),
        Err(Refusal::NotFound) => None,
        Err(other) => return Err(other),
    };
    known.insert(id, found.clone());
    Ok(found)
}

/// Lists what was put away.
pub(crate) async fn archives(context: &Context, kind: Kept) -> Answer {
    let projects = match kind {
        Kept::Builds => return listing::archived(context).await,
        Kept::Projects => projects::all(context, Shown::Archived).await?,
        Kept::Nothing => Vec::new(),
    };
    let page = context.asked.page(projects, PAGE_DEFAULT);
    let put_away = |project: &FoundProject| {
        let mut map = wire::project(project);
        map.insert("deleted".into(), json!(true));
        Value::Object(map)
    };
    let results = page.items.iter().map(put_away).collect();
    Ok(page.answer(results))
}
