//! `ashlar builds`: the history, of this machine or of a server.

mod act;
mod debug;
mod list;
mod logs;
mod origin;
mod timeline;
mod view;
mod why;

use std::process::ExitCode;

use anyhow::Result;

use super::{needs_root, only_here, usage};
use crate::cli::builds::{BuildsCommand, DebugArgs, WhyArgs};
use crate::settings::Settings;

pub(super) use origin::told_text;

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
        BuildsCommand::Debug(args) => debug(settings, &args),
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
    only_here(settings, "debug is only for builds")?;
    needs_root("debug", "")?;
    debug::run(settings, args)
}
