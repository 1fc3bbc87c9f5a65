//! `ashlar build`.

use std::path::PathBuf;
use std::time::Duration;

use ashlar_core::Platform;
use ashlar_core::graph::{ExtraHost, Network, Ulimit};
use ashlar_frontend_dockerfile::Entitlement;
use clap::{Args, ValueEnum};

use super::buildkit::BuildkitArgs;
use super::server::ServerArgs;
use crate::progress::ProgressKind;
use crate::values::{self, ContextSpec, OutputSpec, SecretSource};

/// What runs builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// The executor of this program
    Native,
    /// A BuildKit daemon (--buildkit)
    Buildkit,
}

impl Backend {
    /// Returns the word for it in records.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Buildkit => "buildkit",
        }
    }

    /// Returns what a record's word stands for.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        [Self::Native, Self::Buildkit].into_iter().find(|b| b.word() == word)
    }
}

/// Arguments of `ashlar build`.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 built, 1 the build failed, 2 bad usage, 130 interrupted.\n\
    Example: ashlar build -t app --output type=oci,dest=app.tar .\n\
    With --server the context goes to that server, as far as it lacks it, and is built there.")]
pub(crate) struct BuildArgs {
    /// Directory, git address (URL#REF:DIR), or - for a Dockerfile or tar from standard input
    pub(crate) context: String,
    /// Dockerfile [default: CONTEXT/Dockerfile]; - reads standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// Name of the image, e.g. app:1.0 (repeatable)
    #[arg(short = 't', long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Build argument; without a value, the environment's variable is taken (repeatable)
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]", value_parser = values::build_arg)]
    pub(crate) build_args: Vec<(String, Option<String>)>,
    /// Secret for RUN --mount=type=secret: id=ID,src=FILE or id=ID,env=NAME (repeatable)
    #[arg(long = "secret", value_name = "SECRET", value_parser = values::secret)]
    pub(crate) secrets: Vec<(String, SecretSource)>,
    /// ssh agent for RUN --mount=type=ssh: default or ID=SOCKET (repeatable)
    #[arg(long = "ssh", value_name = "AGENT", value_parser = values::ssh)]
    pub(crate) ssh: Vec<(String, PathBuf)>,
    /// Build every step anew; results are still kept
    #[arg(long, env = "ASHLAR_NO_CACHE")]
    pub(crate) no_cache: bool,
    /// Build the steps of this stage anew (repeatable)
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Ask registries for newer base images, also where a local image has the name
    #[arg(long, env = "ASHLAR_PULL")]
    pub(crate) pull: bool,
    /// A flag of docker build that has nothing to do here; it is refused with what to do instead
    #[arg(long, value_name = "CACHE", hide = true)]
    pub(crate) cache_from: Vec<String>,
    /// As `cache_from`
    #[arg(long, value_name = "CACHE", hide = true)]
    pub(crate) cache_to: Vec<String>,
    #[command(flatten)]
    pub(crate) result: ResultArgs,
    #[command(flatten)]
    pub(crate) steps: StepArgs,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// What becomes of the result.
#[derive(Debug, Args)]
#[command(next_help_heading = "Result")]
pub(crate) struct ResultArgs {
    /// Where the result goes: type=oci|docker|local|tar,dest=PATH, type=registry,name=REF, type=image,
    /// or a directory (repeatable) [default: the local images]
    #[arg(short = 'o', long = "output", value_name = "OUTPUT", value_parser = values::output)]
    pub(crate) outputs: Vec<OutputSpec>,
    /// Push the image under its names
    #[arg(long)]
    pub(crate) push: bool,
    /// Keep the image among the local ones, besides other outputs
    #[arg(long)]
    pub(crate) load: bool,
    /// Label of the image (repeatable)
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = values::key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// Annotation of the manifest (repeatable)
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = values::key_value)]
    pub(crate) annotations: Vec<(String, String)>,
    /// Platform of the image, e.g. linux/amd64
    #[arg(long, value_name = "OS/ARCH", env = "ASHLAR_PLATFORM")]
    pub(crate) platform: Option<Platform>,
    /// Give the same bytes for the same inputs: times become SOURCE_DATE_EPOCH, or 0
    #[arg(long, env = "ASHLAR_REPRODUCIBLE")]
    pub(crate) reproducible: bool,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what was made as JSON to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
}

