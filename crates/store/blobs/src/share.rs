//! Between the data directory and a store elsewhere: what is missing here is fetched, and what must
//! last is sent.
//!
//! # Safe against a collector of garbage
//! A blob that is about to be referred to must not be collected elsewhere at that moment. A collector
//! spares what is younger than [`AGE_MIN`]; [`BlobStore::keep`] therefore sends a blob again that
//! is older than a half of that, and believes in what it saw for a quarter. That leaves the moment
//! between a collector's last look and its removal: for that the collector and those who refer to
//! blobs have to agree with each other, as the service does in its database.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ashlar_core::Digest;

use crate::error::{BlobError, Result};
use crate::ingest;
use crate::remote::{Remote, RemoteError};
use crate::store::BlobStore;

/// What a collector of garbage must spare: blobs that were stored or sent again in this time.
pub const AGE_MIN: Duration = Duration::from_secs(24 * 3600);
/// Blobs that are sent or fetched at once.
const AT_ONCE: usize = 16;
/// Blobs up to this size are sent without asking first whether they are there.
const SMALL_BYTES: u64 = 64 << 10;
/// Blobs whose presence is remembered.
const SEEN_MAX: usize = 1 << 20;

/// What this process knows of the store elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Stored here, and not known to be elsewhere.
    waiting: BTreeSet<Digest>,
    /// Being sent right now.
    under_way: BTreeSet<Digest>,
    /// Seen elsewhere, young enough, at this moment.
    seen: HashMap<Digest, Instant>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in between can fail: a panic leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stored(&self, digest: Digest) {
        self.lock().waiting.insert(digest);
    }

    pub(crate) fn waiting(&self) -> Vec<Digest> {
        let state = self.lock();
        state.waiting.union(&state.under_way).copied().collect()
    }

    /// Takes the turn to send a blob, or says that it need not be sent.
    fn take(&self, digest: &Digest) -> Option<Turn<'_>> {
        let mut state = self.lock();
        loop {
            if state.seen.get(digest).is_some_and(|at| at.elapsed() < AGE_MIN / 4) {
                return None;
            }
            if state.under_way.insert(*digest) {
                return Some(Turn { shared: self, digest: *digest, is_sent: false });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn saw(&self, digest: Digest) {
        let mut state = self.lock();
        state.waiting.remove(&digest);
        if state.seen.len() >= SEEN_MAX {
            state.seen.clear();
        }
        state.seen.insert(digest, Instant::now());
    }

    /// Forgets that a blob was seen elsewhere.
    fn unsee(&self, digest: &Digest) {
        self.lock().seen.remove(digest);
    }

    /// Forgets a blob whose file here is gone.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.lock().waiting.remove(digest);
    }
}

/// The right to send one blob; others who need it wait.
struct Turn<'a> {
    shared: &'a Shared,
    digest: Digest,
    is_sent: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.is_sent {
            self.shared.saw(self.digest);
        }
        self.shared.lock().under_way.remove(&self.digest);
        self.shared.changed.notify_all();
    }
}

impl BlobStore {
    /// Makes blobs last before a record names them: on the disk, or where there is a store
    /// elsewhere, there. A blob that is only elsewhere is fine too.
    ///
    /// # Errors
    /// [`BlobError::Missing`] when one is nowhere; [`BlobError::Remote`]; when a flush fails.
    pub fn keep(&self, digests: &[Digest]) -> Result<()> {
        self.keep_while(digests, || true).map(drop)
    }

    /// As [`keep`](Self::keep), asking before each blob whether to go on; says whether all were
    /// kept.
    ///
    /// # Errors
    /// As [`keep`](Self::keep).
    pub fn keep_while(&self, digests: &[Digest], go_on: impl Fn() -> bool + Sync) -> Result<bool> {
        let Some(remote) = self.remote() else { return self.flush_all(digests).map(|()| true) };
        at_once(digests, go_on, |digest| match self.shared().take(digest) {
            None => Ok(()),
            Some(mut turn) => {
                self.send(&**remote, digest)?;
                turn.is_sent = true;
                Ok(())
            }
        })
    }

    /// Forgets that a blob was seen elsewhere, where it is being removed.
    pub fn forget_elsewhere(&self, digest: &Digest) {
        self.shared().unsee(digest);
    }

