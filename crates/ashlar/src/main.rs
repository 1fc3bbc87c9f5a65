//! The `ashlar` program.
//!
//! [`cli`] says what can be typed, `commands` do it one file a family, `progress` shows builds while
//! they run. No rule about building lies here: those are the engine's.

mod cli;
mod commands;
mod memory;
mod output;
mod progress;
mod settings;
mod signals;
mod values;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    memory::limit_heaps();
    let cli = cli::Cli::parse();
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => commands::explain(&error),
    }
}
