//! Opens a database.

use std::num::NonZeroU32;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection as _, PgConnection, PgPool};
use tokio::time::timeout;

use super::{DatabaseError, Db, Sqlite, migrate};
use crate::Error;

/// How long a transaction may wait for its client, with a unit: a process that hangs in the middle of
/// one holds its locks, and would hold up all others.
const TRANSACTION_IDLE_MAX: &str = "5s";
/// How long a task waits for a free connection.
const ACQUIRE_MAX: Duration = Duration::from_secs(30);
/// Connections to PostgreSQL that queries share, unless set otherwise.
pub const CONNECTIONS_DEFAULT: u32 = 16;
/// How long whoever got no connection waits to learn why.
const CAUSE_MAX: Duration = Duration::from_secs(2);

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
    /// Connections to PostgreSQL that queries share ([`CONNECTIONS_DEFAULT`] when absent); one more
    /// listens. Nothing to SQLite.
    pub connections: Option<NonZeroU32>,
}

impl Db {
    /// Opens a SQLite file, which is made when it is missing, or a `postgres://` address.
    pub(crate) async fn open(place: &str, options: Options) -> Result<Self, Error> {
        let db = if place.starts_with("postgres://") || place.starts_with("postgresql://") {
            Self::postgres(place, options)?
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

    fn postgres(url: &str, options: Options) -> Result<Self, Error> {
        let connect = PgConnectOptions::from_str(url)
            .map_err(|e| Error::Open { place: without_password(url), source: e.into() })?
            .application_name("ashlar")
            .options([("idle_in_transaction_session_timeout", TRANSACTION_IDLE_MAX)])
            .statement_cache_capacity(200)
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(options.connections.map_or(CONNECTIONS_DEFAULT, NonZeroU32::get))
            .acquire_timeout(ACQUIRE_MAX)
            .connect_lazy_with(connect);
        Ok(Self::Postgres(pool))
    }
}

/// Says why no connection was to be had in time, which the pool does not: it tries again and again,
/// and forgets what it was told.
pub(crate) async fn explained(pool: &PgPool, error: sqlx::Error) -> DatabaseError {
    if !matches!(error, sqlx::Error::PoolTimedOut) {
        return error.into();
    }
    let one_more = async {
        let connection = PgConnection::connect_with(&pool.connect_options()).await?;
        connection.close().await
    };
    match timeout(CAUSE_MAX, one_more).await {
        Ok(Err(cause)) => DatabaseError::Unreachable(cause),
        Ok(Ok(())) => DatabaseError::AllInUse(pool.options().get_max_connections()),
        Err(_) => error.into(),
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
    use std::net::TcpListener;
    use std::str::FromStr;
    use std::time::Duration;

    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

    use super::{DatabaseError, explained, without_password};

    #[tokio::test]
    async fn whoever_gets_no_connection_learns_why() {
        // A port that nobody listens at any more.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("postgres://postgres@127.0.0.1:{port}/x?sslmode=disable");
        let pool = PgPoolOptions::new()
            .acquire_timeout(Duration::from_millis(200))
            .connect_lazy_with(PgConnectOptions::from_str(&url).unwrap());
        let timed_out = pool.acquire().await.unwrap_err();
        assert!(matches!(timed_out, sqlx::Error::PoolTimedOut), "{timed_out}");
        let error = explained(&pool, timed_out).await;
        let DatabaseError::Unreachable(cause) = &error else { panic!("{error:?}") };
        assert!(cause.to_string().contains("refused") && error.is_transient(), "{cause}");
    }

    #[test]
    fn passwords_are_never_shown() {
        let shown = without_password("postgres://me:p@ss@db:5432/x?password=hunter2");
        assert_eq!(shown, "postgres://db:5432/x");
        assert_eq!(without_password("/data/records.db"), "/data/records.db");
    }
}
