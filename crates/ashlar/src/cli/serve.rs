//! What `ashlar serve` takes. Each field is a flag, an `ASHLAR_*` variable, and a key of the TOML
//! file ([`super::config`]); `docs/configuration.md` lists them, and a test holds it to that.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::str::FromStr;

use ashlar_api::{PublicUrl, TrustedProxies};
use ashlar_service::Retention;
use clap::Args;

use super::worker::NodeArgs;
use crate::values;

/// Arguments of `ashlar serve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on
    #[arg(long, env = "ASHLAR_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:7070")]
    pub(crate) listen: SocketAddr,
    /// Serve one dialect at the root of an address of its own (repeatable)
    #[arg(long, env = "ASHLAR_EXPOSE", value_name = "DIALECT=ADDR", value_delimiter = ',')]
    pub(crate) expose: Vec<Expose>,
    /// PostgreSQL for records and queue [default: a SQLite file in the data directory]
    #[arg(long, env = "ASHLAR_DATABASE", value_name = "URL", hide_env_values = true,
          value_parser = values::database)]
    pub(crate) database: Option<String>,
    /// Address of this server for links that are made with no request at hand, such as those in
    /// commit statuses; links in answers lead to where the request came from [default: the address
    /// that it listens on, when that is one address and port]
    #[arg(long, env = "ASHLAR_PUBLIC_URL", value_name = "URL")]
    pub(crate) public_url: Option<PublicUrl>,
    /// Network of a proxy whose Forwarded and X-Forwarded-* headers count, in CIDR (repeatable)
    #[arg(long, env = "ASHLAR_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',')]
    pub(crate) trusted_proxy: Vec<TrustedProxies>,
    /// Requests per second and tenant, and per address without a good token; no bound when absent
    #[arg(long, env = "ASHLAR_REQUESTS_PER_SECOND", value_name = "N", value_parser = rate)]
    pub(crate) requests_per_second: Option<NonZeroU32>,
    /// How long builds are kept where neither dialect, tenant nor scope says otherwise: bounds on the
    /// age, count and bytes of records, logs and artifacts of a scope, e.g.
    /// records.age=90d,records.count=1000,logs.age=30d,artifacts.count=20; no bound when absent
    #[arg(long, env = "ASHLAR_RETENTION", value_name = "BOUNDS")]
    pub(crate) retention: Option<Retention>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

fn rate(text: &str) -> Result<NonZeroU32, String> {
    let bad = || format!("'{text}' is not a whole number from 1 on; leave it out for no bound");
    text.trim().parse().map_err(|_| bad())
}

/// Form of the server's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// A dialect with an address of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expose {
    pub(crate) dialect: String,
    pub(crate) address: SocketAddr,
}

impl FromStr for Expose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}': write DIALECT=ADDR, e.g. nullspace=127.0.0.1:7071");
        let (dialect, address) = text.split_once('=').ok_or_else(bad)?;
        let address = address.parse().map_err(|_| bad())?;
        Ok(Self { dialect: dialect.to_owned(), address })
    }
}
