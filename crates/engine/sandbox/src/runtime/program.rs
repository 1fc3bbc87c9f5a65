//! The runtime as a program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::RuntimeConfig;
use crate::SandboxError;
use crate::cgroup::is_running;
use crate::error::During;

/// A runtime and where it keeps its state.
pub(crate) struct Runtime {
    program: PathBuf,
    args: Vec<String>,
    root: PathBuf,
}

impl Runtime {
    /// Makes sure that the program is there.
    pub(crate) fn find(config: &RuntimeConfig, root: PathBuf) -> Result<Self, SandboxError> {
        let this = Self { program: config.program.clone(), args: config.args.clone(), root };
        let missing = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound if config.program == Path::new("runc") => {
                SandboxError::MissingTool {
                    tool: "runc",
                    purpose: "sandboxes by an OCI runtime",
                    package: "runc",
                }
            }
            std::io::ErrorKind::NotFound => SandboxError::Invalid(format!(
                "the OCI runtime {} was not found; install it or name another",
                config.program.display()
            )),
            _ => SandboxError::Setup { step: "starting the OCI runtime", source: error },
        };
        this.command(&["--version"]).output().map_err(missing)?;
        Ok(this)
    }

    /// A command of the runtime, with no input and its output thrown away.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env_clear().env("PATH", format!("{path}:/usr/sbin:/sbin"));
        command.arg("--root").arg(&self.root).args(&self.args).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs a command and returns what it printed.
    pub(crate) fn query(&self, args: &[&str]) -> Result<String, SandboxError> {
        let mut command = self.command(args);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let output = output.during("starting the OCI runtime")?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(SandboxError::Tool { tool: "the OCI runtime", stderr })
    }

    /// Ends a container and forgets it; one that is gone already is fine.
    pub(crate) fn remove(&self, id: &str) {
        let _ = self.query(&["delete", "--force", id]);
    }

    /// Removes the containers of engines that are gone.
    pub(crate) fn remove_stale(&self) {
        let containers = self.query(&["list", "--quiet"]).unwrap_or_default();
        for id in containers.lines().filter(|id| is_running(id) == Some(false)) {
            self.remove(id);
        }
    }
}
