//! `ashlar builds list` and `show`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use ashlar_client::{Due, Expiry};
use ashlar_core::Timestamp;

use super::origin::{Asked, Origin};
use super::view::BuildView;
use crate::cli::builds::{ListArgs, OneArgs};
use crate::commands::build::short;
use crate::commands::usage;
use crate::output::{self, Table, ago, line, note, span};
use crate::settings::Settings;
use crate::values;

pub(super) fn list(settings: &Settings, args: &ListArgs) -> Result<ExitCode> {
    let asked = Asked {
        parts: parts(args)?,
        limit: args.limit,
        cursor: args.cursor.clone(),
        tenant: args.server.tenant.clone(),
    };
    let (builds, next) = Origin::open(settings, &args.server)?.list(&asked)?;
    if args.json.json {
        builds.iter().try_for_each(output::json)?;
    } else {
        table(&builds).print()?;
        if builds.is_empty() {
            note("no builds; start with: ashlar build CONTEXT");
        }
    }
    if let Some(next) = next {
        note(format!("more: --cursor {next}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns what is asked for, with flags beside the query as parts of it.
fn parts(args: &ListArgs) -> Result<Vec<(String, String)>> {
    let mut words = args.query.join(" ");
    if let Some(text) = &args.text {
        words = format!("{words} {text}");
    }
    let mut parts = Vec::new();
    if !words.trim().is_empty() {
        // Said in the same words here as by a server.
        if let Err(error) = ashlar_service::Query::parse(&words) {
            return usage(format!("the query is wrong: {error}"));
        }
        parts.push(("q".to_owned(), words));
    }
    parts.extend(args.state.map(|s| ("state".to_owned(), s.to_string())));
    let label = |(name, value): &(String, String)| ("label".to_owned(), format!("{name}={value}"));
    parts.extend(args.labels.iter().map(label));
    if let Some(text) = &args.since {
        parts.push(("created".to_owned(), format!(">={}", since(text)?)));
    }
    Ok(parts)
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

fn took(build: &BuildView) -> Option<String> {
    let seconds = build.seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
    seconds.map(span)
}

fn table(builds: &[BuildView]) -> Table {
    let mut table = Table::new(["BUILD", "STATE", "CREATED", "TOOK", "CACHED", "NAME"]);
    for build in builds {
        table.row([
            short(&build.id.to_string()).to_owned(),
            build.state.to_string(),
            ago(build.created_at),
            took(build).unwrap_or_default(),
            format!("{}/{}", build.steps.cached, build.steps.total),
            build.name.clone(),
        ]);
    }
    table
}

pub(super) fn show(settings: &Settings, args: &OneArgs) -> Result<ExitCode> {
    let origin = Origin::open(settings, &args.server)?;
    let build = origin.get(origin.find(&args.build)?)?;
    if args.json.json {
        output::json(&build)?;
        return Ok(ExitCode::SUCCESS);
    }
    let say = |name: &str, value: String| line(format!("{name:<10} {value}"));
    say("build", build.id.to_string())?;
    say("name", output::clean(&build.name))?;
    say("state", build.state.to_string())?;
    say("created", format!("{} ({})", build.created_at, ago(build.created_at)))?;
    if let Some(took) = took(&build) {
        say("took", took)?;
    }
    let steps = build.steps;
    say("steps", format!("{} of {} ended, {} cached", steps.ended, steps.total, steps.cached))?;
    say("cache", cache_line(&build))?;
    for artifact in &build.artifacts {
        say(&artifact.kind, format!("{} {}", artifact.digest, artifact.references.join(" ")))?;
    }
    for (name, value) in &build.labels {
        say("label", output::clean(&format!("{name}={value}")))?;
    }
    for text in build.expiry.iter().flat_map(kept) {
        say("kept", output::clean(&text))?;
    }
    if let Some(failure) = &build.failure {
        let text = output::clean(&failure.message);
        say("failure", format!("{}: {text}", failure.kind.as_str()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says how long what belongs to a build is kept; nothing when nothing bounds it.
fn kept(expiry: &Expiry) -> Vec<String> {
    if let Some(why) = &expiry.exempt {
        return vec![format!("in any case ({})", why.replace('_', " "))];
    }
    let things =
        [("record", &expiry.record), ("log", &expiry.log), ("artifacts", &expiry.artifacts)];
    let line = |(what, due): (&str, &Option<Due>)| {
        due.as_ref().map(|due| format!("{what} until {} ({})", due.at, due.why))
    };
    things.into_iter().filter_map(line).collect()
}

fn cache_line(build: &BuildView) -> String {
    let one = |shown: &str, name: &str| {
        let counts = build.cache.get(name).copied().unwrap_or_default();
        format!("{shown} {} hit, {} miss", counts.hits, counts.misses)
    };
    [one("final", "final_artifact"), one("layers", "layer"), one("files", "file_blob")].join("; ")
}
