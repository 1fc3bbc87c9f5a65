//! Connects a process in a sandbox with this program's terminal, or with its plain streams.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use ashlar_core::failure::Failure;
use ashlar_sandbox::{Exit, Io, Stdin, Stream, Terminal};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::output::note;

/// The most that is read of standard input for a process, in bytes.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Exit code of a process that a signal ended, without the signal's number.
const SIGNALLED: i32 = 128;

/// Where a process's input comes from.
pub(crate) struct Console {
    terminal: bool,
    input: Vec<u8>,
}

impl Console {
    /// Takes the terminal when that is wanted and there is one, else standard input when that is.
    ///
    /// # Errors
    /// When standard input cannot be read.
    pub(crate) fn open(terminal: bool, input: bool) -> Result<Self> {
        if terminal && io::stdin().is_terminal() && io::stdout().is_terminal() {
            return Ok(Self { terminal: true, input: Vec::new() });
        }
        let mut bytes = Vec::new();
        if input && !io::stdin().is_terminal() {
            let stdin = io::stdin().lock().take(INPUT_BYTES_MAX);
            { stdin }.read_to_end(&mut bytes).context("standard input")?;
        }
        Ok(Self { terminal: false, input: bytes })
    }

    /// Says whether it has the terminal.
    pub(crate) const fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Runs a process with it.
    ///
    /// # Errors
    /// When the terminal refuses, or the process could not be run.
    pub(crate) fn run(self, run: impl FnOnce(Io<'_>) -> Result<Exit, Failure>) -> Result<Exit> {
        let mut output = |stream: Stream, bytes: &[u8]| {
            // A reader that went away does not stop the process.
            let _ = match stream {
                Stream::Stdout => {
                    let mut out = io::stdout().lock();
                    out.write_all(bytes).and_then(|()| out.flush())
                }
                Stream::Stderr => io::stderr().lock().write_all(bytes),
            };
        };
        if !self.terminal {
            let stdin = if self.input.is_empty() { Stdin::Null } else { Stdin::Bytes(self.input) };
            return Ok(run(Io { stdin, output: &mut output })?);
        }
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let _raw = Raw::enter()?;
        Ok(run(Io { stdin: Stdin::Terminal(Terminal { input, size }), output: &mut output })?)
    }
}

fn size() -> (u16, u16) {
    tcgetwinsize(io::stdout()).map_or((24, 80), |s| (s.ws_row, s.ws_col))
}

/// The terminal in raw mode; dropping it brings the old mode back.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Returns the exit code of this program for a process's end, as a shell would have it.
pub(crate) fn exit_code(exit: &Exit) -> ExitCode {
    if let Some(limit) = &exit.limit_hit {
        note(format!("ended: {limit}"));
    }
    let code = match (exit.cancelled, exit.code, exit.signal) {
        (true, ..) => i32::from(crate::signals::INTERRUPTED),
        (_, Some(code), _) => code,
        (_, None, Some(signal)) => SIGNALLED + signal,
        (_, None, None) => i32::from(super::FAILED),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(super::FAILED))
}
