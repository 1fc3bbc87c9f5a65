//! Moves the write-ahead log into the database beside those who write.
//!
//! SQLite would do it in a commit, under the writer's lock, with two flushes of the disk in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use rusqlite::Connection;
use tokio::task::spawn_blocking;

use super::{DatabaseError, Shared};

/// From how many pages (of 4 KiB) on the log is moved. The more, the less often a page is moved
/// that changes all the time; the fewer, the shorter is the log that readers look through.
const PAGES: i32 = 4096;

/// How long the log is.
#[derive(Debug, Default)]
pub(super) struct Log {
    pages: AtomicI32,
}

impl Log {
    pub(super) fn grew(&self, pages: i32) {
        self.pages.store(pages, Ordering::Relaxed);
    }

    /// Says whether the log is to be moved now; only one caller is told so.
    pub(super) fn is_due(&self) -> bool {
        self.pages.load(Ordering::Relaxed) >= PAGES
            && self.pages.swap(0, Ordering::Relaxed) >= PAGES
    }
}

/// Moves the log. What is left when that is done is moved while nobody writes, so that the next
/// writer begins the log anew: otherwise it would grow as long as somebody always writes.
pub(super) async fn run(shared: Arc<Shared>) {
    if let Err(error) = moved(&shared).await {
        // The log stays as it is, and the next commit tries again.
        tracing::warn!(error = &error as &dyn std::error::Error, "the database's log stays long");
    }
}

async fn moved(shared: &Arc<Shared>) -> Result<(), DatabaseError> {
    let opener = shared.opener.clone();
    spawn_blocking(move || passive(&opener.reader()?)).await??;
    let lease = shared.writer.lease(&shared.opener).await?;
    spawn_blocking(move || passive(&lease)).await??;
    Ok(())
}

/// Moves as much as no reader holds up.
fn passive(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use sqlx::SqlStr;

    use super::*;
    use crate::db::row::args;
    use crate::db::sqlite::Sqlite;

    #[tokio::test]
    async fn a_log_that_was_moved_is_begun_anew() {
        const PAGE: u64 = 4096;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.db");
        let file = Sqlite::open(&path, true).unwrap();
        let log = file.shared.opener.log().unwrap();
        let mut made = file.write().await.unwrap();
        made.batch("CREATE TABLE t (v BLOB)").await.unwrap();
        made.commit().await.unwrap();
        assert!(!log.is_due());
        for round in 0..4 {
            let mut tx = file.write().await.unwrap();
            for _ in 0..5 {
                let sql = SqlStr::from_static("INSERT INTO t VALUES ($1)");
                tx.run(sql, args![vec![0u8; PAGES as usize / 4 * PAGE as usize]]).await.unwrap();
            }
            // Without the flush and what it begins, so that nothing is moved behind the test's back.
            tx.batch("COMMIT").await.unwrap();
            drop(tx);
            assert!(log.is_due() && !log.is_due(), "in round {round}");
            moved(&file.shared).await.unwrap();
        }
        let log = std::fs::metadata(dir.path().join("records.db-wal")).unwrap().len();
        assert!(log < 2 * PAGES as u64 * PAGE, "the log has {log} bytes after all rounds");
        file.close().await;
        assert!(!dir.path().join("records.db-wal").exists());
    }
}
