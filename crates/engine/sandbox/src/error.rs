//! Why a step could not be run.

use std::path::PathBuf;

/// A failure to set up or watch a sandbox; what the step itself does wrong is in [`crate::Exit`].
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The program of the step could not be started: the user's mistake, with Docker's exit code for it.
    #[error("cannot run {program:?} in the root file system: {reason}")]
    Exec {
        /// The program as it was named.
        program: String,
        /// What the kernel or the search said.
        reason: String,
        /// 127 when it was not found, 126 when it could not be executed.
        code: i32,
    },
    /// A mount asked for by the step can't be made.
    #[error("cannot mount on {target} in the sandbox: {reason}")]
    Mount {
        /// The destination.
        target: PathBuf,
        /// Which part failed.
        reason: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The spec contradicts itself or the machine.
    #[error("{0}")]
    Invalid(String),
    /// A tool that the asked-for feature needs is not installed.
    #[error("{tool} is needed for {purpose} and was not found; install the package {package}")]
    MissingTool {
        /// Program name.
        tool: &'static str,
        /// What it is needed for.
        purpose: &'static str,
        /// Debian package that has it.
        package: &'static str,
    },
    /// A tool failed.
    #[error("{tool} failed: {stderr}")]
    Tool {
        /// Program name.
        tool: &'static str,
        /// What it said.
        stderr: String,
    },
    /// A system call of the set-up failed.
    #[error("cannot set up the sandbox: {step}")]
    Setup {
        /// What was being done.
        step: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The step was cancelled before it started.
    #[error("cancelled")]
    Cancelled,
}

/// Names the step of the set-up that an error belongs to.
pub(crate) trait During<T> {
    fn during(self, step: &'static str) -> Result<T, SandboxError>;
}

impl<T, E: Into<std::io::Error>> During<T> for Result<T, E> {
    fn during(self, step: &'static str) -> Result<T, SandboxError> {
        self.map_err(|error| SandboxError::Setup { step, source: error.into() })
    }
}
