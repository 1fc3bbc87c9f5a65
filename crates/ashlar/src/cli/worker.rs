//! What `ashlar worker` takes, and what it shares with `ashlar serve`. Each field is a flag, an
//! `ASHLAR_*` variable, and a key of the TOML file ([`super::config`]).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ashlar_oci::EgressRule;
use clap::Args;

use super::serve::LogFormat;
use crate::values;

/// The shortest lease: a heartbeat must come through in a third of it.
const LEASE_MIN: Duration = Duration::from_secs(1);

/// The fewest connections: with less, builds, readers and upkeep only wait for each other.
const CONNECTIONS_MIN: i64 = 4;

/// Arguments of every process that works on one database.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeArgs {
    /// Store for blobs that all servers and workers of a database share, of which the data
    /// directory is a cache then: s3://BUCKET/PREFIX[?endpoint=URL&region=NAME], with credentials
    /// from the usual AWS_* variables, or file:///DIR
    #[arg(long, env = "ASHLAR_BLOB_STORE", value_name = "URL", hide_env_values = true)]
    pub(crate) blob_store: Option<String>,
    /// Connections to PostgreSQL that this process uses at most; one more waits for news
    #[arg(long, env = "ASHLAR_DATABASE_CONNECTIONS", value_name = "N",
          default_value_t = ashlar_records::CONNECTIONS_DEFAULT,
          value_parser = clap::value_parser!(u32).range(CONNECTIONS_MIN..))]
    pub(crate) database_connections: u32,
    /// Builds that run at once in this process; 0 for none
    #[arg(long, env = "ASHLAR_SLOTS", value_name = "N",
          default_value_t = ashlar_service::SLOTS_DEFAULT)]
    pub(crate) slots: usize,
    /// How long a worker that is not heard of is believed to be alive, before its builds run again
    #[arg(long, env = "ASHLAR_LEASE", value_name = "TIME", value_parser = lease,
          default_value = "30s")]
    pub(crate) lease: Duration,
    /// Bytes of log that one attempt at a build may write; of more the first and the last are kept,
    /// and the log says what is missing
    #[arg(long, env = "ASHLAR_LOG_CAP", value_name = "BYTES", value_parser = values::size,
          default_value = "4g")]
    pub(crate) log_cap: u64,
    /// How long running builds may go on when the process is stopped
    #[arg(long, env = "ASHLAR_DRAIN", value_name = "TIME", value_parser = values::duration,
          default_value = "30s")]
    pub(crate) drain: Duration,
    /// Host that builds may reach although it is this machine or its link: HOST, HOST:PORT, or a
    /// network in CIDR. Otherwise link-local and cloud metadata addresses are refused to base images,
    /// ADD, git and pushes, and loopback ones to ADD of files, but for --plain-http hosts, and for
    /// --registry-mirror ones to read from (repeatable)
    #[arg(long, env = "ASHLAR_EGRESS_ALLOW", value_name = "HOST", value_delimiter = ',')]
    pub(crate) egress_allow: Vec<EgressRule>,
    /// Form of the process' own log
    #[arg(long, env = "ASHLAR_LOG_FORMAT", value_enum, value_name = "FORM",
          default_value_t = LogFormat::Pretty)]
    pub(crate) log_format: LogFormat,
    #[command(flatten)]
    pub(crate) buildkit: super::buildkit::BuildkitArgs,
    /// TOML file with the same settings; flags and variables win
    #[arg(long, env = "ASHLAR_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Arguments of `ashlar worker`.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkerArgs {
    /// PostgreSQL of the servers
    #[arg(long, env = "ASHLAR_DATABASE", value_name = "URL", hide_env_values = true,
          value_parser = values::database)]
    pub(crate) database: Option<String>,
    /// Address for /healthz, /readyz and /metrics; none when absent
    #[arg(long, env = "ASHLAR_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

fn lease(text: &str) -> Result<Duration, String> {
    match values::duration(text)? {
        lease if lease < LEASE_MIN => {
            Err(format!("a lease lasts {} s at least", LEASE_MIN.as_secs()))
        }
        lease => Ok(lease),
    }
}