    /// Sends all that was stored here and not sent yet.
    pub(crate) fn send_waiting(&self) -> Result<()> {
        let always = || true;
        let sent = at_once(&self.shared().waiting(), always, |digest| {
            match self.keep(std::slice::from_ref(digest)) {
                // Another process of this data directory has removed it: nobody can send it.
                Err(BlobError::Missing(_)) => {
                    self.shared().forget(digest);
                    Ok(())
                }
                other => other,
            }
        });
        sent.map(drop)
    }

    /// Fetches blobs that are missing here, several at a time, asking before each whether to go on;
    /// says whether all are here.
    ///
    /// # Errors
    /// As [`open_read`](Self::open_read).
    pub fn bring_while(&self, digests: &[Digest], go_on: impl Fn() -> bool + Sync) -> Result<bool> {
        match self.remote() {
            None => Ok(true),
            Some(_) => at_once(digests, go_on, |digest| self.open_read(digest).map(drop)),
        }
    }

    fn send(&self, remote: &dyn Remote, digest: &Digest) -> Result<()> {
        let size = self.local_size(digest)?;
        if size.is_none_or(|size| size > SMALL_BYTES)
            && let Some(there) = asked(remote.look(digest))?
            && size.is_none_or(|size| size == there.size)
            && is_young(there.modified)
        {
            return Ok(());
        }
        let mut file = self.open_read(digest)?;
        let size = self.stat(digest)?.size;
        match remote.upload(digest, &mut file, size) {
            // The file here is damaged: this sets it aside and says so.
            Err(RemoteError::Mismatch { expected, actual }) => {
                self.verify(digest)?;
                Err(BlobError::Mismatch { expected, actual })
            }
            other => asked(other),
        }
    }

    /// Fetches one blob; what an earlier try left is gone on with.
    pub(crate) fn fetch(&self, remote: &dyn Remote, digest: &Digest) -> Result<()> {
        let Some(mut ingest) = ingest::claim_waiting(self, digest)? else { return Ok(()) };
        let resumed = ingest.size() > 0;
        asked(remote.fetch(digest, ingest.size(), &mut ingest))?;
        match ingest.commit() {
            // What an earlier try left may be what is wrong.
            Err(BlobError::Mismatch { .. }) if resumed => {
                asked(remote.fetch(digest, 0, &mut ingest))?;
                ingest.commit()
            }
            other => other,
        }
        .map(|_| self.shared().forget(digest))
        .map_err(|e| match e {
            BlobError::Mismatch { expected, actual } => {
                tracing::error!(digest = %expected, %actual, "the blob store has a damaged blob");
                BlobError::RemoteCorrupt { digest: expected, actual }
            }
            other => other,
        })
    }
}

/// Tells a blob that the store elsewhere lacks, or is another one, from a failure of the store.
pub(crate) fn asked<T>(result: Result<T, RemoteError>) -> Result<T> {
    result.map_err(|error| match error {
        RemoteError::Missing(digest) => BlobError::Missing(digest),
        RemoteError::Mismatch { expected, actual } => BlobError::Mismatch { expected, actual },
        error => BlobError::Remote(error),
    })
}

fn is_young(modified: SystemTime) -> bool {
    // A clock elsewhere that is ahead of ours makes no blob old.
    modified.elapsed().unwrap_or_default() < AGE_MIN / 2
}

/// Does something with each digest on a few threads, for as long as `go_on` says so; the first
/// failure ends all. Says whether it was done with each.
fn at_once(
    digests: &[Digest],
    go_on: impl Fn() -> bool + Sync,
    work: impl Fn(&Digest) -> Result<()> + Sync,
) -> Result<bool> {
    if let [one] = digests {
        return if go_on() { work(one).map(|()| true) } else { Ok(false) };
    }
    let next = Mutex::new(digests.iter());
    let failed: Mutex<Option<BlobError>> = Mutex::default();
    let broken_off = AtomicBool::new(false);
    let one_thread = || {
        loop {
            let digest = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(digest) = digest else { return };
            if !go_on() {
                broken_off.store(true, Ordering::Relaxed);
                return;
            }
            if let Err(error) = work(digest) {
                *next.lock().unwrap_or_else(PoisonError::into_inner) = [].iter();
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(digests.len()) {
            scope.spawn(one_thread);
        }
    });
    let all = !broken_off.into_inner();
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(all), Err)
}
