//! The open store.

use std::sync::Arc;
use std::time::Duration;

use ashlar_core::journal::Record;

use crate::Error;
use crate::blocks::Blocks;
use crate::db::{Db, Options};
use crate::follow::Wakeups;
use crate::leases::LEASE;
use crate::pages::Pages;
use crate::pressure::Pressure;
use crate::readers::Readers;
use crate::recent::Recent;
use crate::segments::SegmentBlobs;

/// Records, journals and the queue. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Store {
    pub(crate) db: Db,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) recent: Arc<Recent<Record>>,
    pub(crate) pages: Arc<Pages>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) pressure: Arc<Pressure>,
    pub(crate) segments: Option<Arc<dyn SegmentBlobs>>,
    pub(crate) lease: Duration,
}

impl Store {
    /// Opens a SQLite file (made when missing) or a `postgres://` address, and brings its schema
    /// forward. Writes survive a power cut.
    ///
    /// # Errors
    /// When the database cannot be opened, or a newer Ashlar has written it.
    pub async fn open(place: &str) -> Result<Self, Error> {
        Self::open_with(place, Options::default()).await
    }

    /// Opens a database with options.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_with(place: &str, options: Options) -> Result<Self, Error> {
        let db = Db::open(place, options).await?;
        let (wakeups, blocks) = (Arc::new(Wakeups::new()), Arc::default());
        let (recent, readers, pressure) = (Arc::default(), Arc::default(), Arc::default());
        let (pages, segments, lease) = (Arc::default(), None, LEASE);
        Ok(Self { db, wakeups, blocks, recent, pages, readers, pressure, segments, lease })
    }

    /// Says where the logs of ended builds go; without a place they stay in the database.
    #[must_use]
    pub fn with_segments(self, blobs: Arc<dyn SegmentBlobs>) -> Self {
        Self { segments: Some(blobs), ..self }
    }

    /// Closes all connections; a SQLite file is left without a write-ahead log.
    pub async fn close(&self) {
        self.db.close().await;
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.db {
            Db::Sqlite(_) => "sqlite",
            Db::Postgres(_) => "postgres",
        };
        f.debug_struct("Store").field("database", &kind).finish_non_exhaustive()
    }
}

/// How often a transaction that lost a race is begun again.
const RACES_MAX: u32 = 8;

/// Does something again when PostgreSQL chose it as the victim of a deadlock. Nothing of it was
/// kept then. It is rare: locks are taken in a fixed order but where one transaction changes
/// several builds.
pub(crate) async fn retried<T, F>(mut what: impl FnMut() -> F + Send) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>> + Send,
{
    for _ in 1..RACES_MAX {
        match what().await {
            Err(error) if error.lost_race() => {}
            other => return other,
        }
    }
    what().await
}
