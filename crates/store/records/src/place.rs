//! Where the records of a data directory are: one file, for builds that were made with a server and
//! without one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;
use crate::db::exclusive;

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
    // A file with a log of its own must not be renamed under somebody.
    if exclusive(&history, BUSY_MAX).is_err() {
        return Ok(if records.exists() { records } else { history });
    }
    match fs::rename(&history, &records) {
        // Another process did the same a moment ago.
        Err(e) if e.kind() == io::ErrorKind::NotFound && records.exists() => Ok(records),
        other => Ok(other.map(|()| records)?),
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
