//! Completions, manual pages and the version.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use serde_json::json;

use crate::cli::Cli;
use crate::output;

/// Prints a completion script.
pub(super) fn completions(shell: Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ashlar", &mut script);
    io::Write::write_all(&mut io::stdout(), &script)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page, or writes one page a command.
pub(super) fn man(dir: Option<&Path>) -> Result<ExitCode> {
    let mut command = Cli::command();
    command.build();
    match dir {
        None => Man::new(command).render(&mut io::stdout())?,
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            pages(&command, "ashlar", dir)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn pages(command: &Command, name: &str, dir: &Path) -> Result<()> {
    let path = dir.join(format!("{name}.1"));
    let mut page = Vec::new();
    Man::new(command.clone()).title(name).render(&mut page)?;
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    for sub in command.get_subcommands().filter(|s| s.get_name() != "help") {
        pages(sub, &format!("{name}-{}", sub.get_name()), dir)?;
    }
    Ok(())
}

/// Prints the version.
pub(super) fn version(json: bool) -> Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        output::json(&json!({ "ashlar": version }))?;
    } else {
        output::line(format!("ashlar {version}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
