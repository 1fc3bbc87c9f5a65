//! Wakes those who follow journals.
//!
//! A wake-up only says that a build's journal has grown: whoever gets one reads from the number
//! after the last one it saw, so a lost or doubled wake-up costs a look, never an entry. Writers of
//! this process wake at once. Other processes are heard through `LISTEN` on PostgreSQL; on SQLite
//! a follower looks again every [`POLL`].

use std::mem;
use std::time::Duration;

use ashlar_core::journal::Entry;
use ashlar_core::{BuildId, Timestamp};
use sqlx::postgres::PgListener;
use tokio::sync::broadcast;

use crate::db::Db;
use crate::read::EntryReader;
use crate::{Error, Most, Store};

/// How often a follower looks by itself.
pub const POLL: Duration = Duration::from_millis(250);
/// How often a follower looks although it would be woken: a bound on what a lost wake-up costs.
const SAFETY: Duration = Duration::from_secs(5);
/// Bytes of entries that a follower gets at once about: it holds them until they were sent.
const PIECE_BYTES: usize = 1024 * 1024;
/// Wake-ups that a slow follower may be behind before it just looks again.
const BACKLOG: usize = 1024;
/// PostgreSQL's channel for wake-ups.
pub(crate) const CHANNEL: &str = "ashlar_journal";

/// The wake-ups of one process.
pub(crate) struct Wakeups {
    sender: broadcast::Sender<BuildId>,
}

impl Wakeups {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG) }
    }

    pub(crate) fn wake(&self, build: BuildId) {
        // Nobody may be listening; that is no fault.
        let _ = self.sender.send(build);
    }
}

impl Store {
    /// Returns the ids of builds whose journals grow, from now on. A lagging receiver has missed
    /// some and should look at all it cares for.
    pub fn wakeups(&self) -> broadcast::Receiver<BuildId> {
        self.wakeups.sender.subscribe()
    }

    /// Passes on the wake-ups of other processes until the connection breaks for good. Returns at
    /// once on SQLite, which has none. Run it as a task of its own, once a process.
    ///
    /// # Errors
    /// When PostgreSQL cannot be listened to; call it again.
    pub async fn relay_wakeups(&self) -> Result<(), Error> {
        let Db::Postgres(pool) = &self.db else { return Ok(()) };
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        loop {
            if let Ok(build) = listener.recv().await?.payload().parse() {
                self.wakeups.wake(build);
            }
        }
    }

    /// Follows a build's journal from an entry's number on.
    pub fn follow(&self, build: BuildId, from: u64) -> Follower {
        let reader = EntryReader::new(self.clone(), build, from).without_removed();
        let (wakeups, store) = (self.wakeups(), self.clone());
        Follower { wakeups, store, build, reader, found: Vec::new() }
    }

    const fn poll(&self) -> Duration {
        match self.db {
            Db::Sqlite(_) => POLL,
            Db::Postgres(_) => SAFETY,
        }
    }
}

/// Reads a journal while it grows.
pub struct Follower {
    store: Store,
    wakeups: broadcast::Receiver<BuildId>,
    build: BuildId,
    reader: EntryReader,
    /// What was read by a call that was cancelled then.
    found: Vec<Entry>,
}

impl Follower {
    /// Returns the next entries, at least one and at most `limit`, fewer when they are long; waits
    /// for them. Nothing is returned only when the build has ended and all its entries were. Resume
    /// after a break with the number after the last entry seen. Safe to cancel.
    ///
    /// # Errors
    /// When there is no such build (any more) or the database fails.
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Entry>, Error> {
        let most = Most { entries: limit, bytes: PIECE_BYTES };
        loop {
            self.reader.read_within(most, &mut self.found).await?;
            if self.found.is_empty() {
                // The state first: an entry written in between is then found, not missed.
                let ended = self.store.ended(self.build).await?;
                self.reader.read_within(most, &mut self.found).await?;
                if self.found.is_empty() && ended.is_none() {
                    self.wait().await;
                    continue;
                }
            }
            return Ok(mem::take(&mut self.found));
        }
    }

    async fn wait(&mut self) {
        let ours = async {
            loop {
                match self.wakeups.recv().await {
                    Ok(build) if build != self.build => {}
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        // Silence only means that it is time to look.
        let _ = tokio::time::timeout(self.store.poll(), ours).await;
    }
}

impl Store {
    /// Returns when the build ended, if it has.
    async fn ended(&self, build: BuildId) -> Result<Option<Timestamp>, Error> {
        let sql = "SELECT finished_at FROM builds WHERE id = $1";
        let row = self.db.maybe(sql, crate::db::args![build]).await?;
        row.ok_or(Error::NoSuchBuild(build))?.maybe_time(0)
    }
}
