//! What can be typed.

pub(crate) mod build;
pub(crate) mod buildkit;
pub(crate) mod builds;
pub(crate) mod cache;
pub(crate) mod config;
pub(crate) mod disk;
pub(crate) mod identity;
pub(crate) mod images;
#[cfg(test)]
mod reference;
pub(crate) mod serve;
pub(crate) mod server;
pub(crate) mod worker;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

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
    /// Look at builds, stop them, make them again
    #[command(subcommand)]
    Builds(builds::BuildsCommand),
    /// Work with local images
    #[command(subcommand)]
    Images(images::ImagesCommand),
    /// Work with cache mounts (RUN --mount=type=cache)
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Make, list and revoke tokens of a server
    #[command(subcommand)]
    Token(identity::TokenCommand),
    /// List and make tenants of a server
    #[command(subcommand)]
    Tenants(identity::TenantsCommand),
    /// Say what each step of a build took from the cache, and why it did not
    Why(builds::WhyArgs),
    /// Open a shell in a failed step, or run a command there
    Debug(builds::DebugArgs),
    /// Show what takes up space, and who needs it
    Du(disk::DuArgs),
    /// Remove what nothing needs, and old results
    Gc(disk::GcArgs),
    /// Run the build service
    Serve(Box<serve::ServeArgs>),
    /// Run builds for servers that share a PostgreSQL and a blob store
    Worker(Box<worker::WorkerArgs>),
    /// Print a completion script
    #[command(after_help = "Example: ashlar completions bash >/etc/bash_completion.d/ashlar")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write one page a command to a directory
    Man {
        /// Directory for the pages
        #[arg(long, value_name = "DIR")]
        dir: Option<std::path::PathBuf>,
    },
    /// Print the version
    Version(JsonArgs),
}

/// Whether records are printed for programs.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
