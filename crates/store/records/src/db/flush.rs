//! Group commit for SQLite: a commit writes to the write-ahead log, and whoever waits for the disk
//! waits together with all that committed meanwhile.
//!
//! SQLite's own `synchronous=FULL` flushes inside each commit, one after the other under the
//! writer's lock. Here commits do not flush (`NORMAL`), and one `fdatasync` of the log that begins
//! after a commit covers it and all before it: the log is a sequence with checksums, of which a
//! power cut leaves a prefix, and a checkpoint flushes the log before it moves pages and the
//! database before it begins the log anew (sqlite.org/wal.html, "Checkpointing").

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Flushes one database's write-ahead log for all who wait.
#[derive(Debug)]
pub(crate) struct Flusher {
    log: PathBuf,
    /// Commits so far.
    committed: AtomicU64,
    /// Commits that the disk has for sure; held while it is being flushed.
    flushed: Mutex<u64>,
}

impl Flusher {
    pub(crate) fn new(database: &Path) -> Arc<Self> {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        Arc::new(Self { log: log.into(), committed: AtomicU64::new(0), flushed: Mutex::new(0) })
    }

    /// Waits until what was committed before this call is on the disk.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        let mine = self.committed.fetch_add(1, Ordering::AcqRel) + 1;
        let mut flushed = self.flushed.lock().await;
        if *flushed >= mine {
            return Ok(());
        }
        let all = self.committed.load(Ordering::Acquire);
        let (log, first) = (self.log.clone(), *flushed == 0);
        tokio::task::spawn_blocking(move || flush(&log, first)).await??;
        *flushed = all;
        Ok(())
    }
}

fn flush(log: &Path, first: bool) -> io::Result<()> {
    match File::open(log) {
        // A checkpoint flushed everything and the log was not needed since.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?.sync_data()?,
    }
    // Its name has to last too; SQLite sees to that only when it flushes itself.
    match log.parent().filter(|_| first) {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_together_counts_every_commit_and_a_missing_log_is_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let flusher = Flusher::new(&dir.path().join("records.db"));
        flusher.wait().await.unwrap();
        std::fs::write(dir.path().join("records.db-wal"), b"frames").unwrap();
        let waits = (0..64).map(|_| {
            let flusher = Arc::clone(&flusher);
            tokio::spawn(async move { flusher.wait().await })
        });
        for wait in waits.collect::<Vec<_>>() {
            wait.await.unwrap().unwrap();
        }
        assert_eq!(*flusher.flushed.lock().await, 65);
    }
}
