//! Journals: writing entries with the row that they fold to, and reading them.

use ashlar_core::journal::{Entry, Event, Record};
use ashlar_core::{BuildId, TenantId, Timestamp};
use sqlx::AssertSqlSafe;

use crate::builds::{self, Loaded};
use crate::db::{Row, Tx, args, pieces, placeholders};
use crate::store::retried;
use crate::{Error, Store, codec, follow};

/// Rows that one query reads at a time: bounds memory, since a row may hold many log lines.
const ROWS_AT_ONCE: u32 = 64;

/// Something that happened, with the time at which it did.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamped {
    /// When. Its entry's time is this, or later where that keeps times increasing.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

impl Stamped {
    /// Stamps an event.
    pub const fn new(at: Timestamp, event: Event) -> Self {
        Self { at, event }
    }
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The service: cancels, labels, pins.
    Service,
    /// The worker that holds the build.
    Worker {
        /// The fencing number of its claim.
        fence: u64,
        /// Counts this attempt's batches from 1, so that a batch which is sent again after a broken
        /// connection is written once.
        batch: Option<u64>,
    },
}

/// An entry with the build that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct ScopeEntry {
    /// The build.
    pub build: BuildId,
    /// The entry.
    pub entry: Entry,
}

/// Which entries of a scope to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// The first time.
    pub from: Timestamp,
    /// The time after the last one.
    pub until: Timestamp,
}

/// Applies events to a loaded build and writes them; all or none.
pub(crate) async fn append(
    tx: &mut Tx,
    loaded: &mut Loaded,
    fence: Option<u64>,
    events: impl IntoIterator<Item = Stamped>,
) -> Result<(), Error> {
    let before = loaded.record.clone();
    let mut entries = Vec::new();
    for Stamped { at, event } in events {
        loaded.record.admit(&event, fence)?;
        let time = at.after(Some(loaded.scope_time));
        let entry = Entry { number: loaded.record.next_number, time, event };
        loaded.record.apply(&entry)?;
        loaded.scope_time = time;
        entries.push(entry);
    }
    insert(tx, loaded.position, loaded.scope, &entries).await?;
    crate::queue::after_append(tx, loaded, &before).await?;
    builds::update(tx, loaded, &before).await
}

/// Writes entries as rows.
pub(crate) async fn insert(
    tx: &mut Tx,
    build: i64,
    scope: i64,
    entries: &[Entry],
) -> Result<(), Error> {
    let rows = codec::pack(entries)?;
    for piece in pieces(&rows) {
        let sql = format!(
            "INSERT INTO entries (build, number, count, scope, time, last_time, body) VALUES {}",
            placeholders(1, piece.len(), 7)
        );
        let values = piece.iter().flat_map(|r| {
            args![build, r.number, r.count, scope, r.time, r.last_time, r.body.as_slice()]
        });
        tx.run(AssertSqlSafe(sql), values.collect()).await?;
    }
    Ok(())
}

/// Tells other processes, once the transaction commits.
pub(crate) async fn announce(tx: &mut Tx, build: BuildId) -> Result<(), Error> {
    if tx.is_postgres() {
        let sql = "SELECT pg_notify($1, $2)";
        tx.all(sql, args![follow::CHANNEL, build.to_string()]).await?;
    }
    Ok(())
}

impl Store {
    /// Appends to a build's journal and returns the row after it. All events are written, or none.
    ///
    /// # Errors
    /// [`Error::Refused`] when an event does not belong there: the build has ended, another
    /// attempt holds it, or the state machine forbids it.
    pub async fn append(
        &self,
        build: BuildId,
        writer: Writer,
        events: impl AsRef<[Stamped]> + Send + Sync,
    ) -> Result<Record, Error> {
        retried(|| self.append_once(build, writer, events.as_ref())).await
    }

    async fn append_once(
        &self,
        build: BuildId,
        writer: Writer,
        events: &[Stamped],
    ) -> Result<Record, Error> {
        let mut tx = self.db.write().await?;
        let mut loaded = builds::load(&mut tx, build).await?;
        let fence = match writer {
            Writer::Service => None,
            Writer::Worker { fence, batch } => {
                if let Some(batch) = batch.filter(|_| fence == loaded.record.fence) {
                    if batch <= loaded.batch {
                        return Ok(loaded.record);
                    }
                    loaded.batch = batch;
                }
                Some(fence)
            }
        };
        append(&mut tx, &mut loaded, fence, events.iter().cloned()).await?;
        announce(&mut tx, build).await?;
        tx.commit().await?;
        self.wakeups.wake(build);
        Ok(loaded.record)
    }

    /// Reads a build's journal from an entry's number on, at most `limit` entries.
    ///
    /// # Errors
    /// When the database fails or an entry is damaged.
    pub async fn journal(
        &self,
        build: BuildId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        let sql = "SELECT b.position, (SELECT MAX(e.number) FROM entries e \
                   WHERE e.build = b.position AND e.number <= $2) FROM builds b WHERE b.id = $1";
        let Some(row) = self.db.maybe(sql, args![build, from]).await? else {
            return Ok(Vec::new());
        };
        let (position, mut next) = (row.int(0)?, row.maybe_int(1)?.unwrap_or(0));
        let mut found = Vec::new();
        while found.len() < limit {
            let sql = "SELECT number, time, body, count FROM entries \
                       WHERE build = $1 AND number >= $2 ORDER BY number LIMIT $3";
            let rows = self.db.all(sql, args![position, next, ROWS_AT_ONCE]).await?;
            let Some(last) = rows.last() else { break };
            next = last.int(0)? + last.int(3)?;
            for row in &rows {
                found.extend(entries(row)?.into_iter().filter(|e| e.number >= from));
            }
        }
        found.truncate(limit);
        if let Some(Event::Submitted(s)) = found.first_mut().map(|e| &mut e.event) {
            let sql = "SELECT body FROM definitions WHERE build = $1";
            let row = self.db.maybe(sql, args![position]).await?;
            s.definition = row.ok_or(Error::NoSuchBuild(build))?.json(0, "a definition")?;
        }
        Ok(found)
    }

