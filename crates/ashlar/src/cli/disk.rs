//! `ashlar du` and `ashlar gc`.

use std::time::Duration;

use clap::Args;

use super::JsonArgs;
use crate::values;

/// Arguments of `du`.
#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// List every item
    #[arg(short, long)]
    pub(crate) verbose: bool,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}

/// Arguments of `gc`.
#[derive(Debug, Args)]
#[command(after_help = "What a tag or a running build needs never goes.\n\
    Without --max-used and --min-free, what was not used for --keep (14 days) goes.\n\
    With them, what was used longest ago goes until they hold, but nothing used within --keep.")]
pub(crate) struct GcArgs {
    /// Only say what would go
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// The most that the data directory shall hold, e.g. 20g
    #[arg(long, value_name = "SIZE", env = "ASHLAR_GC_MAX_USED", value_parser = values::size)]
    pub(crate) max_used: Option<u64>,
    /// What shall be free on its disk, e.g. 10g
    #[arg(long, value_name = "SIZE", env = "ASHLAR_GC_MIN_FREE", value_parser = values::size)]
    pub(crate) min_free: Option<u64>,
    /// Keep what was used within this time, e.g. 2d
    #[arg(long, value_name = "TIME", env = "ASHLAR_GC_KEEP", value_parser = values::duration)]
    pub(crate) keep: Option<Duration>,
    /// Also forget builds that ended longer ago than this, but pinned ones and the newest 50
    #[arg(long, value_name = "TIME", env = "ASHLAR_GC_HISTORY", value_parser = values::duration)]
    pub(crate) history: Option<Duration>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
}
