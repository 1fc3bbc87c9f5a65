//! `ashlar builds list` and `show`.

use std::process::ExitCode;

use anyhow::Result;
use ashlar_core::Timestamp;
use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::journal::Record;
use ashlar_records::{At, Filter, Order, Page};

use super::record;
use super::view::BuildView;
use crate::cli::builds::{ListArgs, OneArgs};
use crate::commands::build::short;
use crate::commands::usage;
use crate::output::{self, Table, ago, line, note, span};
use crate::settings::Settings;
use crate::values;

pub(super) fn list(settings: &Settings, args: &ListArgs) -> Result<ExitCode> {
    let at = match args.cursor.as_deref().map(str::parse) {
        None => At::Start,
        Some(Ok(cursor)) => At::After(cursor),
        Some(Err(e)) => return usage(format!("--cursor: {e}")),
    };
    let history = settings.history()?;
    let filter = Filter {
        tenant: Some(history.tenant()),
        state: args.state,
        labels: args.labels.iter().cloned().collect(),
        text: args.text.clone(),
        created_from: args.since.as_deref().map(since).transpose()?,
        ..Filter::default()
    };
    let page = Page { size: args.limit, at, order: Order::NewestFirst };
    let listed = history.list(&filter, &page)?;
    if args.json.json {
        for record in &listed.records {
            output::json(&BuildView::of(record))?;
        }
    } else {
        table(&listed.records).print()?;
        if listed.records.is_empty() {
            note("no builds; start with: ashlar build CONTEXT");
        }
    }
    if let Some(next) = listed.next {
        note(format!("more: --cursor {next}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a time, or how long ago it was.
fn since(text: &str) -> Result<Timestamp> {
    if let Some(time) = Timestamp::parse(text) {
        return Ok(time);
    }
    match values::duration(text) {
        Ok(ago) => {
            let nanos = i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX);
            Ok(Timestamp::from_nanos(ashlar_records::now().nanos().saturating_sub(nanos)))
        }
        Err(_) => usage(format!("--since {text}: write e.g. 2h, or 2026-01-31T00:00:00Z")),
    }
}

fn table(records: &[Record]) -> Table {
    let mut table = Table::new(["BUILD", "STATE", "CREATED", "TOOK", "CACHED", "NAME"]);
    for record in records {
        table.row([
            short(&record.submission.build.to_string()).to_owned(),
            record.state.to_string(),
            ago(record.created_at),
            record.duration().map(span).unwrap_or_default(),
            format!("{}/{}", record.steps.cached, record.steps.total),
            record.name.clone(),
        ]);
    }
    table
}

pub(super) fn show(settings: &Settings, args: &OneArgs) -> Result<ExitCode> {
    let history = settings.history()?;
    let record = record(&history, &args.build)?;
    if args.json.json {
        output::json(&BuildView::of(&record))?;
        return Ok(ExitCode::SUCCESS);
    }
    let say = |name: &str, value: String| line(format!("{name:<10} {value}"));
    say("build", record.submission.build.to_string())?;
    say("name", output::clean(&record.name))?;
    say("state", record.state.to_string())?;
    say("created", format!("{} ({})", record.created_at, ago(record.created_at)))?;
    if let Some(took) = record.duration() {
        say("took", span(took))?;
    }
    let steps = record.steps;
    say("steps", format!("{} of {} ended, {} cached", steps.ended, steps.total, steps.cached))?;
    say("cache", cache_line(&record))?;
    for artifact in &record.artifacts {
        say(&artifact.kind, format!("{} {}", artifact.digest, artifact.references.join(" ")))?;
    }
    for (name, value) in &record.labels {
        say("label", output::clean(&format!("{name}={value}")))?;
    }
    if let Some(failure) = &record.failure {
        say("failure", format!("{}: {}", failure.kind.as_str(), failure.message))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cache_line(record: &Record) -> String {
    let get = |kind, status| record.cache.get(kind, status);
    let one = |name, kind| {
        let (hits, misses) = (get(kind, CacheStatus::Hit), get(kind, CacheStatus::Miss));
        format!("{name} {hits} hit, {misses} miss")
    };
    [
        one("final", CacheKind::FinalArtifact),
        one("layers", CacheKind::Layer),
        one("files", CacheKind::FileBlob),
    ]
    .join("; ")
}
