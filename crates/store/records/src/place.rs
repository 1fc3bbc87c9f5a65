//! Where the records of a data directory are: one file, for builds that were made with a server and
//! without one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::runtime::Builder;

use crate::Error;

/// The file.
const RECORDS: &str = "records.db";
/// The file of local builds in data directories of earlier versions.
const HISTORY: &str = "history.db";
/// How long is waited for somebody who uses the earlier file.
const BUSY_MAX: Duration = Duration::from_millis(500);

/// Returns the file with the records of a data directory. A history that an earlier version has
/// left becomes it; while another process uses that history, it is used as it is. Blocks.
///
/// # Errors
/// When the history cannot be opened or moved.
pub fn records_file(dir: &Path) -> Result<PathBuf, Error> {
    let (records, history) = (dir.join(RECORDS), dir.join(HISTORY));
    if records.exists() || !history.exists() {
        return Ok(records);
    }
    let runtime = Builder::new_current_thread().enable_time().build().map_err(failed)?;
    if !runtime.block_on(alone(&history)) {
        return Ok(if records.exists() { records } else { history });
    }
    match fs::rename(&history, &records) {
        // Another process did the same a moment ago.
        Err(e) if e.kind() == io::ErrorKind::NotFound && records.exists() => Ok(records),
        other => other.map(|()| records).map_err(failed),
    }
}

fn failed(source: io::Error) -> Error {
    Error::Database(sqlx::Error::Io(source))
}

/// Puts a database's write-ahead log back into its file, which works only while nobody else has it
/// open: a file with a log of its own must not be renamed under somebody.
async fn alone(path: &Path) -> bool {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY_MAX)
        .journal_mode(SqliteJournalMode::Delete)
        .disable_statement_logging();
    match options.connect().await {
        Ok(connection) => connection.close().await.is_ok(),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocking::LocalHistory;

    #[test]
    fn an_earlier_history_is_taken_over_once_nobody_uses_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(records_file(dir.path()).unwrap(), dir.path().join(RECORDS));
        let history = LocalHistory::open(&dir.path().join(HISTORY)).unwrap();
        let filter = crate::Filter::default();
        history.list(&filter, &crate::Page::newest(1)).unwrap();
        // It is open: renaming it now would lose what is written from now on.
        assert_eq!(records_file(dir.path()).unwrap(), dir.path().join(HISTORY));

        let other = tempfile::tempdir().unwrap();
        for name in [HISTORY, "history.db-wal"] {
            fs::copy(dir.path().join(name), other.path().join(name)).unwrap();
        }
        assert_eq!(records_file(other.path()).unwrap(), other.path().join(RECORDS));
        assert!(!other.path().join(HISTORY).exists());
        let moved = LocalHistory::open(&other.path().join(RECORDS)).unwrap();
        assert!(moved.list(&filter, &crate::Page::newest(1)).is_ok());
    }
}
