//! The list of builds, and one build with its steps and its log.

use std::collections::BTreeMap;

use ashlar_core::Timestamp;
use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::journal::{Entry, Event, Record, StepOutcome};
use ashlar_http::Origin;
use ashlar_service::{Due, Error, Exempt, Expiry, LogLineAt, Most, Page, Query as ListQuery};
use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use serde::Deserialize;

use super::log::shown;
use super::session::{BuildPath, Visitor, failed, page, refused};
use crate::app::Shared;
use crate::builds::Looks;
use crate::params;

/// Builds on one page.
const PAGE_SIZE: u32 = 50;
/// Events of a build that its page looks at; the rest is for the API.
const EVENTS_MAX: usize = 10_000;
/// The end of a journal whose log lines the page shows; all of them are one link away.
const LOG_SHOWN: Most = Most { entries: 2_000, bytes: 1024 * 1024 };
/// Seconds after which the page of a running build is loaded again.
const REFRESH_SECONDS: &str = "2";

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    q: String,
    cursor: Option<String>,
}

#[derive(Template)]
#[template(path = "builds.html")]
struct Builds {
    prefix: String,
    who: String,
    q: String,
    error: Option<String>,
    rows: Vec<Row>,
    next: Option<String>,
}

/// One build in the list.
struct Row {
    id: String,
    name: String,
    scope: String,
    dialect: String,
    state: &'static str,
    created: String,
    took: String,
    steps: String,
}

impl Row {
    fn of(record: &Record) -> Self {
        let s = &record.submission;
        let steps = record.steps;
        Self {
            id: s.build.to_string(),
            name: record.name.clone(),
            scope: s.scope.clone(),
            dialect: s.dialect.clone(),
            state: record.state.as_str(),
            created: time(record.created_at),
            took: record
                .duration()
                .map(|d| format!("{:.1} s", d.as_secs_f64()))
                .unwrap_or_default(),
            steps: format!("{}/{} ({} cached)", steps.ended, steps.total, steps.cached),
        }
    }
}

fn time(at: Timestamp) -> String {
    at.rfc3339().chars().take(19).collect::<String>().replace('T', " ")
}

pub(super) async fn builds(
    State(shared): State<Shared>,
    Visitor(actor): Visitor,
    origin: Origin,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let asked = match asked {
        Ok(Query(asked)) => asked,
        Err(wrong) => return refused(&origin, wrong.into()),
    };
    let who = format!("{} / {}", actor.tenant.name, actor.principal.name);
    let list = async {
        let query = ListQuery::parse(&asked.q).map_err(|e| Error::invalid("q", e))?;
        let mut filter = query.filter;
        filter.tenant = Some(actor.tenant.id);
        let page = params::page(Some(PAGE_SIZE), asked.cursor.as_deref(), None, None);
        let page: Page = page.map_err(|p| Error::invalid("cursor", p.detail))?;
        shared.service.list(&actor, &filter, &page).await
    };
    let (status, rows, next, error) = match list.await {
        Ok(listed) => {
            let next = listed.next.map(|c| c.to_string());
            (
                StatusCode::OK,
                listed.records.iter().map(|record| Row::of(record)).collect(),
                next,
                None,
            )
        }
        Err(error @ Error::Invalid { .. }) => {
            (StatusCode::BAD_REQUEST, Vec::new(), None, Some(error.public()))
        }
        Err(error) => return failed(&origin, error),
    };
    page(status, &Builds { prefix: origin.prefix, who, q: asked.q, error, rows, next })
}

#[derive(Template)]
#[template(path = "build.html")]
struct Build {
    prefix: String,
    who: String,
    row: Row,
    attempt: u32,
    executor: String,
    failure: Option<String>,
    hint: Option<String>,
    artifacts: Vec<String>,
    tags: Vec<String>,
    kept: Vec<String>,
    steps: Vec<Step>,
    /// Says that there is no log any more.
    removed: Option<String>,
    log: String,
    cut: bool,
}

/// One step with its times.
struct Step {
    number: u32,
    name: String,
    outcome: &'static str,
    took: String,
    why: String,
}