    /// Returns the number of the first entry of a build at or after a time; the number of the next
    /// entry to come when there is none.
    ///
    /// # Errors
    /// When there is no such build or the database fails.
    pub async fn number_at(&self, build: BuildId, time: Timestamp) -> Result<u64, Error> {
        // The rows of a build are in order of time too: halve the range of numbers.
        let sql = "SELECT b.position, COALESCE((SELECT MAX(e.number + e.count) FROM entries e \
                   WHERE e.build = b.position), 0) FROM builds b WHERE b.id = $1";
        let row = self.db.maybe(sql, args![build]).await?.ok_or(Error::NoSuchBuild(build))?;
        let (position, end) = (row.int(0)?, row.count(1)?);
        let (mut low, mut high) = (0, end);
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(row) = self.row_of(position, middle).await? else { break };
            let (first, count) = (row.count(0)?, row.count(3)?);
            if row.time(4)? < time {
                low = first + count;
            } else if row.time(1)? >= time {
                high = first;
            } else {
                let inside = entries(&row)?.into_iter().find(|e| e.time >= time);
                return Ok(inside.map_or(first + count, |e| e.number));
            }
        }
        Ok(low)
    }

    async fn row_of(&self, position: i64, number: u64) -> Result<Option<Row>, Error> {
        let sql = "SELECT number, time, body, count, last_time FROM entries \
                   WHERE build = $1 AND number <= $2 ORDER BY number DESC LIMIT 1";
        self.db.maybe(sql, args![position, number]).await
    }

    /// Reads the entries of all builds of a scope by time: the first `limit` of a range, or with
    /// `newest_first` the last ones, newest first. Submissions come without their definitions.
    ///
    /// # Errors
    /// When the database fails or an entry is damaged.
    pub async fn scope_journal(
        &self,
        tenant: TenantId,
        scope: &str,
        range: TimeRange,
        limit: usize,
        newest_first: bool,
    ) -> Result<Vec<ScopeEntry>, Error> {
        let sql = "SELECT id FROM scopes WHERE tenant = $1 AND name = $2";
        let Some(row) = self.db.maybe(sql, args![tenant, scope]).await? else {
            return Ok(Vec::new());
        };
        let scope = row.int(0)?;
        let mut found: Vec<ScopeEntry> = Vec::new();
        let mut rest = range;
        while found.len() < limit {
            let rows = self.scope_rows(scope, rest, newest_first).await?;
            let Some(last) = rows.last() else { break };
            match newest_first {
                true => rest.until = last.time(1)?,
                false => rest.from = last.time(4)?.after(Some(last.time(4)?)),
            }
            for row in &rows {
                let build = row.build(5)?;
                let mut entries = entries(row)?;
                if newest_first {
                    entries.reverse();
                }
                let inside = entries.into_iter();
                let inside = inside.filter(|e| e.time >= range.from && e.time < range.until);
                found.extend(inside.map(|entry| ScopeEntry { build, entry }));
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn scope_rows(
        &self,
        scope: i64,
        range: TimeRange,
        newest_first: bool,
    ) -> Result<Vec<Row>, Error> {
        // Rows of a scope never overlap in time, so at most one that ends after the range begins
        // inside of it: the first one that does. It bounds the walk.
        const FORWARD: &str = "SELECT e.number, e.time, e.body, e.count, e.last_time, b.id \
             FROM entries e JOIN builds b ON b.position = e.build \
             WHERE e.scope = $1 AND e.last_time >= $2 AND e.time < $3 AND e.last_time <= COALESCE(\
             (SELECT MIN(n.last_time) FROM entries n WHERE n.scope = $1 AND n.last_time >= $3), \
             9223372036854775807) ORDER BY e.last_time LIMIT $4";
        const BACKWARD: &str = "SELECT e.number, e.time, e.body, e.count, e.last_time, b.id \
             FROM entries e JOIN builds b ON b.position = e.build \
             WHERE e.scope = $1 AND e.last_time >= $2 AND e.time < $3 AND e.last_time <= COALESCE(\
             (SELECT MIN(n.last_time) FROM entries n WHERE n.scope = $1 AND n.last_time >= $3), \
             9223372036854775807) ORDER BY e.last_time DESC LIMIT $4";
        let sql = if newest_first { BACKWARD } else { FORWARD };
        self.db.all(sql, args![scope, range.from, range.until, ROWS_AT_ONCE]).await
    }
}

/// Reads the entries of a row that begins with number, time and body.
fn entries(row: &Row) -> Result<Vec<Entry>, Error> {
    codec::unpack(row.count(0)?, row.time(1)?, &row.bytes(2)?)
}
