//! What `ashlar serve` takes: flags, `ASHLAR_*` variables, and a TOML file for what neither says.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ashlar_oci::Mirror;
use clap::Args;
use serde::Deserialize;

use crate::values;

/// Where the server listens when nobody says.
const LISTEN_DEFAULT: &str = "127.0.0.1:7070";

/// Arguments of `ashlar serve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Address to listen on [default: 127.0.0.1:7070]
    #[arg(long, env = "ASHLAR_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Serve one dialect at the root of an address of its own (repeatable)
    #[arg(long, env = "ASHLAR_EXPOSE", value_name = "DIALECT=ADDR", value_delimiter = ',')]
    pub(crate) expose: Vec<Expose>,
    /// PostgreSQL for records and queue [default: a SQLite file in the data directory]
    #[arg(long, env = "ASHLAR_DATABASE", value_name = "URL", hide_env_values = true)]
    pub(crate) database: Option<String>,
    /// Builds that run at once in this process; 0 for none [default: 8]
    #[arg(long, env = "ASHLAR_SLOTS", value_name = "N")]
    pub(crate) slots: Option<usize>,
    /// How long running builds may go on when the server is stopped [default: 30s]
    #[arg(long, env = "ASHLAR_DRAIN", value_name = "TIME", value_parser = values::duration)]
    pub(crate) drain: Option<Duration>,
    /// Requests per second and tenant; no bound when absent
    #[arg(long, env = "ASHLAR_REQUESTS_PER_SECOND", value_name = "N")]
    pub(crate) requests_per_second: Option<u32>,
    /// Form of the server's own log [default: pretty]
    #[arg(long, env = "ASHLAR_LOG_FORMAT", value_enum, value_name = "FORM")]
    pub(crate) log_format: Option<LogFormat>,
    /// TOML file with the same settings; flags and variables win
    #[arg(long, env = "ASHLAR_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Form of the server's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
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

/// The settings in a TOML file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct File {
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) registry_mirror: Vec<String>,
    pub(crate) plain_http: Vec<String>,
    pub(crate) ca_bundle: Option<PathBuf>,
    pub(crate) git_file_root: Option<PathBuf>,
    listen: Option<SocketAddr>,
    expose: Vec<String>,
    database: Option<String>,
    slots: Option<usize>,
    drain: Option<String>,
    requests_per_second: Option<u32>,
    log_format: Option<LogFormat>,
}

impl File {
    /// Reads a file.
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("--config: cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("--config: {}", path.display()))
    }
}

impl ServeArgs {
    /// Fills in what the file says and no flag or variable did; returns the file's other settings.
    pub(crate) fn with_file(mut self) -> Result<(Self, File)> {
        let mut file = self.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        let wrong = |e: String| anyhow::anyhow!("--config: {e}");
        self.listen = self.listen.or(file.listen);
        if self.expose.is_empty() {
            let expose = std::mem::take(&mut file.expose);
            let read = expose.iter().map(|e| e.parse()).collect::<Result<_, _>>();
            self.expose = read.map_err(wrong)?;
        }
        self.database = self.database.or(file.database.take());
        self.slots = self.slots.or(file.slots);
        if self.drain.is_none() {
            let drain = file.drain.as_deref().map(values::duration).transpose();
            self.drain = drain.map_err(wrong)?;
        }
        self.requests_per_second = self.requests_per_second.or(file.requests_per_second);
        self.log_format = self.log_format.or(file.log_format);
        Ok((self, file))
    }

    /// Returns the address to listen on.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.listen.map_or_else(|| Ok(LISTEN_DEFAULT.parse()?), Ok)
    }
}

impl File {
    /// Returns the mirrors of the file.
    pub(crate) fn mirrors(&self) -> Result<Vec<Mirror>> {
        self.registry_mirror.iter().map(|m| Ok(m.parse()?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        args: ServeArgs,
    }

    #[test]
    fn flags_win_over_the_file_and_unknown_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ashlar.toml");
        let text = "listen = \"127.0.0.1:1\"\nslots = 3\ndrain = \"5s\"\nexpose = [\"x=[::1]:2\"]\n\
                    registry-mirror = [\"docker.io=http://127.0.0.1:5000\"]\n";
        std::fs::write(&path, text).unwrap();
        let config = path.to_str().unwrap();
        let alone = Alone::parse_from(["serve", "--config", config, "--slots", "7"]);
        let (args, file) = alone.args.with_file().unwrap();
        assert_eq!((args.slots, args.drain), (Some(7), Some(Duration::from_secs(5))));
        assert_eq!(args.address().unwrap().port(), 1);
        assert_eq!(args.expose[0].dialect, "x");
        assert_eq!(file.mirrors().unwrap().len(), 1);
        std::fs::write(&path, "slotz = 3").unwrap();
        let alone = Alone::parse_from(["serve", "--config", config]);
        assert!(alone.args.with_file().is_err());
    }
}
