//! What a database says when it does not do what it was asked.

use std::io;

use rusqlite::ErrorCode;

/// A database refused, or did not answer. PostgreSQL's errors come as its driver makes them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// SQLite's.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL's, or those of the connection to it.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    /// No connection to PostgreSQL could be made, for as long as was waited for one.
    #[error("no connection could be made")]
    Unreachable(#[source] sqlx::Error),
    /// This process used all its connections to PostgreSQL, so many.
    #[error(
        "all {0} connections of this process stayed in use; --database-connections says how many"
    )]
    AllInUse(u32),
    /// The file could not be flushed, or the system gave no thread or no random bytes.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// All connections stayed in use.
    #[error("no connection became free in time")]
    Busy,
    /// The store was closed, or the program is ending.
    #[error("the database was closed")]
    Closed,
    /// A row, or a value of a row, that must be there is missing.
    #[error("a row or value that must be there is missing")]
    NoRow,
}

/// PostgreSQL's codes (its manual, appendix A) of what may succeed a little later.
const POSTGRES_TRANSIENT: [&str; 7] =
    ["25P03", LOST_RACES[0], LOST_RACES[1], "53300", "57P01", "57P02", "57P03"];
/// Of a transaction that was rolled back in favour of another one.
const LOST_RACES: [&str; 2] = ["40001", "40P01"];

impl DatabaseError {
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy),
            Self::Postgres(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => true,
            Self::Postgres(error) => has_code(error, &POSTGRES_TRANSIENT),
            Self::Unreachable(_) | Self::AllInUse(_) | Self::Io(_) | Self::Busy => true,
            Self::Closed | Self::NoRow => false,
        }
    }

    pub(crate) fn lost_race(&self) -> bool {
        matches!(self, Self::Postgres(error) if has_code(error, &LOST_RACES))
    }
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| codes.contains(&code.as_ref()))
}

/// A task that was to run elsewhere did not: the program is ending.
impl From<tokio::task::JoinError> for DatabaseError {
    fn from(_: tokio::task::JoinError) -> Self {
        Self::Closed
    }
}
