//! Connections to one file.

use std::fs::{self, OpenOptions, Permissions};
use std::mem;
use std::ops::Deref;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Mutex as Queue, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::checkpoint::Log;
use super::{BUSY_MAX, DatabaseError, is_busy};

/// Readers beside the one writer.
const READERS: u32 = 4;
/// How long a task waits for a free connection.
const LEASE_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a process waits before it tries again to switch a file that another one switches.
const SWITCH_PAUSE: Duration = Duration::from_millis(5);
/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 200;

/// Opens connections to one file.
#[derive(Clone)]
pub(super) struct Opener {
    path: PathBuf,
    /// Who is told how long the write-ahead log is, and moves it into the database; without
    /// somebody SQLite does that in commits.
    log: Option<Arc<Log>>,
}

impl Opener {
    pub(super) fn new(path: &Path, log: Option<Arc<Log>>) -> Self {
        Self { path: path.to_owned(), log }
    }

    pub(super) fn log(&self) -> Option<&Log> {
        self.log.as_deref()
    }

    /// Opens the connection that writes; makes the file when it is missing.
    pub(super) fn writer(&self) -> Result<Connection, rusqlite::Error> {
        make_private(&self.path);
        let mut connection = connect(&self.path, OpenFlags::SQLITE_OPEN_CREATE, BUSY_MAX)?;
        switch_to_log(&connection)?;
        connection.busy_timeout(Duration::ZERO)?;
        if let Some(log) = self.log.clone() {
            connection.wal_hook(Some(move |_: &mut Wal, pages| {
                log.grew(pages);
                Ok(())
            }))?;
        }
        Ok(connection)
    }

    pub(super) fn reader(&self) -> Result<Connection, rusqlite::Error> {
        let connection = connect(&self.path, OpenFlags::empty(), BUSY_MAX)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.busy_timeout(Duration::ZERO)?;
        Ok(connection)
    }
}

/// Sees to it that nobody but its owner reads the database, also one that an earlier version made.
/// SQLite gives its other files the mode of the first.
///
/// A file that is there is never opened here: to close it would end this process's locks on it.
fn make_private(path: &Path) {
    // Where this fails, SQLite says so when it opens the file; what is somebody else's stays as it is.
    let _made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        if fs::metadata(&file).is_ok_and(|about| about.mode() & 0o077 != 0) {
            let _narrowed = fs::set_permissions(&file, Permissions::from_mode(0o600));
        }
    }
}

/// Gives a database its write-ahead log. SQLite does not wait where two processes switch a new file
/// at the same time, since each could wait for the other; so the wait is here.
fn switch_to_log(connection: &Connection) -> Result<(), rusqlite::Error> {
    let until = Instant::now() + BUSY_MAX;
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && Instant::now() < until => thread::sleep(SWITCH_PAUSE),
            other => return other,
        }
    }
}

/// Opens a connection that waits this long for other processes, for now.
fn connect(path: &Path, flags: OpenFlags, wait: Duration) -> Result<Connection, rusqlite::Error> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(wait)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Plans are not to look at values: a statement whose LIMIT is one would be planned anew each
    // time, which takes ten times longer than running it does.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(
        "PRAGMA foreign_keys = OFF; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = FAST",
    )?;
    Ok(connection)
}

/// Does something, and waits while another process has the file locked. Blocks.
pub(crate) fn wait_for_others<T>(
    connection: &Connection,
    work: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.busy_timeout(BUSY_MAX)?;
    let done = work();
    connection.busy_timeout(Duration::ZERO)?;
    done
}

/// Puts a database's write-ahead log back into its file, which works only while nobody else has it
/// open; waits that long for it. Blocks.
pub(crate) fn exclusive(path: &Path, wait: Duration) -> rusqlite::Result<()> {
    let connection = connect(path, OpenFlags::empty(), wait)?;
    connection.pragma_update(None, "journal_mode", "DELETE")?;
    connection.close().map_err(|(_, error)| error)
}

/// The connection that writes, for one after the other.
pub(super) struct Writer(Arc<Queue<Home>>);

/// Where the writer's connection is while nobody uses it.
enum Home {
    Here(Connection),
    /// It could not end a transaction; the next one opens another.
    Lost,
    Closed,
}

impl Writer {
    pub(super) fn new(connection: Connection) -> Self {
        Self(Arc::new(Queue::new(Home::Here(connection))))
    }

    pub(super) async fn lease(&self, opener: &Opener) -> Result<Lease, DatabaseError> {
        let wait = timeout(LEASE_WAIT_MAX, self.0.clone().lock_owned());
        let mut home = wait.await.map_err(|_| DatabaseError::Busy)?;
        let connection = match mem::replace(&mut *home, Home::Lost) {
            Home::Here(connection) => connection,
            Home::Lost => opener.writer()?,
            Home::Closed => {
                *home = Home::Closed;
                return Err(DatabaseError::Closed);
            }
        };
        Ok(Lease { connection: Some(connection), place: Place::Writer(home) })
    }

    pub(super) async fn close(&self) {
        let home = mem::replace(&mut *self.0.lock().await, Home::Closed);
        drop(home);
    }
}

/// The connections that read.
pub(super) struct Readers {
    opener: Opener,
    free: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// Nothing is opened before it is needed.
    pub(super) fn new(opener: Opener) -> Self {
        let free = Arc::new(Semaphore::new(READERS as usize));
        Self { opener, free, idle: Mutex::default() }
    }

    pub(super) async fn lease(readers: &Arc<Self>) -> Result<Lease, DatabaseError> {
        let wait = timeout(LEASE_WAIT_MAX, readers.free.clone().acquire_owned());
        let permit = wait.await.map_err(|_| DatabaseError::Busy)?;
        let permit = permit.map_err(|_| DatabaseError::Closed)?;
        let idle = readers.idle().pop();
        let connection = idle.map_or_else(|| readers.opener.reader(), Ok)?;
        Ok(Lease { connection: Some(connection), place: Place::Reader(readers.clone(), permit) })
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn close(&self) {
        // All of them are here once all permits are; that they were had is then known too.
        let all = self.free.acquire_many(READERS).await;
        self.free.close();
        self.idle().clear();
        drop(all);
    }
}

/// A connection that goes back when this is dropped. A transaction that is still open is rolled
/// back.
pub(super) struct Lease {
    /// Gone only in `drop`.
    connection: Option<Connection>,
    place: Place,
}

enum Place {
    Writer(OwnedMutexGuard<Home>),
    Reader(Arc<Readers>, #[expect(dead_code, reason = "held")] OwnedSemaphorePermit),
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        // A lease has its connection until it is dropped.
        #[expect(clippy::unwrap_used, reason = "taken in `drop` alone")]
        self.connection.as_ref().unwrap()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        if !connection.is_autocommit() && connection.execute_batch("ROLLBACK").is_err() {
            return;
        }
        match &mut self.place {
            Place::Writer(home) => **home = Home::Here(connection),
            Place::Reader(readers, _) => readers.idle().push(connection),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(dir: &Path) -> Vec<(String, u32)> {
        let mut found: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().mode() & 0o777))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn a_database_is_private_also_one_that_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.db");
        let private = ["records.db", "records.db-shm", "records.db-wal"];
        let private = private.map(|name| (name.to_owned(), 0o600));
        for _ in 0..2 {
            let connection = Opener::new(&path, None).writer().unwrap();
            connection.execute_batch("CREATE TABLE IF NOT EXISTS t (a)").unwrap();
            assert_eq!(modes(dir.path()), private);
            drop(connection);
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        }
    }
}
