//! `ashlar images run`.

use std::process::ExitCode;

use anyhow::Result;
use ashlar_core::Platform;
use ashlar_native::local::RunOptions;
use ashlar_native::{BuildLimits, Engine};

use super::Notes;
use crate::cli::images::RunArgs;
use crate::commands::console::{self, Console};
use crate::signals;

pub(super) fn run(engine: &Engine, args: &RunArgs) -> Result<ExitCode> {
    let local = engine.local(&args.image, &Platform::host())?;
    let _lease = engine.work_lease()?;
    let console = Console::open(args.tty, args.interactive)?;
    let cancel = signals::cancel_on_signals()?;
    let options = RunOptions {
        args: args.args.clone(),
        entrypoint: args.entrypoint.clone(),
        env: args.env.clone(),
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        network: args.network,
        limits: BuildLimits {
            memory_bytes: args.memory,
            timeout: args.timeout,
            ..BuildLimits::default()
        },
    };
    let notes = Notes::default();
    let exit = console.run(|io| engine.run_image(&local, &options, &notes, io, &cancel))?;
    Ok(console::exit_code(&exit))
}
