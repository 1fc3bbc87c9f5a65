//! `ashlar cache`.

use std::path::PathBuf;

use clap::Subcommand;

use super::JsonArgs;

/// Commands about cache mounts.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List cache mounts with their sizes
    #[command(visible_alias = "ls")]
    List(JsonArgs),
    /// Write a cache mount's files as a tar
    Export {
        /// Id of the mount: its id= in the Dockerfile, else its target
        id: String,
        /// File; - is standard output
        path: PathBuf,
    },
    /// Fill a cache mount from a tar
    Import {
        /// Id of the mount
        id: String,
        /// File; - is standard input
        path: PathBuf,
    },
    /// Remove cache mounts
    Rm {
        /// Ids of mounts
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// Remove all that nobody uses
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        json: JsonArgs,
    },
}
