//! `ashlar builds cancel`, `retry`, `pin`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use ashlar_core::journal::Event;
use ashlar_frontend_dockerfile::NoCache;

use super::view::BuildView;
use super::{record, usage};
use crate::cli::builds::{OneArgs, RetryArgs};
use crate::commands::build::{self, Definition, Job};
use crate::commands::running;
use crate::output::{json, note};
use crate::settings::Settings;

/// Asks a build to stop.
pub(super) fn cancel(settings: &Settings, args: &OneArgs) -> Result<ExitCode> {
    let history = settings.history()?;
    let found = record(&history, &args.build)?;
    let build = found.submission.build;
    if found.state.is_terminal() {
        bail!("the build {build} has ended already: {}", found.state);
    }
    let by = "user".to_owned();
    let record = history.note(build, Event::CancelRequested { by, reason: None })?;
    let told = running::stop(&settings.dir()?, &build.to_string())?;
    if args.json.json {
        json(&BuildView::of(&record))?;
    }
    match told {
        true => note(format!("asked {build} to stop")),
        false => {
            note(format!("the process that made {build} is gone; it will be listed as failed"))
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the same definition again.
pub(super) fn retry(settings: &Settings, args: &RetryArgs) -> Result<ExitCode> {
    let history = settings.history()?;
    let record = record(&history, &args.build)?;
    let build = record.submission.build;
    let definition = record.submission.definition;
    let Ok(mut definition) = serde_json::from_value::<Definition>(definition) else {
        bail!("the build {build} was made by another version of ashlar; build it anew");
    };
    if definition.once {
        return usage(format!(
            "the build {build} read standard input, which is gone; build it anew"
        ));
    }
    if args.no_cache {
        definition.request.no_cache = NoCache::All;
    }
    let job = Job {
        definition,
        inputs: build::Inputs::default(),
        progress: args.progress,
        iidfile: None,
        metadata_file: None,
        retry_of: Some(build),
    };
    drop(history);
    build::build(settings, job)
}

/// Keeps a build from being forgotten, or lets it be.
pub(super) fn pin(settings: &Settings, args: &OneArgs, pinned: bool) -> Result<ExitCode> {
    let history = settings.history()?;
    let build = record(&history, &args.build)?.submission.build;
    let record = history.note(build, Event::Pinned { pinned })?;
    if args.json.json {
        json(&BuildView::of(&record))?;
    } else {
        note(format!("{build} is {}", if pinned { "pinned" } else { "no longer pinned" }));
    }
    Ok(ExitCode::SUCCESS)
}
