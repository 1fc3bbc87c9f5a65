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
mod telemetry;
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    memory::limit_heaps();
    let cli = cli::config::parse(std::env::args_os().collect());
    match cli.and_then(commands::run) {
        Ok(code) => code,
        Err(error) => commands::explain(&error),
    }
}
