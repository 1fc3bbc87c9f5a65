//! Statuses as rows with numbers: a build's journal, projected as far as somebody has looked.

use ashlar_core::BuildId;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{Event, Record};
use ashlar_core::state::State;
use ashlar_service::Most;
use axum::http::StatusCode;
use serde_json::Value;

use crate::DIALECT;
use crate::body::Fields;
use crate::builds;
use crate::dispatch::{Context, Subject, is_conflict};
use crate::error::{Answer, Refusal, empty, reply};
use crate::list::PAGE_DEFAULT;
use crate::model::{Build, FoundBuild, NUMBERS, Outside, StatusNumbers, derived};
use crate::statuses::{MESSAGE_MAX, Posted, Projection, Row, Status};
use crate::wire;

/// What one look takes.
const PIECE: Most = Most { entries: 5000, bytes: 1024 * 1024 };
/// How often a change is tried again when somebody else was faster.
const TRIES: usize = 10;
/// Entries after which it is worth writing down how far the journal was read.
const WORTH_KEEPING: u64 = 2000;

/// Statuses with their numbers.
struct Numbered {
    projection: Projection,
    numbers: Vec<u64>,
}

/// Returns a build's statuses as far as its journal goes, whatever their numbers.
pub(crate) async fn projected(
    context: &Context,
    record: &Record,
    build: &Build,
) -> Result<Projection, Refusal> {
    Ok(numbered(context, record.submission.build, build).await?.projection)
}

/// Reads on in the journal from where the last look ended, draws numbers for new rows, and writes
/// both down. Numbers are drawn before they are written: whoever loses the race reads the winner's.
async fn numbered(context: &Context, id: BuildId, build: &Build) -> Result<Numbered, Refusal> {
    let tenant = context.tenant();
    for _ in 0..TRIES {
        let document = context.store.document::<StatusNumbers>(tenant, id.uuid()).await?;
        let document = document.ok_or(Refusal::NotFound)?;
        let (version, kept) = (document.version, document.value);
        let mut projection = match kept.projection {
            Some(projection) => projection,
            None => builds::projection(build, &builds::details(context, id).await?),
        };
        let next = read_on(context, id, kept.next, &mut projection).await?;
        let mut numbers = kept.numbers;
        let fresh = projection.rows().len() > numbers.len();
        while projection.rows().len() > numbers.len() {
            numbers.push(context.store.next_number(None, NUMBERS).await?);
        }
        if !fresh && next - kept.next < WORTH_KEEPING {
            return Ok(Numbered { projection, numbers });
        }
        let new = StatusNumbers { numbers, next, projection: Some(projection) };
        match context.store.replace_document(tenant, id.uuid(), version, &new).await {
            Err(error) if is_conflict(&error) => {}
            other => {
                other?;
                let projection = new.projection.unwrap_or_default();
                return Ok(Numbered { projection, numbers: new.numbers });
            }
        }
    }
    Err(Refusal::Text("The build's statuses are being read by many; try again.".into()))
}

async fn read_on(
    context: &Context,
    id: BuildId,
    from: u64,
    projection: &mut Projection,
) -> Result<u64, Refusal> {
    let mut next = from;
    loop {
        let entries = context.service.journal_within(&context.actor, id, next, PIECE).await?;
        let Some(last) = entries.last() else { return Ok(next) };
        next = last.number + 1;
        entries.iter().for_each(|entry| projection.feed(entry));
    }
}

fn uuid(id: BuildId, place: usize) -> String {
    derived(&[b"status", id.uuid().as_bytes(), &place.to_be_bytes()]).simple().to_string()
}

fn row(found: &FoundBuild, numbered: &Numbered, place: usize) -> Option<Value> {
    let row: &Row = numbered.projection.rows().get(place)?;
    let number = numbered.numbers.get(place)?;
    Some(wire::status(row, *number, &uuid(found.id(), place), found.build.number))
}

pub(crate) async fn list(subject: Subject<'_>) -> Answer {
    let Subject { context, build, .. } = subject;
    let numbered = numbered(context, build.id(), &build.build).await?;
    let places: Vec<usize> = (0..numbered.projection.rows().len()).collect();
    let page = context.asked.page(places, PAGE_DEFAULT);
    let results = page.items.iter().filter_map(|place| row(&build, &numbered, *place)).collect();
    Ok(page.answer(results))
}

