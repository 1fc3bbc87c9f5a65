//! `ashlar builds`: the history of local builds.

mod act;
mod debug;
mod list;
mod logs;
mod timeline;
mod view;
mod why;

use std::process::ExitCode;

use anyhow::{Result, bail};
use ashlar_core::BuildId;
use ashlar_core::journal::{Entry, Record};
use ashlar_records::blocking::LocalHistory;
use ashlar_records::{At, Filter, Order, Page};

use super::usage;
use crate::cli::builds::{BuildsCommand, DebugArgs, WhyArgs};
use crate::settings::Settings;

/// Journal entries that are read at once.
const ENTRIES_AT_ONCE: usize = 1000;

/// Runs `ashlar builds`.
pub(super) fn run(settings: &Settings, command: BuildsCommand) -> Result<ExitCode> {
    match command {
        BuildsCommand::List(args) => list::list(settings, &args),
        BuildsCommand::Show(args) => list::show(settings, &args),
        BuildsCommand::Logs(args) => logs::run(settings, &args),
        BuildsCommand::Why(args) => why::run(settings, &args),
        BuildsCommand::Timeline(args) => timeline::run(settings, &args),
        BuildsCommand::Cancel(args) => act::cancel(settings, &args),
        BuildsCommand::Retry(args) => act::retry(settings, &args),
        BuildsCommand::Debug(args) => debug::run(settings, &args),
        BuildsCommand::Pin(args) => act::pin(settings, &args, true),
        BuildsCommand::Unpin(args) => act::pin(settings, &args, false),
    }
}

/// Runs `ashlar why`.
pub(super) fn why(settings: &Settings, args: &WhyArgs) -> Result<ExitCode> {
    why::run(settings, args)
}

/// Runs `ashlar debug`.
pub(super) fn debug(settings: &Settings, args: &DebugArgs) -> Result<ExitCode> {
    debug::run(settings, args)
}

/// Finds the build that a text names: the start of an id, `latest` or `^N`.
///
/// # Errors
/// When there is none, or several.
fn find(history: &LocalHistory, text: &str) -> Result<BuildId> {
    let back = match text {
        "latest" => Some(0),
        _ => text.strip_prefix('^').map(|n| n.parse::<u64>()).transpose().ok().flatten(),
    };
    if let Some(back) = back {
        let page = Page { size: 1, at: At::Number(back + 1), order: Order::NewestFirst };
        let listed = history.list(&Filter::default(), &page)?;
        return match listed.records.first() {
            Some(record) => Ok(record.submission.build),
            None if back == 0 => bail!("there are no builds yet; start with: ashlar build CONTEXT"),
            None => bail!("there are only {} builds", listed.total.unwrap_or(0)),
        };
    }
    match history.find(text)?.as_slice() {
        [] => bail!("no build '{text}'; `ashlar builds list` shows what there is"),
        [one] => Ok(*one),
        many => {
            let ids: Vec<String> = many.iter().map(BuildId::to_string).collect();
            usage(format!("'{text}' is the start of several builds: {}", ids.join(", ")))
        }
    }
}

/// Returns the build that a text names.
fn record(history: &LocalHistory, text: &str) -> Result<Record> {
    let build = find(history, text)?;
    match history.get(build)? {
        Some(record) => Ok(record),
        None => bail!("the build {build} has been removed"),
    }
}

/// Calls `visit` with all entries of a journal from a number on; returns the next number.
fn each_entry(
    history: &LocalHistory,
    build: BuildId,
    from: u64,
    mut visit: impl FnMut(&Entry) -> Result<()>,
) -> Result<u64> {
    let mut next = from;
    loop {
        let entries = history.journal(build, next, ENTRIES_AT_ONCE)?;
        let Some(last) = entries.last() else { return Ok(next) };
        next = last.number + 1;
        entries.iter().try_for_each(&mut visit)?;
    }
}
