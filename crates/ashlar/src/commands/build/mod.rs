//! `ashlar build`: from arguments to a [`Definition`], and from that to a result.
//!
//! `definition` is what is kept of a build to do it again, `context` finds the files, `run` drives
//! the engine, `buildkit` hands it to a daemon, `recorder` writes the history, `outputs` writes results, `report` tells people.

mod buildkit;
mod context;
mod definition;
mod outputs;
mod recorder;
pub(crate) mod report;
mod run;

use std::process::ExitCode;

use anyhow::Result;

use super::{remote, usage};
use crate::cli::build::BuildArgs;
use crate::progress::ProgressKind;
use crate::settings::Settings;

pub(crate) use buildkit::{Wish, choose};
pub(crate) use context::Inputs;
pub(crate) use definition::{Definition, read};
pub(crate) use report::{Subject, short};
pub(crate) use run::{Job, LOCAL, build, exit_code, read_secrets};

/// Runs `ashlar build`.
pub(super) fn run(settings: &Settings, args: BuildArgs) -> Result<ExitCode> {
    refuse_caches(&args)?;
    if let Some(client) = remote::connect(settings, &args.server)? {
        return remote::build(settings, &client, &args);
    }
    let (definition, inputs) = read(settings, &args)?;
    let wish = Wish { asked: args.show.backend, before: None, daemons: &args.show.buildkit };
    let executor = choose(settings, &wish, &definition)?;
    let progress = args.show.kind();
    check_stdout(&definition, progress)?;
    let job = Job {
        definition,
        inputs,
        progress,
        iidfile: args.result.iidfile,
        metadata_file: args.result.metadata_file,
        retry_of: None,
        executor,
    };
    build(settings, job)
}

/// Refuses flags that name caches, which other builders have to be told of.
///
/// # Errors
/// Says what to do instead.
fn refuse_caches(args: &BuildArgs) -> Result<()> {
    let flag = match (args.cache_from.as_slice(), args.cache_to.as_slice()) {
        ([], []) => return Ok(()),
        ([], _) => "--cache-to",
        _ => "--cache-from",
    };
    usage(format!(
        "{flag}: leave it out: all steps are kept in the data directory and found there again, with \
         nothing to name; to share a cache between machines, build at a server (--server URL)"
    ))
}

/// Refuses two writers of standard output.
///
/// # Errors
/// Says what to do.
pub(crate) fn check_stdout(definition: &Definition, progress: ProgressKind) -> Result<()> {
    if progress == ProgressKind::Json && definition.outputs.iter().any(|o| o.is_stdout()) {
        return usage(
            "--progress json and an output with dest=- both write to standard output; write one of \
             them to a file",
        );
    }
    Ok(())
}