pub(super) async fn build(
    State(shared): State<Shared>,
    Visitor(actor): Visitor,
    origin: Origin,
    BuildPath(build): BuildPath,
) -> Response {
    let look = async {
        let record = shared.service.row(&actor, build).await?;
        let events = shared.service.events(&actor, build, 0, EVENTS_MAX).await?;
        let removed = shared.service.log_removed(&actor, build).await?;
        let entries = shared.service.journal_tail(&actor, build, LOG_SHOWN).await?;
        let tags = shared.service.tags_of(&actor, build).await?;
        let expiry = shared.service.expiry(&record).await?;
        Ok::<_, Error>((record, events, removed, entries, tags, expiry))
    };
    let (record, events, removed, entries, tags, expiry) = match look.await {
        Ok(found) => found,
        Err(error) => return failed(&origin, error),
    };
    let shown = Build {
        prefix: origin.prefix,
        who: format!("{} / {}", actor.tenant.name, actor.principal.name),
        attempt: record.attempt,
        executor: record.executor.clone().unwrap_or_default(),
        failure: record.failure.as_ref().map(|f| f.message.clone()),
        hint: record.failure.as_ref().and_then(|f| f.hint.clone()),
        artifacts: record.artifacts.iter().map(|a| format!("{} {}", a.name, a.digest)).collect(),
        tags,
        kept: kept(&expiry),
        steps: steps(&events),
        removed: removed.map(|removed| removed.to_string()),
        cut: entries.first().is_some_and(|first| first.number > 0),
        log: log(entries),
        row: Row::of(&record),
    };
    let mut response = page(StatusCode::OK, &shown);
    if !record.state.is_terminal() {
        let after = HeaderValue::from_static(REFRESH_SECONDS);
        response.headers_mut().insert(HeaderName::from_static("refresh"), after);
    }
    response
}

/// Says how long what belongs to a build is kept; nothing when nothing bounds it.
fn kept(expiry: &Expiry) -> Vec<String> {
    if let Some(exempt) = expiry.exempt {
        let why = match exempt {
            Exempt::Pinned => "it is pinned",
            Exempt::Promoted => "a name was promoted to it",
            Exempt::Needed => "a build or run that has not ended needs it",
            Exempt::LastGood => "it is the newest success of its name",
        };
        return vec![format!("in any case: {why}")];
    }
    let things = [("record", expiry.record), ("log", expiry.log), ("artifacts", expiry.artifacts)];
    let line = |(what, due): (&str, Option<Due>)| {
        due.map(|due| format!("{what} until {} UTC ({})", time(due.at), due.why.as_str()))
    };
    things.into_iter().filter_map(line).collect()
}

/// Puts together what the journal says of the current attempt's steps.
fn steps(entries: &[Entry]) -> Vec<Step> {
    let (mut steps, mut begun): (Vec<Step>, BTreeMap<u32, Timestamp>) = Default::default();
    for entry in entries {
        match &entry.event {
            Event::Steps { names } => {
                begun.clear();
                let step = |(i, name): (usize, &String)| Step {
                    number: u32::try_from(i + 1).unwrap_or(u32::MAX),
                    name: name.clone(),
                    outcome: "waiting",
                    took: String::new(),
                    why: String::new(),
                };
                steps = names.iter().enumerate().map(step).collect();
            }
            Event::StepStarted { step } => {
                begun.insert(step.0, entry.time);
                if let Some(step) = steps.iter_mut().find(|s| s.number == step.0) {
                    step.outcome = "running";
                }
            }
            Event::StepEnded { step, outcome, .. } => {
                let took = begun.get(&step.0).map(|at| entry.time.since(*at));
                if let Some(step) = steps.iter_mut().find(|s| s.number == step.0) {
                    step.outcome = word(*outcome);
                    step.took =
                        took.map(|t| format!("{:.1} s", t.as_secs_f64())).unwrap_or_default();
                }
            }
            Event::Cache(cache) if cache.cache == CacheKind::Layer => {
                let missed = matches!(cache.status, CacheStatus::Miss | CacheStatus::Bypass);
                let step = cache.step.and_then(|n| steps.iter_mut().find(|s| s.number == n.0));
                if let (Some(step), Some(reason), true) = (step, &cache.reason, missed) {
                    step.why = reason.sentence();
                }
            }
            _ => {}
        }
    }
    steps
}

const fn word(outcome: StepOutcome) -> &'static str {
    match outcome {
        StepOutcome::Ran => "ran",
        StepOutcome::Cached => "cached",
        StepOutcome::Failed => "failed",
        StepOutcome::Cancelled => "cancelled",
    }
}

/// Returns the log as HTML: each line escaped, with its step's number.
fn log(entries: Vec<Entry>) -> String {
    let mut looks = Looks::default();
    entries.into_iter().filter_map(LogLineAt::of).map(|at| shown(&at, &mut looks)).collect()
}
