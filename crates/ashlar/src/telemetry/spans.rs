//! From an attempt's journal to its spans.
//!
//! Names of attributes are those of OpenTelemetry's semantic conventions for CI/CD and processes
//! where there is one, else `ashlar.*`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use ashlar_core::Timestamp;
use ashlar_core::cache::CacheKind;
use ashlar_core::failure::Failure;
use ashlar_core::journal::{CacheEvent, Entry, Event, Record, StepOutcome};
use ashlar_core::state::State;
use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::ids::Ids;

/// Longer names of spans are cut, in characters.
const NAME_MAX: usize = 200;

/// What the journal says of one step.
#[derive(Default)]
struct Step<'a> {
    name: &'a str,
    begun: Option<Timestamp>,
    ended: Option<Timestamp>,
    outcome: Option<StepOutcome>,
    cache: Option<&'a CacheEvent>,
    peak_memory_bytes: Option<u64>,
    cpu_nanos: Option<u64>,
}

/// Returns the spans of the attempt that ended last: the build's, its wait's, its steps'.
pub(super) fn of(record: &Record, journal: &[Entry]) -> Vec<SpanData> {
    let parent = ashlar_service::trace_parent(journal);
    let ids = Ids::new(record.submission.build, record.attempt, parent);
    let claimed = journal.iter().rposition(|e| matches!(e.event, Event::Claimed { .. }));
    let attempt = &journal[claimed.unwrap_or(0)..];
    let begun = attempt.first().map_or(record.queued_at, |e| e.time);
    let ended = attempt.last().map_or(record.updated_at, |e| e.time);
    let root = ids.span(None);
    let failure = failure(attempt);
    let mut build = span(&ids, root, ids.parent(), "build", record.queued_at, ended);
    build.span_kind = SpanKind::Server;
    build.parent_span_is_remote = true;
    build.attributes = build_attributes(record, failure);
    build.status = failure.map_or(Status::Ok, |f| Status::error(f.message.clone()));
    let wait = span(&ids, ids.span(Some("queue")), root, "queue", record.queued_at, begun);
    let steps = steps(attempt).into_iter().map(|(number, step)| {
        let failure = failure.filter(|f| f.step.is_some_and(|s| s.0 == number));
        step_span(&ids, root, number, &step, failure, ended)
    });
    [build, wait].into_iter().chain(steps).collect()
}

fn failure(attempt: &[Entry]) -> Option<&Failure> {
    attempt.iter().rev().find_map(|entry| match &entry.event {
        Event::Failed(failure) => Some(&**failure),
        _ => None,
    })
}

fn steps(attempt: &[Entry]) -> BTreeMap<u32, Step<'_>> {
    let mut steps: BTreeMap<u32, Step<'_>> = BTreeMap::new();
    for Entry { event, time, .. } in attempt {
        match event {
            Event::Steps { names } => {
                let named = names.iter().map(|name| Step { name, ..Step::default() });
                steps = (1..).zip(named).collect();
            }
            Event::StepStarted { step } => {
                steps.entry(step.0).or_default().begun = Some(*time);
            }
            Event::StepEnded { step, outcome, peak_memory_bytes, cpu_nanos } => {
                let step = steps.entry(step.0).or_default();
                (step.ended, step.outcome) = (Some(*time), Some(*outcome));
                (step.peak_memory_bytes, step.cpu_nanos) = (*peak_memory_bytes, *cpu_nanos);
            }
            Event::Cache(cache) if cache.cache == CacheKind::Layer => {
                if let Some(number) = cache.step {
                    let step = steps.entry(number.0).or_default();
                    // The look-up comes first; that its result was kept says less.
                    step.cache.get_or_insert(cache);
                }
            }
            _ => {}
        }
    }
    // Steps that were never come to have no span.
    steps.retain(|_, step| step.begun.or(step.ended).is_some());
    steps
}

