//! `ashlar images run`.

use std::process::ExitCode;

use anyhow::Result;
use ashlar_core::Platform;
use ashlar_native::BuildLimits;
use ashlar_native::local::RunOptions;
use ashlar_oci::PullPolicy;

use super::{Notes, needs_root};
use crate::cli::images::RunArgs;
use crate::commands::console::{self, Console};
use crate::commands::usage;
use crate::settings::Settings;
use crate::signals;

pub(super) fn run(settings: &Settings, args: &RunArgs) -> Result<ExitCode> {
    let (image, program) = args.image_and_args();
    if image.starts_with('-') {
        return usage(format!("there is no flag '{image}'; the program's own go behind the image"));
    }
    needs_root("images run", "")?;
    let engine = settings.engine(PullPolicy::Default)?;
    let local = engine.local(image, &Platform::host())?;
    let _lease = engine.work_lease()?;
    let console = Console::open(args.tty, args.interactive)?;
    let cancel = signals::cancel_on_signals()?;
    let options = RunOptions {
        args: program.to_vec(),
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
