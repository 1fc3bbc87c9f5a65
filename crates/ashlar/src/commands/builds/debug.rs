//! `ashlar debug`: a shell in a failed step's own files.

use std::process::ExitCode;

use anyhow::{Result, bail};
use ashlar_core::graph::StepId;
use ashlar_oci::PullPolicy;

use super::origin::Origin;
use crate::cli::builds::DebugArgs;
use crate::commands::console::Console;
use crate::output::note;
use crate::settings::Settings;
use crate::signals;

/// The shell that is opened.
const SHELL: &str = "/bin/sh";

pub(super) fn run(settings: &Settings, args: &DebugArgs) -> Result<ExitCode> {
    let build = Origin::Here(settings.history()?).find(&args.build)?.to_string();
    let engine = settings.engine(PullPolicy::Default)?;
    let wanted = args.step.map(StepId);
    let all = engine.failed_steps()?;
    let fits = |step: Option<StepId>| wanted.is_none() || step == wanted;
    let found = all.into_iter().find(|(f, _)| f.build == build && fits(f.step));
    let Some((failed, place)) = found else {
        bail!(
            "the build {build} left no failed step to look into: it did not fail in a command, or \
             the step was removed since"
        );
    };
    let _lease = engine.work_lease()?;
    let console = Console::open(args.command.is_empty(), args.command.is_empty())?;
    let command = match args.command.as_slice() {
        [] => vec![SHELL.to_owned()],
        given => given.to_vec(),
    };
    if console.is_terminal() {
        note(format!("in the failed step {}. Leave with exit.", failed.name));
    }
    for absent in engine.absent_mounts(&failed) {
        note(format!("not here: {absent}"));
    }
    // Ctrl-C belongs to the shell when it has the terminal; else it ends the command.
    let cancel = signals::cancel_on_signals()?;
    let exit = console.run(|io| engine.debug(&failed, &place, &command, io, &cancel))?;
    Ok(super::super::console::exit_code(&exit))
}
