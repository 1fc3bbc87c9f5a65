//! `ashlar build`: from arguments to a [`Definition`], and from that to a result.
//!
//! `definition` is what is kept of a build to do it again, `context` finds the files, `run` drives
//! the engine, `recorder` writes the history, `outputs` writes results, `report` tells people.

mod context;
mod definition;
mod outputs;
mod recorder;
mod report;
mod run;

use std::process::ExitCode;

use anyhow::Result;

use super::usage;
use crate::cli::build::{Backend, BuildArgs};
use crate::progress::ProgressKind;
use crate::settings::Settings;

pub(crate) use context::Inputs;
pub(crate) use definition::Definition;
pub(crate) use report::short;
pub(crate) use run::{Job, LOCAL, build};

/// Runs `ashlar build`.
pub(super) fn run(settings: &Settings, args: BuildArgs) -> Result<ExitCode> {
    if let Some(server) = &args.show.server {
        return usage(format!(
            "--server {server}: this version builds on this machine only; leave --server (and \
             ASHLAR_SERVER) away"
        ));
    }
    if args.show.backend == Backend::Buildkit {
        return usage(
            "--backend buildkit: BuildKit daemons are configured at a server (`--buildkit ADDR`); \
             leave --backend away to build natively",
        );
    }
    let (definition, inputs) = definition::read(settings, &args)?;
    let progress = args.show.kind();
    if progress == ProgressKind::Json && definition.outputs.iter().any(|o| o.is_stdout()) {
        return usage(
            "--progress json and an output with dest=- both write to standard output; write one of \
             them to a file",
        );
    }
    let job = Job {
        definition,
        inputs,
        progress,
        iidfile: args.result.iidfile,
        metadata_file: args.result.metadata_file,
        retry_of: None,
    };
    build(settings, job)
}
