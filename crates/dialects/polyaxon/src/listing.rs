//! Which builds a list shows: one page by its place in the store's lists wherever those can tell,
//! and otherwise a look at each build, of which there is a bound.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ashlar_core::BuildId;
use ashlar_core::journal::Record;
use ashlar_core::state::State;
use ashlar_service::{At, Document, Filter, Listed, Order, Page};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::dispatch::Context;
use crate::error::{Answer, Refusal};
use crate::list::{self, LIMIT_MAX, PAGE_DEFAULT};
use crate::model::{ARCHIVED, Build, FoundBuild, FoundProject, LISTED, Queried, Shown, listed_in};
use crate::query::{Query, Sorting, compare, sort_keys, sorting};
use crate::statuses::DELETED;
use crate::{bookmarks, builds, projects, wire};

/// Records that one look takes.
const PIECE: u32 = 1000;
/// How many builds a list looks at one by one, for what the store's own lists cannot tell.
const LOOKED_AT_MAX: u64 = 5000;
/// Up to so many builds the newest change comes first. In a longer list it is the newest build: to
/// find the newest change, all of them would have to be looked at for each page.
const BY_CHANGE_MAX: u64 = 1000;
/// States of builds that have not ended.
const AT_WORK: [State; 4] = [State::Queued, State::Preparing, State::Running, State::Exporting];

/// Returns the filter of the builds that have a value in the label that lists go by: one property,
/// of which the store knows exact counts.
fn labelled(context: &Context, value: String) -> Filter {
    let labels = [(LISTED.to_owned(), value)].into();
    Filter { tenant: context.tenant(), labels, ..Filter::default() }
}

fn of_project(context: &Context, project: &FoundProject) -> Filter {
    labelled(context, listed_in(project.id))
}

/// Joins records with their documents, in the records' order. What is not shown so (any more), or
/// was made beside the dialect, is left out.
async fn joined(
    context: &Context,
    records: Vec<Arc<Record>>,
    shown: Shown,
) -> Result<Vec<FoundBuild>, Refusal> {
    let ids: Vec<Uuid> = records.iter().map(|r| r.submission.build.uuid()).collect();
    let documents = context.store.documents_of::<Build>(context.tenant(), &ids).await?;
    let mut documents: HashMap<Uuid, Document<Build>> =
        documents.into_iter().map(|d| (d.id, d)).collect();
    let mut found = Vec::with_capacity(records.len());
    for record in records {
        let document = documents.remove(&record.submission.build.uuid());
        if let Some(document) = document.filter(|d| d.value.shown == shown) {
            found.push(builds::joined(context, document, record).await?);
        }
    }
    Ok(found)
}

async fn look(
    context: &Context,
    filter: &Filter,
    at: At,
    size: u32,
    order: Order,
) -> Result<Arc<Listed>, Refusal> {
    let page = Page { size, at, order };
    Ok(context.service.list(&context.actor, filter, &page).await?)
}

/// Returns the page that was asked for by its place. Pages need not begin at a multiple of their
/// size, so a page may be parts of two of the store's.
async fn by_place(
    context: &Context,
    filter: &Filter,
    order: Order,
    shown: Shown,
) -> Result<list::Page<FoundBuild>, Refusal> {
    let (limit, offset) = context.asked.range(PAGE_DEFAULT);
    let size = u32::try_from(limit.min(LIMIT_MAX)).unwrap_or(PIECE);
    let (number, before) = ((offset / limit).saturating_add(1), offset % limit);
    let first = look(context, filter, At::Number(number as u64), size, order).await?;
    let count = usize::try_from(first.total.unwrap_or(0)).unwrap_or(usize::MAX);
    let mut records = first.records.clone();
    if let Some(next) = first.next.filter(|_| before > 0) {
        let more = look(context, filter, At::After(next), size, order).await?;
        records.extend_from_slice(&more.records);
    }
    let records = records.into_iter().skip(before).take(limit).collect();
    Ok(context.asked.part(joined(context, records, shown).await?, count, PAGE_DEFAULT))
}

/// Returns all builds of a project that a filter lets through, in no promised order.
async fn all(context: &Context, filter: &Filter) -> Result<Vec<FoundBuild>, Refusal> {
    let (mut found, mut at) = (Vec::new(), At::Number(1));
    loop {
        let listed = look(context, filter, at, PIECE, Order::NewestFirst).await?;
        if let Some(total) = listed.total.filter(|total| *total > LOOKED_AT_MAX) {
            return Err(Refusal::Text(format!(
                "This list would have to look at each of {total} builds, and {LOOKED_AT_MAX} is the \
                 most. Narrow the query with `created_at`, or sort by `created_at`."
            )));
        }
        found.extend(joined(context, listed.records.clone(), Shown::Yes).await?);
        match listed.next {
            Some(next) => at = At::After(next),
            None => return Ok(found),
        }
    }
}