pub(crate) async fn show(subject: Subject<'_>, wanted: &str) -> Answer {
    let Subject { context, build, .. } = subject;
    let numbered = numbered(context, build.id(), &build.build).await?;
    let place = (0..numbered.projection.rows().len()).find(|p| uuid(build.id(), *p) == wanted);
    let row = place.and_then(|place| row(&build, &numbered, place)).ok_or(Refusal::NotFound)?;
    Ok(reply(StatusCode::OK, &row))
}

fn posted(fields: &Fields) -> Result<Posted, Refusal> {
    let word = fields.text("status")?.ok_or_else(|| Refusal::required("status"))?;
    let status = Status::parse(&word).ok_or_else(|| {
        let shown: String = word.chars().take(100).collect();
        Refusal::Field("status", format!("\"{shown}\" is not a valid choice."))
    })?;
    let message = fields.text("message")?;
    if message.as_ref().is_some_and(|m| m.chars().count() > MESSAGE_MAX) {
        let why = format!("Ensure this field has no more than {MESSAGE_MAX} characters.");
        return Err(Refusal::Field("message", why));
    }
    let details = match fields.get("details") {
        None => None,
        Some(details @ Value::Object(_)) => Some(details.clone()),
        Some(_) => return Err(Refusal::Field("details", "Value must be valid JSON.".into())),
    };
    Ok(Posted { status, message, traceback: fields.text("traceback")?, details })
}

/// Takes a posted status. One that may not follow is dropped without error, and so is one for a
/// managed build, whose statuses are its worker's; the answer is then the row that stands.
pub(crate) async fn post(subject: Subject<'_>, fields: &Fields, created: bool) -> Answer {
    let Subject { context, build, .. } = subject;
    context.may_change()?;
    let posted = posted(fields)?;
    let id = build.id();
    let before = numbered(context, id, &build.build).await?;
    if !build.build.is_managed && posted.status.may_follow(before.projection.last()) {
        report(context, &build, posted).await?;
    }
    let after = numbered(context, id, &build.build).await?;
    let found = remember(context, build, &after.projection).await?;
    if !created {
        return Ok(empty(StatusCode::OK));
    }
    let newest = after.projection.rows().len().saturating_sub(1);
    let row = row(&found, &after, newest).ok_or(Refusal::NotFound)?;
    Ok(reply(StatusCode::CREATED, &row))
}

/// Writes a status into the build's journal, together with what it means to everybody else.
async fn report(context: &Context, found: &FoundBuild, posted: Posted) -> Result<(), Refusal> {
    let mut events = Vec::new();
    let from = found.record.state;
    let to = meaning(posted.status);
    if from == State::Queued && matches!(to, Some(State::Running | State::Succeeded)) {
        events.push(Event::State { to: State::Preparing });
    }
    let reached = if from == State::Queued && !events.is_empty() { State::Preparing } else { from };
    let failed = to == Some(State::Failed);
    let words = posted.message.clone().unwrap_or_else(|| posted.status.as_str().to_owned());
    let value =
        serde_json::to_value(&posted).map_err(|e| ashlar_service::Error::Internal(Box::new(e)))?;
    events.push(Event::Note { dialect: DIALECT.into(), value });
    if let Some(to) = to.filter(|to| reached.may_become(*to)) {
        if failed {
            events.push(Event::Failed(Box::new(Failure::new(FailureKind::Step, words))));
        }
        events.push(Event::State { to });
    }
    match context.service.report(&context.actor, found.id(), events).await {
        // Somebody else was faster and what was posted may not follow that: dropped.
        Err(error) if is_conflict(&error) => Ok(()),
        other => {
            other?;
            Ok(())
        }
    }
}

/// Returns the state that a posted status brings the build to, if it moves it.
const fn meaning(status: Status) -> Option<State> {
    match status {
        Status::Scheduled | Status::Building => Some(State::Preparing),
        Status::Running => Some(State::Running),
        Status::Succeeded => Some(State::Succeeded),
        Status::Failed | Status::UpstreamFailed => Some(State::Failed),
        Status::Stopped => Some(State::Cancelled),
        Status::Skipped => Some(State::Skipped),
        _ => None,
    }
}

/// Writes down what lists show of a build that is driven from outside.
async fn remember(
    context: &Context,
    found: FoundBuild,
    projection: &Projection,
) -> Result<FoundBuild, Refusal> {
    let Some(status) = projection.last().filter(|_| !found.build.is_managed) else {
        return Ok(found);
    };
    let (started_at, finished_at) = (projection.started_at(), projection.finished_at());
    let outside = Outside { status, started_at, finished_at };
    builds::edit(context, found, |b| b.outside = Some(outside.clone())).await
}
