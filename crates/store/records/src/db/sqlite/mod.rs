//! SQLite: one connection that writes, since SQLite has one writer anyway and waiting in a queue of
//! tasks is fairer than polling a lock; others read beside it.
//!
//! Nearly all statements here take microseconds, less than handing them to another thread and
//! waiting for it would. So a statement runs on the thread that asks. One that took long lately
//! ([`Costs`]), or that finds the file locked by another process, runs where blocking is allowed.

mod checkpoint;
mod costs;
mod flush;
mod pool;
mod value;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use sqlx::SqlStr;
use tokio::task::{consume_budget, spawn_blocking};

use super::error::DatabaseError;
use super::row::Arg;
use checkpoint::Log;
use costs::Costs;
use flush::Flusher;
use pool::{Lease, Opener, Readers, Writer};

pub(crate) use pool::{exclusive, wait_for_others};
pub(crate) use value::SqliteRow;

/// How a statement is done.
type How<T> = fn(&Connection, &str, &[Arg]) -> rusqlite::Result<T>;

/// An open file. Clones share connections.
#[derive(Clone)]
pub(crate) struct Sqlite {
    shared: Arc<Shared>,
}

struct Shared {
    opener: Opener,
    writer: Writer,
    readers: Arc<Readers>,
    costs: Costs,
    /// Makes commits last through a power cut, where that is wanted.
    flusher: Option<Flusher>,
}

/// A transaction, or a connection for one query. Dropped without commit it is rolled back.
pub(crate) struct SqliteTx {
    shared: Arc<Shared>,
    /// Away only while a statement runs on another thread.
    lease: Option<Lease>,
    /// Rows that the connection had touched when the transaction began; none of one that reads.
    touched: Option<u64>,
}

impl Sqlite {
    /// Opens a file, which is made when it is missing. Commits last through a power cut when they
    /// are `durable`, else through the end of the process.
    pub(crate) fn open(path: &Path, durable: bool) -> Result<Self, DatabaseError> {
        // A server moves the log into the database beside its writers; a command as it goes along.
        let log = durable.then(Arc::<Log>::default);
        let opener = Opener::new(path, log);
        let shared = Shared {
            writer: Writer::new(opener.writer()?),
            readers: Arc::new(Readers::new(opener.clone())),
            costs: Costs::default(),
            flusher: durable.then(|| Flusher::new(path)),
            opener,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Begins a transaction that writes.
    pub(crate) async fn write(&self) -> Result<SqliteTx, DatabaseError> {
        let lease = self.shared.writer.lease(&self.shared.opener).await?;
        let touched = Some(lease.total_changes());
        let mut tx = self.tx(lease, touched);
        tx.begin("BEGIN IMMEDIATE").await?;
        Ok(tx)
    }

    /// Begins a transaction that reads, all of it at one point in time.
    pub(crate) async fn snapshot(&self) -> Result<SqliteTx, DatabaseError> {
        let mut tx = self.reader().await?;
        tx.begin("BEGIN").await?;
        Ok(tx)
    }

    /// Returns a connection for one query.
    pub(crate) async fn reader(&self) -> Result<SqliteTx, DatabaseError> {
        Ok(self.tx(Readers::lease(&self.shared.readers).await?, None))
    }

    fn tx(&self, lease: Lease, touched: Option<u64>) -> SqliteTx {
        SqliteTx { shared: self.shared.clone(), lease: Some(lease), touched }
    }

    /// Waits for all transactions and closes the file, which is left without a log.
    pub(crate) async fn close(&self) {
        self.shared.readers.close().await;
        self.shared.writer.close().await;
    }
}

impl SqliteTx {
    /// Reads all rows of a query.
    pub(crate) async fn all(
        &mut self,
        sql: SqlStr,
        args: Vec<Arg>,
    ) -> Result<Vec<SqliteRow>, DatabaseError> {
        self.step(sql, args, value::query).await
    }

    /// Runs a statement and returns how many rows it touched.
    pub(crate) async fn run(&mut self, sql: SqlStr, args: Vec<Arg>) -> Result<u64, DatabaseError> {
        self.step(sql, args, value::execute).await
    }

    async fn begin(&mut self, how: &'static str) -> Result<(), DatabaseError> {
        self.run(SqlStr::from_static(how), Vec::new()).await.map(drop)
    }

    /// Runs statements that have no values.
    pub(crate) async fn batch(&mut self, sql: &'static str) -> Result<(), DatabaseError> {
        let how: How<()> = |connection, sql, _| connection.execute_batch(sql);
        self.step(SqlStr::from_static(sql), Vec::new(), how).await
    }

    /// Ends the transaction. What it wrote is on the disk then, where that is wanted.
    pub(crate) async fn commit(self) -> Result<(), DatabaseError> {
        let reads = self.touched.is_none();
        let shared = self.end().await?;
        match shared.flusher.as_ref().filter(|_| !reads) {
            Some(flusher) => Ok(flusher.wait().await?),
            None => Ok(()),
        }
    }

    /// Ends the transaction without a wait for the disk: what it wrote is lost with the power when
    /// nothing is written after it, never before what was written before it.
    pub(crate) async fn commit_early(self) -> Result<(), DatabaseError> {
        self.end().await.map(drop)
    }

    /// Commits and lets the next one write.
    async fn end(mut self) -> Result<Arc<Shared>, DatabaseError> {
        let how: How<u64> = value::execute;
        self.step(SqlStr::from_static("COMMIT"), Vec::new(), how).await?;
        let now = self.lease.as_ref().map(|lease| lease.total_changes());
        let wrote = self.touched.is_some_and(|before| now != Some(before));
        let shared = self.shared.clone();
        if let Some(flusher) = shared.flusher.as_ref().filter(|_| wrote) {
            flusher.committed();
        }
        drop(self);
        if wrote && shared.opener.log().is_some_and(Log::is_due) {
            tokio::spawn(checkpoint::run(shared.clone()));
        }
        Ok(shared)
    }

    async fn step<T: Send + 'static>(
        &mut self,
        sql: SqlStr,
        args: Vec<Arg>,
        how: How<T>,
    ) -> Result<T, DatabaseError> {
        // What runs at once never waits: without this a long transaction would keep its thread from
        // all other tasks.
        consume_budget().await;
        let lease = self.lease.as_ref().ok_or(DatabaseError::Closed)?;
        let costs = &self.shared.costs;
        if !costs.is_dear(sql.as_str()) {
            let done = costs.timed(sql.as_str(), || how(lease, sql.as_str(), &args));
            if !matches!(&done, Err(error) if is_busy(error)) {
                return Ok(done?);
            }
        }
        let lease = self.lease.take().ok_or(DatabaseError::Closed)?;
        let shared = self.shared.clone();
        let (lease, done) = spawn_blocking(move || {
            let wait = || wait_for_others(&lease, || how(&lease, sql.as_str(), &args));
            let done = shared.costs.timed(sql.as_str(), wait);
            (lease, done)
        })
        .await?;
        self.lease = Some(lease);
        Ok(done?)
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// How long a statement waits for another process that uses the same file.
const BUSY_MAX: Duration = Duration::from_secs(30);
