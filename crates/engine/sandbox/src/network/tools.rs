//! Runs `nft`, the kept tool that packet rules are made with.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use crate::SandboxError;
use crate::error::During;

/// A program and the Debian package that has it.
pub(crate) struct Tool {
    name: &'static str,
    package: &'static str,
    /// Makes it read commands from its input.
    batch: &'static [&'static str],
}

/// Packet rules.
pub(crate) const NFT: Tool = Tool { name: "nft", package: "nftables", batch: &["-f", "-"] };

impl Tool {
    /// Feeds commands to the tool, in the network namespace of the calling thread.
    pub(crate) fn batch(&self, commands: &str) -> Result<(), SandboxError> {
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = self.feed(&mut command, commands)?;
        let output = child.wait_with_output().during("waiting for a network tool")?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(SandboxError::Tool { tool: self.name, stderr });
        }
        Ok(())
    }

    /// The same without waiting for the end, which no one hears of; the tool holds `kept` open until then.
    pub(crate) fn leave(&self, commands: &str, kept: OwnedFd) -> Result<(), SandboxError> {
        let mut command = self.command();
        // It writes nothing there.
        command.stdout(kept).stderr(Stdio::null());
        self.feed(&mut command, commands).map(drop)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.name);
        command.args(self.batch).stdin(Stdio::piped());
        // Debian keeps it in directories that a user's PATH may lack.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
        command
    }

    fn feed(&self, command: &mut Command, commands: &str) -> Result<Child, SandboxError> {
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => SandboxError::MissingTool {
                tool: self.name,
                purpose: "isolated networks",
                package: self.package,
            },
            _ => SandboxError::Setup { step: "starting a network tool", source: error },
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(commands.as_bytes()).during("writing to a network tool")?;
        }
        Ok(child)
    }
}
