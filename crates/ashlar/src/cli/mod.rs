//! What can be typed.

pub(crate) mod build;

use clap::{Parser, Subcommand};

use crate::settings::Settings;

/// Builds container images in sandboxes, from cache, and keeps their whole history.
#[derive(Debug, Parser)]
#[command(name = "ashlar", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten, next_help_heading = "Global options")]
    pub(crate) settings: Settings,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<build::BuildArgs>),
}
