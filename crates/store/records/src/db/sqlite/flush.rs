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
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

/// Flushes one database's write-ahead log for all who wait.
#[derive(Debug)]
pub(crate) struct Flusher {
    log: PathBuf,
    /// Commits so far.
    committed: AtomicU64,
    /// What the disk has for sure; held while it is being flushed.
    flushed: Mutex<Flushed>,
}

#[derive(Debug, Default)]
struct Flushed {
    /// Commits.
    commits: u64,
    /// Whether the log's name lasts too.
    named: bool,
}

impl Flusher {
    pub(crate) fn new(database: &Path) -> Self {
        let mut log = database.as_os_str().to_owned();
        log.push("-wal");
        Self { log: log.into(), committed: AtomicU64::new(0), flushed: Mutex::default() }
    }

    /// Counts a commit, once it is in the log.
    pub(crate) fn committed(&self) {
        self.committed.fetch_add(1, Ordering::AcqRel);
    }

    /// Waits until all that was committed before this call is on the disk, whoever did it: what a
    /// transaction found there counts as much as what it wrote.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        let mine = self.committed.load(Ordering::Acquire);
        let mut flushed = self.flushed.lock().await;
        if flushed.commits >= mine {
            return Ok(());
        }
        let all = self.committed.load(Ordering::Acquire);
        let (log, named) = (self.log.clone(), flushed.named);
        let named = tokio::task::spawn_blocking(move || flush(&log, named)).await??;
        *flushed = Flushed { commits: all, named };
        Ok(())
    }
}

/// Flushes the log, and its directory unless the log's name is `named` there for sure; says whether
/// it is now.
fn flush(log: &Path, named: bool) -> io::Result<bool> {
    match File::open(log) {
        // A checkpoint flushed everything and the log was not needed since. The next one is a new
        // file, whose name has to be flushed again.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?.sync_data()?,
    }
    // Its name has to last too; SQLite sees to that only when it flushes itself.
    match log.parent().filter(|_| !named) {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all()?,
        Some(_) => File::open(".")?.sync_all()?,
        None => {}
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn waiting_together_counts_every_commit_and_a_missing_log_is_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let flusher = Arc::new(Flusher::new(&dir.path().join("records.db")));
        flusher.committed();
        flusher.wait().await.unwrap();
        // There was nothing to flush, nor a name.
        assert!(!flusher.flushed.lock().await.named);
        std::fs::write(dir.path().join("records.db-wal"), b"frames").unwrap();
        let waits = (0..64).map(|_| {
            let flusher = Arc::clone(&flusher);
            flusher.committed();
            tokio::spawn(async move { flusher.wait().await })
        });
        for wait in waits.collect::<Vec<_>>() {
            wait.await.unwrap().unwrap();
        }
        let flushed = flusher.flushed.lock().await;
        assert_eq!((flushed.commits, flushed.named), (65, true));
        drop(flushed);
        // Nothing was committed since, so that nothing is flushed: the log is not even looked for.
        std::fs::remove_file(dir.path().join("records.db-wal")).unwrap();
        flusher.wait().await.unwrap();
        assert!(flusher.flushed.lock().await.named);
    }

    #[tokio::test]
    async fn the_name_of_a_log_that_was_made_anew_is_flushed_again() {
        let dir = tempfile::tempdir().unwrap();
        let (flusher, log) =
            (Flusher::new(&dir.path().join("records.db")), dir.path().join("records.db-wal"));
        for there in [true, false, true] {
            let _ = std::fs::remove_file(&log);
            if there {
                std::fs::write(&log, b"frames").unwrap();
            }
            flusher.committed();
            flusher.wait().await.unwrap();
            assert_eq!(flusher.flushed.lock().await.named, there);
        }
    }
}
