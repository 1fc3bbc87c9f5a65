//! `ashlar builds cancel`, `retry`, `pin`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use ashlar_client::Client;
use ashlar_core::BuildId;
use ashlar_core::journal::Event;
use ashlar_core::state::State;
use ashlar_frontend_dockerfile::NoCache;
use ashlar_records::blocking::LocalHistory;

use super::origin::Origin;
use super::usage;
use super::view::BuildView;
use crate::cli::build::Backend;
use crate::cli::builds::{OneArgs, RetryArgs};
use crate::commands::build::{self, Definition, Job};
use crate::commands::remote::{self, told};
use crate::commands::running;
use crate::output::{json, note};
use crate::settings::Settings;

/// Asks a build to stop.
pub(super) fn cancel(settings: &Settings, args: &OneArgs) -> Result<ExitCode> {
    let origin = Origin::open(settings, &args.server)?;
    let build = origin.find(&args.build)?;
    let (view, said) = match &origin {
        Origin::Here(history) => cancel_here(settings, history, build)?,
        Origin::There(client) => cancel_there(client, build)?,
    };
    if args.json.json {
        json(&view)?;
    }
    note(said);
    Ok(ExitCode::SUCCESS)
}

/// Says that a build cannot be stopped any more.
fn refuse_ended(build: BuildId, state: State) -> Result<()> {
    if state.is_terminal() {
        bail!("the build {build} has ended already: {state}");
    }
    Ok(())
}

fn cancel_there(client: &Client, build: BuildId) -> Result<(BuildView, String)> {
    let found = client.build(&build.to_string()).map_err(told)?;
    refuse_ended(build, BuildView::from(found).state)?;
    let view = BuildView::from(client.cancel(build, None).map_err(told)?);
    // It may have ended in between.
    if view.state != State::Cancelled {
        refuse_ended(build, view.state)?;
    }
    Ok((view, format!("asked {build} to stop")))
}

fn cancel_here(
    settings: &Settings,
    history: &LocalHistory,
    build: BuildId,
) -> Result<(BuildView, String)> {
    let Some(found) = history.get(build)? else { bail!("the build {build} has been removed") };
    refuse_ended(build, found.state)?;
    let by = "user".to_owned();
    let record = history.note(build, Event::CancelRequested { by, reason: None })?;
    let told = running::stop(&settings.dir()?, &build.to_string())?;
    let said = match (told, found.submission.tenant == history.tenant()) {
        // A server sees the wish in the record.
        (true, _) | (false, false) => format!("asked {build} to stop"),
        (false, true) => {
            format!("the process that made {build} is gone; it will be listed as failed")
        }
    };
    Ok((BuildView::from(&record), said))
}

/// Builds the same definition again.
pub(super) fn retry(settings: &Settings, args: &RetryArgs) -> Result<ExitCode> {
    let origin = Origin::open(settings, &args.server)?;
    let build = origin.find(&args.build)?;
    match origin {
        Origin::There(client) => remote::retry(&client, build, args),
        Origin::Here(history) => retry_here(settings, history, build, args),
    }
}

fn retry_here(
    settings: &Settings,
    history: LocalHistory,
    build: BuildId,
    args: &RetryArgs,
) -> Result<ExitCode> {
    let Some(record) = history.get(build)? else { bail!("the build {build} has been removed") };
    if record.submission.tenant != history.tenant() {
        return usage(format!(
            "the build {build} is a server's; repeat it there with --server URL"
        ));
    }
    let Ok(mut definition) = serde_json::from_value::<Definition>(record.submission.definition)
    else {
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
    definition.secrets.extend(args.secrets.iter().cloned());
    let before = record.submission.backend.as_deref().and_then(Backend::of_word);
    let wish = build::Wish { asked: args.backend, before, daemons: &args.buildkit };
    let executor = build::choose(settings, &wish, &definition)?;
    let job = Job {
        definition,
        inputs: build::Inputs::default(),
        progress: args.progress,
        iidfile: None,
        metadata_file: None,
        retry_of: Some(build),
        executor,
    };
    drop(history);
    build::build(settings, job)
}

/// Keeps a build from being forgotten, or lets it be.
pub(super) fn pin(settings: &Settings, args: &OneArgs, pinned: bool) -> Result<ExitCode> {
    let origin = Origin::open(settings, &args.server)?;
    let build = origin.find(&args.build)?;
    let view = match &origin {
        Origin::Here(history) => BuildView::from(&history.note(build, Event::Pinned { pinned })?),
        Origin::There(client) => BuildView::from(client.pin(build, pinned).map_err(told)?),
    };
    if args.json.json {
        json(&view)?;
    } else {
        note(format!("{build} is {}", if pinned { "pinned" } else { "no longer pinned" }));
    }
    Ok(ExitCode::SUCCESS)
}
