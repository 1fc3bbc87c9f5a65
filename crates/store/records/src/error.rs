//! What can go wrong with the records.

use ashlar_core::BuildId;
use ashlar_core::journal::Refusal;

use crate::db::DatabaseError;

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database could not be opened.
    #[error("cannot open the database '{place}'; check that it exists and may be written")]
    Open {
        /// The path, or the address without its password.
        place: String,
        /// Why.
        #[source]
        source: DatabaseError,
    },
    /// The database was written by a newer Ashlar.
    #[error("the database has schema {found}, this Ashlar knows up to {known}; upgrade Ashlar")]
    Newer {
        /// The version in the database.
        found: i64,
        /// The newest version known.
        known: i64,
    },
    /// A migration failed; nothing of it was kept.
    #[error("cannot bring the database to schema {version}")]
    Migrate {
        /// The version that should have come.
        version: i64,
        /// Why.
        #[source]
        source: DatabaseError,
    },
    /// The database refused or did not answer.
    #[error("the database did not do what it was asked")]
    Database(#[from] DatabaseError),
    /// The entry does not belong into the journal.
    #[error("the journal of the build refuses the entry")]
    Refused(#[from] Refusal),
    /// There is no such build.
    #[error("there is no build {0}")]
    NoSuchBuild(BuildId),
    /// A build that another one shall stand on has nothing left to stand on.
    #[error("build {0} is gone, or what it made; choose another one")]
    NotKept(BuildId),
    /// What is stored cannot be read.
    #[error("the record of {what} is damaged: {why}")]
    Damaged {
        /// Of what.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The log of an ended build cannot be read from the blob store, or not be moved there.
    #[error("the log segment {digest} cannot be read or written; is the blob store there?")]
    Segment {
        /// The segment's blob.
        digest: ashlar_core::Digest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A value is larger than the store takes.
    #[error("{what} is too large: at most {max} {unit} fit")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The bound.
        max: u64,
        /// The bound's unit.
        unit: &'static str,
    },
    /// The name is taken.
    #[error("{what} '{name}' exists already; choose another name")]
    Taken {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The same idempotency key came with another request.
    #[error("the idempotency key '{0}' was used for another request; use a new one")]
    KeyReused(String),
    /// The scope's policy forbids the submission while another build of it waits or runs.
    #[error("the scope '{0}' already has a build, and its policy forbids another one")]
    ScopeBusy(String),
    /// A page that does not exist was asked for.
    #[error("pages hold 1 to {max} records")]
    PageSize {
        /// The most that a page may hold.
        max: u32,
    },
    /// A sealed value cannot be opened.
    #[error("the sealed value '{0}' cannot be opened; was it sealed with another key?")]
    Sealed(String),
    /// The key for sealed values is not the database's.
    #[error(
        "the secrets of this database are sealed with another key; give all servers and workers \
         of one database the same ASHLAR_SECRETS_KEY"
    )]
    OtherKey,
    /// The key for sealed values cannot be used.
    #[error("the secrets key {0}")]
    Key(&'static str),
    /// The file with the secrets key cannot be used.
    #[error("cannot read or make the key file '{}'", path.display())]
    KeyFile {
        /// Where it is.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A name has characters that it must not have.
    #[error("'{0}' is not a name: 1 to 63 letters, digits, '_' and '-' are")]
    Name(String),
    /// The writer has been given up after an earlier failure.
    #[error("the history of build {build} could not be written: {why}")]
    Writer {
        /// Of which build.
        build: BuildId,
        /// What happened first.
        why: String,
    },
    /// The build is no longer this process's to end.
    #[error("build {build} was ended by another process; it was last seen as {state} here")]
    TakenAway {
        /// Which build.
        build: BuildId,
        /// Its state when this process last wrote to it.
        state: ashlar_core::state::State,
    },
    /// The thread that writes the history is gone.
    #[error("the history's thread has ended; start the command again")]
    Gone,
}

impl Error {
    /// Says whether the same call may succeed a little later: the database was busy, restarted, or
    /// chose this transaction as the victim of a deadlock.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_transient())
    }

    /// Says whether the transaction was rolled back in favour of another one.
    pub(crate) fn lost_race(&self) -> bool {
        matches!(self, Self::Database(error) if error.lost_race())
    }

    pub(crate) fn damaged(what: impl ToString, why: impl ToString) -> Self {
        Self::Damaged { what: what.to_string(), why: why.to_string() }
    }
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        Self::Database(source.into())
    }
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        Self::Database(source.into())
    }
}

impl From<std::io::Error> for Error {
    fn from(source: std::io::Error) -> Self {
        Self::Database(source.into())
    }
}