fn build_attributes(record: &Record, failure: Option<&Failure>) -> Vec<KeyValue> {
    let s = &record.submission;
    let result = match record.state {
        State::Succeeded => "success",
        State::Cancelled => "cancellation",
        State::Skipped => "skip",
        _ if failure.is_some_and(|f| f.kind.is_users()) => "failure",
        _ => "error",
    };
    let mut attributes = vec![
        KeyValue::new("cicd.pipeline.name", record.name.clone()),
        KeyValue::new("cicd.pipeline.run.id", s.build.to_string()),
        KeyValue::new("cicd.pipeline.result", result),
        KeyValue::new("ashlar.tenant", s.tenant.to_string()),
        KeyValue::new("ashlar.scope", s.scope.clone()),
        KeyValue::new("ashlar.dialect", s.dialect.clone()),
        KeyValue::new("ashlar.source", s.source.clone()),
        KeyValue::new("ashlar.state", record.state.as_str()),
        KeyValue::new("ashlar.attempt", i64::from(record.attempt)),
    ];
    let executor = record.executor.clone();
    attributes.extend(executor.map(|e| KeyValue::new("ashlar.executor", e)));
    attributes.extend(failure.map(|f| KeyValue::new("error.type", f.kind.as_str())));
    attributes
}

fn step_span(
    ids: &Ids,
    root: SpanId,
    number: u32,
    step: &Step<'_>,
    failure: Option<&Failure>,
    attempt_ended: Timestamp,
) -> SpanData {
    let ended = step.ended.unwrap_or(attempt_ended);
    let id = ids.span(Some(&number.to_string()));
    let mut span = span(ids, id, root, step.name, step.begun.unwrap_or(ended), ended);
    let attributes = &mut span.attributes;
    attributes.push(KeyValue::new("cicd.pipeline.task.name", step.name.to_owned()));
    attributes.push(KeyValue::new("ashlar.step.number", i64::from(number)));
    if let Some(cache) = step.cache {
        attributes.push(KeyValue::new("ashlar.cache.result", cache_word(cache)));
        let why = cache.reason.as_ref().map(|reason| reason.sentence());
        attributes.extend(why.map(|why| KeyValue::new("ashlar.cache.reason", why)));
    }
    let count = |name: &'static str, n: Option<u64>| {
        n.map(|n| KeyValue::new(name, i64::try_from(n).unwrap_or(i64::MAX)))
    };
    attributes.extend(count("ashlar.step.memory.peak_bytes", step.peak_memory_bytes));
    attributes.extend(count("ashlar.step.cpu.nanoseconds", step.cpu_nanos));
    let (result, exit_code) = match step.outcome {
        Some(StepOutcome::Ran) => ("success", Some(0)),
        Some(StepOutcome::Cached) => ("skip", None),
        Some(StepOutcome::Failed) => ("failure", failure.and_then(|f| f.exit_code)),
        Some(StepOutcome::Cancelled) | None => ("cancellation", None),
    };
    attributes.push(KeyValue::new("cicd.pipeline.task.run.result", result));
    attributes.extend(exit_code.map(|c| KeyValue::new("process.exit.code", i64::from(c))));
    if step.outcome == Some(StepOutcome::Failed) {
        let text = failure.map(|f| f.message.clone()).unwrap_or_default();
        span.status = Status::error(text);
    }
    span
}

const fn cache_word(cache: &CacheEvent) -> &'static str {
    use ashlar_core::cache::CacheStatus;
    match cache.status {
        CacheStatus::Hit => "hit",
        CacheStatus::Miss => "miss",
        CacheStatus::Bypass => "bypass",
        CacheStatus::Store => "store",
    }
}

fn span(
    ids: &Ids,
    id: SpanId,
    parent: SpanId,
    name: &str,
    begun: Timestamp,
    ended: Timestamp,
) -> SpanData {
    SpanData {
        span_context: ids.context(id),
        parent_span_id: parent,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: Cow::Owned(name.chars().take(NAME_MAX).collect()),
        start_time: system_time(begun),
        end_time: system_time(ended),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("ashlar")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn system_time(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(at.nanos()).unwrap_or(0))
}
