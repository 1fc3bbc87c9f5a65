//! The commands, one module a family.

mod build;
mod builds;
mod cache;
pub(crate) mod console;
mod disk;
mod images;
mod remote;
pub(crate) mod running;
mod serve;
mod shell;
mod supervisor;
mod worker;

use std::io;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Command};
use crate::output::note;
use crate::settings::Settings;

/// Exit code of a command that failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code of a command that was typed wrongly.
pub(crate) const BAD_USAGE: u8 = 2;

/// The command was typed wrongly; the text names the flag and says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Fails with [`Usage`].
pub(crate) fn usage<T>(text: impl Into<String>) -> Result<T> {
    Err(Usage(text.into()).into())
}

/// The variable that names a server.
const SERVER_VARIABLE: &str = "ASHLAR_SERVER";

/// Refuses what looks at this machine's data directory alone where a server is set: somebody who
/// means the server's would take what is shown for its.
///
/// # Errors
/// Says what it is for, and the two ways out.
fn only_here(settings: &Settings, what: &str) -> Result<()> {
    let server = std::env::var_os(SERVER_VARIABLE).filter(|s| !s.is_empty());
    match server {
        Some(server) if !settings.is_dir_typed => usage(format!(
            "{what} of this machine, but {SERVER_VARIABLE} is {}; unset {SERVER_VARIABLE} or pass \
             --data-dir",
            server.display()
        )),
        _ => Ok(()),
    }
}

/// Refuses what this machine's sandbox and the owners of files need root for.
///
/// # Errors
/// Says how to get on.
fn needs_root(what: &str, instead: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    usage(format!("{what} on this machine needs root: run `sudo ashlar ...`{instead}"))
}

/// Does what was typed.
///
/// # Errors
/// [`Usage`], or what went wrong.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    let settings = cli.settings;
    match cli.command {
        Command::Build(args) => build::run(&settings, *args),
        Command::Serve(args) => serve::run(&settings, *args),
        Command::Worker(args) => worker::run(&settings, *args),
        Command::Builds(command) => builds::run(&settings, command),
        Command::Images(command) => images::run(&settings, command),
        Command::Cache(command) => cache::run(&settings, command),
        Command::Why(args) => builds::why(&settings, &args),
        Command::Debug(args) => builds::debug(&settings, &args),
        Command::Token(command) => remote::token(&settings, command),
        Command::Tenants(command) => remote::tenants(&settings, command),
        Command::Du(args) => disk::du(&settings, &args),
        Command::Gc(args) => disk::gc(&settings, &args),
        Command::Completions { shell } => shell::completions(shell),
        Command::Man { dir } => shell::man(dir.as_deref()),
        Command::Version(args) => shell::version(args.json),
    }
}

/// Shows an error and returns the exit code for it.
pub(crate) fn explain(error: &anyhow::Error) -> ExitCode {
    let piped = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    if error.chain().any(|c| c.downcast_ref().is_some_and(piped)) {
        return ExitCode::SUCCESS;
    }
    if error.downcast_ref::<Usage>().is_some() {
        note(format!("error: {error}\n\nFor more information, try '--help'."));
        return ExitCode::from(BAD_USAGE);
    }
    note(format!("error: {error:#}"));
    ExitCode::from(FAILED)
}