/// Returns the order in which the store has a list that is sorted so; none when it has none.
async fn order_of(
    context: &Context,
    filter: &Filter,
    sorting: Sorting,
) -> Result<Option<Order>, Refusal> {
    Ok(match sorting {
        Sorting::Creation(order) => Some(order),
        Sorting::Change if total(context, filter).await? > BY_CHANGE_MAX => {
            Some(Order::NewestFirst)
        }
        Sorting::Change | Sorting::Other => None,
    })
}

async fn total(context: &Context, filter: &Filter) -> Result<u64, Refusal> {
    let listed = look(context, filter, At::Number(1), 1, Order::NewestFirst).await?;
    Ok(listed.total.unwrap_or(0))
}

/// Returns how many builds of a project are shown.
pub(crate) async fn count(context: &Context, project: &FoundProject) -> Result<u64, Refusal> {
    total(context, &of_project(context, project)).await
}

async fn page(
    context: &Context,
    project: &FoundProject,
) -> Result<list::Page<FoundBuild>, Refusal> {
    let query = match context.asked.parameter("query").filter(|text| !text.is_empty()) {
        Some(text) => Some(Query::parse(text).map_err(|e| Refusal::Text(e.to_string()))?),
        None => None,
    };
    let keys = sort_keys(context.asked.parameter("sort").unwrap_or_default());
    let mut filter = of_project(context, project);
    let exact = query.as_ref().is_none_or(|query| query.narrow(&mut filter));
    if exact && let Some(order) = order_of(context, &filter, sorting(&keys)).await? {
        return by_place(context, &filter, order, Shown::Yes).await;
    }
    let mut builds = all(context, &filter).await?;
    if let Some(query) = query {
        builds.retain(|b| query.matches(&Queried(project, b)));
    }
    builds.sort_by(|a, b| {
        let newest = || b.build.number.cmp(&a.build.number);
        compare(&keys, &Queried(project, a), &Queried(project, b)).then_with(newest)
    });
    Ok(context.asked.page(builds, PAGE_DEFAULT))
}

/// Lists the builds of a project.
pub(crate) async fn list(context: &Context, project: &FoundProject) -> Answer {
    let page = page(context, project).await?;
    let marked: HashSet<Uuid> = bookmarks::targets(context, "build").await?;
    let item = |found: &FoundBuild| {
        let mut map = wire::build(project, found);
        map.insert("bookmarked".into(), json!(marked.contains(&found.id().uuid())));
        Value::Object(map)
    };
    let results = page.items.iter().map(item).collect();
    Ok(page.answer(results))
}

/// Lists the builds that were put away, of all projects of the owner, newest build first.
pub(crate) async fn archived(context: &Context) -> Answer {
    let filter = labelled(context, ARCHIVED.to_owned());
    let page = by_place(context, &filter, Order::NewestFirst, Shown::Archived).await?;
    let (mut results, mut known) = (Vec::new(), HashMap::new());
    for found in &page.items {
        // Builds of a project that is being erased go with it.
        if let Some(project) = project_of(context, found, &mut known).await? {
            let mut map: Map<String, Value> = wire::build(&project, found);
            map.insert("deleted".into(), json!(true));
            results.push(Value::Object(map));
        }
    }
    Ok(page.answer(results))
}

async fn project_of(
    context: &Context,
    found: &FoundBuild,
    known: &mut HashMap<Uuid, Option<FoundProject>>,
) -> Result<Option<FoundProject>, Refusal> {
    let id = found.build.project;
    if let Some(project) = known.get(&id) {
        return Ok(project.clone());
    }
    let project = match projects::by_id(context, id).await {
        Ok(project) => Some(project).filter(|p| p.project.shown != Shown::Deleted),
        Err(Refusal::NotFound) => None,
        Err(other) => return Err(other),
    };
    known.insert(id, project.clone());
    Ok(project)
}

/// Stops what runs in a project.
pub(crate) async fn stop_all(context: &Context, project: &FoundProject) -> Result<(), Refusal> {
    for state in AT_WORK {
        let filter = Filter { state: Some(state), ..of_project(context, project) };
        let mut at = At::Start;
        loop {
            let listed = look(context, &filter, at, PIECE, Order::NewestFirst).await?;
            for record in &listed.records {
                let id: BuildId = record.submission.build;
                context.service.cancel(&context.actor, id, Some(DELETED)).await?;
            }
            match listed.next {
                Some(next) => at = At::After(next),
                None => break,
            }
        }
    }
    Ok(())
}

/// Marks all builds of a project that are shown as no longer valid.
pub(crate) async fn invalidate_all(context: &Context, project: &FoundProject) -> Answer {
    context.may_change()?;
    let (filter, mut at) = (of_project(context, project), At::Start);
    loop {
        let listed = look(context, &filter, at, PIECE, Order::NewestFirst).await?;
        for found in joined(context, listed.records.clone(), Shown::Yes).await? {
            if found.build.valid {
                builds::edit(context, found, |b| b.valid = false).await?;
            }
        }
        match listed.next {
            Some(next) => at = At::After(next),
            None => return Ok(crate::error::empty(axum::http::StatusCode::OK)),
        }
    }
}
