//! Opens a database.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{Db, Sqlite, migrate};
use crate::Error;

/// How long a transaction may wait for its client, with a unit: a process that hangs in the middle of
/// one holds its locks, and would hold up all others.
const TRANSACTION_IDLE_MAX: &str = "5s";
/// How long a task waits for a free connection.
const ACQUIRE_MAX: Duration = Duration::from_secs(30);
/// Connections to PostgreSQL.
const POSTGRES_CONNECTIONS: u32 = 16;

/// What survives once a write was acknowledged. Nothing but time hangs on it where the database
/// is PostgreSQL, which has settings of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The death of the process. After a power cut the newest builds may be missing, never torn.
    Process,
    /// A power cut too: each commit waits for the disk, together with those beside it.
    #[default]
    Power,
}

/// How a database is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// What survives.
    pub durability: Durability,
}

impl Db {
    /// Opens a SQLite file, which is made when it is missing, or a `postgres://` address.
    pub(crate) async fn open(place: &str, options: Options) -> Result<Self, Error> {
        let db = if place.starts_with("postgres://") || place.starts_with("postgresql://") {
            Self::postgres(place)?
        } else {
            let path = place.strip_prefix("sqlite:").unwrap_or(place);
            let path = Path::new(path.strip_prefix("//").unwrap_or(path));
            let durable = options.durability == Durability::Power;
            let file = Sqlite::open(path, durable);
            Self::Sqlite(file.map_err(|source| Error::Open { place: place.to_owned(), source })?)
        };
        migrate::migrate(&db).await.map_err(|error| match error {
            Error::Database(source) => Error::Open { place: without_password(place), source },
            other => other,
        })?;
        Ok(db)
    }

    fn postgres(url: &str) -> Result<Self, Error> {
        let connect = PgConnectOptions::from_str(url)
            .map_err(|e| Error::Open { place: without_password(url), source: e.into() })?
            .application_name("ashlar")
            .options([("idle_in_transaction_session_timeout", TRANSACTION_IDLE_MAX)])
            .statement_cache_capacity(200)
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(ACQUIRE_MAX)
            .connect_lazy_with(connect);
        Ok(Self::Postgres(pool))
    }
}

/// Returns an address as it may be shown.
fn without_password(place: &str) -> String {
    let Some((scheme, rest)) = place.split_once("://") else { return place.to_owned() };
    let shown = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{}", shown.split('?').next().unwrap_or(shown))
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn passwords_are_never_shown() {
        let shown = without_password("postgres://me:p@ss@db:5432/x?password=hunter2");
        assert_eq!(shown, "postgres://db:5432/x");
        assert_eq!(without_password("/data/records.db"), "/data/records.db");
    }
}