/// What steps see and may use.
#[derive(Debug, Args)]
#[command(next_help_heading = "Steps")]
pub(crate) struct StepArgs {
    /// Network of RUN: isolated, none or host
    #[arg(long, value_name = "NET", env = "ASHLAR_NETWORK", value_parser = values::network)]
    pub(crate) network: Option<Network>,
    /// Grant a privilege: network.host or security.insecure (repeatable)
    #[arg(long = "allow", value_name = "PRIVILEGE", value_parser = values::entitlement)]
    pub(crate) allow: Vec<Entitlement>,
    /// Line of /etc/hosts, e.g. db:10.0.0.5 (repeatable)
    #[arg(long = "add-host", value_name = "NAME:ADDRESS", value_parser = values::extra_host)]
    pub(crate) add_hosts: Vec<ExtraHost>,
    /// Another context: NAME=DIR, NAME=docker-image://REF or NAME=git address (repeatable)
    #[arg(long = "build-context", value_name = "NAME=WHERE", value_parser = values::build_context)]
    pub(crate) build_contexts: Vec<(String, ContextSpec)>,
    /// Size of /dev/shm, e.g. 64m
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) shm_size: Option<u64>,
    /// Resource limit, e.g. nofile=1024:4096 (repeatable)
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = values::ulimit)]
    pub(crate) ulimits: Vec<Ulimit>,
    /// Memory of a step, e.g. 512m
    #[arg(long, value_name = "SIZE", env = "ASHLAR_MEMORY", value_parser = values::size)]
    pub(crate) memory: Option<u64>,
    /// Processors of a step, e.g. 1.5
    #[arg(long, value_name = "N", env = "ASHLAR_CPUS", value_parser = values::cpus)]
    pub(crate) cpus: Option<f64>,
    /// Processes of a step
    #[arg(long, value_name = "N", env = "ASHLAR_PIDS")]
    pub(crate) pids: Option<u64>,
    /// Bytes that a step may write, e.g. 10g
    #[arg(long, value_name = "SIZE", env = "ASHLAR_DISK", value_parser = values::size)]
    pub(crate) disk: Option<u64>,
    /// Time of a step, e.g. 30s or 5m
    #[arg(long, value_name = "TIME", env = "ASHLAR_TIMEOUT", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
}

/// What is shown, and who builds.
#[derive(Debug, Args)]
#[command(next_help_heading = "Progress and backend")]
pub(crate) struct ShowArgs {
    /// How progress is shown
    #[arg(long, value_name = "KIND", env = "ASHLAR_PROGRESS", default_value = "auto")]
    pub(crate) progress: ProgressKind,
    /// Print the image's id alone
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Write JSON lines to standard output, as --progress json
    #[arg(long)]
    pub(crate) json: bool,
    /// What runs the build [default: BuildKit when --buildkit names a daemon, else native; with
    /// --server, the server's choice]
    #[arg(long, value_name = "NAME", env = "ASHLAR_BACKEND")]
    pub(crate) backend: Option<Backend>,
    #[command(flatten)]
    pub(crate) buildkit: BuildkitArgs,
}

impl ShowArgs {
    /// Returns the kind of progress with the short flags applied.
    pub(crate) const fn kind(&self) -> ProgressKind {
        match (self.quiet, self.json) {
            (true, _) => ProgressKind::Quiet,
            (_, true) => ProgressKind::Json,
            _ => self.progress,
        }
    }
}
