//! `ashlar builds`.

use ashlar_core::state::State;
use clap::{Args, Subcommand};

use super::JsonArgs;
use super::build::Backend;
use super::buildkit::BuildkitArgs;
use super::server::ServerArgs;
use crate::progress::ProgressKind;
use crate::values::{self, SecretSource};

/// How a build is named.
const BUILD_HELP: &str =
    "A build's id or its first digits, `latest`, or ^N for the Nth before that";

/// Commands about builds.
#[derive(Debug, Subcommand)]
pub(crate) enum BuildsCommand {
    /// List builds, the newest first
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one build
    Show(OneArgs),
    /// Print a build's log
    Logs(LogsArgs),
    /// Say what each step took from the cache, and why it did not
    Why(WhyArgs),
    /// Draw when each step ran
    Timeline(OneArgs),
    /// Stop a running build
    Cancel(OneArgs),
    /// Build the same definition again
    Retry(RetryArgs),
    /// Open a shell in a failed step
    Debug(DebugArgs),
    /// Keep a build from being forgotten
    Pin(OneArgs),
    /// Let a build be forgotten again
    Unpin(OneArgs),
}

/// One build.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    #[arg(help = BUILD_HELP, default_value = "latest")]
    pub(crate) build: String,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Arguments of `builds list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: ashlar builds list state:failed label:team=web 'created:>=2026-01-31T00:00:00Z' words"
)]
pub(crate) struct ListArgs {
    /// What to list: state:STATE, scope:NAME, dialect:NAME, label:NAME=VALUE and so on, and words
    /// of the name or the labels [default: all]
    #[arg(value_name = "QUERY")]
    pub(crate) query: Vec<String>,
    /// Only builds in this state
    #[arg(long, value_parser = state)]
    pub(crate) state: Option<State>,
    /// Only builds with this label (repeatable)
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = values::key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// Only builds whose name or labels have these words
    #[arg(long, value_name = "WORDS")]
    pub(crate) text: Option<String>,
    /// Only builds of the last TIME (e.g. 2h), or since an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// The most builds
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Go on after an earlier list's end
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

fn state(text: &str) -> Result<State, String> {
    State::parse(text).ok_or_else(|| {
        let all: Vec<&str> = State::ALL.iter().map(|s| s.as_str()).collect();
        format!("there is no state '{text}'; use {}", all.join(", "))
    })
}

/// Arguments of `builds logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[arg(help = BUILD_HELP, default_value = "latest")]
    pub(crate) build: String,
    /// Only this step
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u32>,
    /// Wait for more until the build has ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Show when each line was written
    #[arg(long)]
    pub(crate) timestamps: bool,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Arguments of `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    #[arg(help = BUILD_HELP, default_value = "latest")]
    pub(crate) build: String,
    #[command(flatten)]
    pub(crate) json: JsonArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Arguments of `builds retry`.
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    #[arg(help = BUILD_HELP)]
    pub(crate) build: String,
    /// Build every step anew
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Resolve images, branches and addresses anew, where a server would take what they led to then;
    /// on this machine they always are
    #[arg(long)]
    pub(crate) newest: bool,
    /// Secret that the build had: id=ID,src=FILE or id=ID,env=NAME (repeatable); a server needs all
    /// of them again, this machine reads those that are not given from where they were
    #[arg(long = "secret", value_name = "SECRET", value_parser = values::secret)]
    pub(crate) secrets: Vec<(String, SecretSource)>,
    /// How progress is shown
    #[arg(long, value_name = "KIND", env = "ASHLAR_PROGRESS", default_value = "auto")]
    pub(crate) progress: ProgressKind,
    /// What runs the build on this machine [default: what was to run it then]
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<Backend>,
    #[command(flatten)]
    pub(crate) buildkit: BuildkitArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// Arguments of `debug`.
#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    #[arg(help = BUILD_HELP, default_value = "latest")]
    pub(crate) build: String,
    /// Look into this failed step [default: the last one]
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<u32>,
    /// Command to run in place of a shell
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}
