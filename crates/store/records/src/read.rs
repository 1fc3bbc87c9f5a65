//! Reading journals: by number, by time, by scope.

use std::collections::VecDeque;
use std::sync::Arc;

use ashlar_core::journal::{Entry, Event};
use ashlar_core::{BuildId, TenantId, Timestamp};

use crate::codec::{self, Place, Plain, Pointer};
use crate::db::{Row, args};
use crate::most::entry_bytes;
use crate::{Error, Most, Store};

/// Rows that one query reads.
const ROWS_AT_ONCE: u32 = 256;
/// Rows of a scope that one query reads, with their bodies.
const SCOPE_ROWS_AT_ONCE: u32 = 16;
/// Larger bodies are read one by one, and only when nobody else read them lately.
pub(crate) const BODY_BYTES_SMALL: u32 = 4096;
/// Entries that are taken apart on the readers' own threads, and not at once.
const ENTRIES_FEW: u64 = 64;

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

/// A row as it lies in the database.
#[derive(Debug)]
pub(crate) struct RawRow {
    pub(crate) place: Place,
    /// Empty when it was too large to be read with others.
    pub(crate) body: Vec<u8>,
    /// Bytes of the body, read or not.
    pub(crate) length: u64,
}

impl RawRow {
    /// Reads a row that begins with number, count, time and body.
    pub(crate) fn of(row: &Row) -> Result<Self, Error> {
        let place = Place { number: row.count(0)?, count: row.count(1)?, time: row.time(2)? };
        if place.count == 0 {
            return Err(Error::damaged(format!("entry {}", place.number), "its row is empty"));
        }
        let body = row.maybe_bytes(3)?.unwrap_or_default();
        Ok(Self { place, length: body.len() as u64, body })
    }

    /// As [`RawRow::of`], of a row whose body is left out when it is large, with its length behind.
    pub(crate) fn with_length(row: &Row) -> Result<Self, Error> {
        Ok(Self { length: row.count(4)?, ..Self::of(row)? })
    }

    /// Returns the body, if it is small enough to be read with others.
    pub(crate) fn small_body(&self) -> Option<&[u8]> {
        (self.length <= u64::from(BODY_BYTES_SMALL)).then_some(&self.body)
    }
}

/// Reads a build's rows in order. It looks only as far ahead as one query goes.
pub(crate) struct RowReader {
    store: Store,
    build: BuildId,
    /// The build's position, once it is known.
    position: Option<i64>,
    /// Number of the first row that was not read yet.
    next: u64,
    rows: VecDeque<RawRow>,
}

impl RowReader {
    /// Begins with the row that holds an entry.
    pub(crate) const fn new(store: Store, build: BuildId, from: u64) -> Self {
        let rows = VecDeque::new();
        Self { store, build, position: None, next: from, rows }
    }

    /// Takes apart the next row, which stays the next one until [`RowReader::advance`]; nothing
    /// when there is none (yet), or no such build.
    pub(crate) async fn open(&mut self) -> Result<Option<(Place, Arc<Plain>)>, Error> {
        if self.rows.is_empty() {
            self.fetch().await?;
        }
        let position = self.position.unwrap_or(0);
        let Some(row) = self.rows.front_mut() else { return Ok(None) };
        if let Some(plain) = self.store.blocks.get(position, row) {
            return Ok(Some((row.place, plain)));
        }
        if row.body.is_empty() {
            let number = row.place.number;
            let now = self.store.row_of(position, number).await?;
            let now = now.ok_or(Error::NoSuchBuild(self.build))?;
            if now.place != row.place {
                // Meanwhile the row became part of a frame, and so did some of those behind it.
                self.next = now.place.number + now.place.count;
                self.rows.clear();
                self.rows.push_front(now);
            } else {
                *row = now;
            }
        }
        let Some(row) = self.rows.front() else { return Ok(None) };
        let plain = self.store.open_row(position, row).await?;
        Ok(Some((row.place, plain)))
    }

    /// Goes on to the next row that may hold an event, and says whether there is one (yet).
    async fn skip_logs(&mut self) -> Result<bool, Error> {
        loop {
            if self.rows.is_empty() {
                self.fetch().await?;
            }
            let Some(row) = self.rows.front() else { return Ok(false) };
            if row.place.count == 1 && !codec::holds_log(&row.body) {
                return Ok(true);
            }
            self.advance();
        }
    }

    /// Says whether the next row's log lines were removed, as far as was read of it.
    async fn is_removed(&mut self) -> Result<bool, Error> {
        if self.rows.is_empty() {
            self.fetch().await?;
        }
        Ok(self.rows.front().is_some_and(|row| codec::is_removed(&row.body)))
    }

    /// Goes on to the row after.
    pub(crate) fn advance(&mut self) {
        self.rows.pop_front();
    }

    async fn fetch(&mut self) -> Result<(), Error> {
        let position = match self.position {
            Some(position) => position,
            None => match self.locate().await? {
                Some(position) => *self.position.insert(position),
                None => return Ok(()),
            },
        };
        let sql = "SELECT number, count, time, \
                   CASE WHEN LENGTH(body) <= $4 THEN body END, \
                   CAST(LENGTH(body) AS BIGINT) FROM entries \
                   WHERE build = $1 AND number >= $2 ORDER BY number LIMIT $3";
        let values = args![position, self.next, ROWS_AT_ONCE, BODY_BYTES_SMALL];
        let rows = self.store.db.all(sql, values).await?;
        let rows = rows.iter().map(RawRow::with_length).collect::<Result<VecDeque<_>, _>>()?;
        if let Some(last) = rows.back() {
            self.next = last.place.number + last.place.count;
        }
        self.rows = rows;
        Ok(())
    }

    /// Finds the build, and the row that holds the first wanted entry.
    async fn locate(&mut self) -> Result<Option<i64>, Error> {
        let sql = "SELECT b.position, (SELECT MAX(e.number) FROM entries e \
                   WHERE e.build = b.position AND e.number <= $2) FROM builds b WHERE b.id = $1";
        let row = self.store.db.maybe(sql, args![self.build, self.next]).await?;
        let Some(row) = row else { return Ok(None) };
        if let Some(number) = row.maybe_int(1)? {
            self.next = u64::try_from(number).unwrap_or(0);
        }
        row.int(0).map(Some)
    }
}

/// Reads a build's entries in order.
pub(crate) struct EntryReader {
    rows: RowReader,
    /// The row that is being read.
    open: Option<(Place, Arc<Plain>)>,
    /// Number of the next entry.
    next: u64,
    /// Whether log lines that were removed are entries still, empty ones.
    whole: bool,
}

impl EntryReader {
    /// Reads all entries, for their numbers and times: of removed log lines too.
    pub(crate) const fn new(store: Store, build: BuildId, from: u64) -> Self {
        Self { rows: RowReader::new(store, build, from), open: None, next: from, whole: true }
    }

    /// Leaves out log lines that were removed: whoever reads what was said has nothing from them.
    pub(crate) fn without_removed(self) -> Self {
        Self { whole: false, ..self }
    }

    /// Appends the next entries until there are `limit`, or no more (yet). When it is cancelled,
    /// what it appended counts as read.
    pub(crate) async fn read(&mut self, limit: usize, found: &mut Vec<Entry>) -> Result<(), Error> {
        self.read_within(Most::entries(limit), found).await
    }

    /// As [`EntryReader::read`], within bounds.
    pub(crate) async fn read_within(
        &mut self,
        most: Most,
        found: &mut Vec<Entry>,
    ) -> Result<(), Error> {
        let mut left = Most { entries: most.entries.saturating_sub(found.len()), ..most };
        while !left.is_reached() {
            let Some((place, plain)) = &self.open else {
                if !self.open_next().await? {
                    break;
                }
                continue;
            };
            let (place, plain) = (*place, Arc::clone(plain));
            let (part, rest) = self.rows.store.entries(place, plain, self.next, left).await?;
            left = rest;
            self.next = part.last().map_or(self.next, |e| e.number + 1);
            found.extend(part);
            if self.next >= place.number + place.count || !left.is_reached() {
                self.open = None;
            }
        }
        self.define(found).await
    }

    /// Opens the next row, or leaves it out; says whether there was one.
    async fn open_next(&mut self) -> Result<bool, Error> {
        let known = !self.whole && self.rows.is_removed().await?;
        if !known {
            let Some(opened) = self.rows.open().await? else { return Ok(false) };
            // It may have been removed just now.
            self.open = (self.whole || !self.rows.is_removed().await?).then_some(opened);
        }
        self.rows.advance();
        Ok(true)
    }

    /// Puts the definition into a submission, which is kept without.
    async fn define(&self, found: &mut [Entry]) -> Result<(), Error> {
        if let Some(Entry { event: Event::Submitted(s), .. }) = found.first_mut()
            && s.definition.is_null()
        {
            let sql = "SELECT body FROM definitions WHERE build = $1";
            let row = self.rows.store.db.maybe(sql, args![self.rows.position.unwrap_or(0)]).await?;
            s.definition = row.ok_or(Error::NoSuchBuild(s.build))?.json(0, "a definition")?;
        }
        Ok(())
    }
}

impl Store {
    /// Reads a build's journal from an entry's number on, at most `limit` entries. Numbers of log
    /// lines that were removed ([`Store::log_removed`]) are missing.
    ///
    /// # Errors
    /// When the database fails or an entry is damaged.
    pub async fn journal(
        &self,
        build: BuildId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.journal_within(build, from, Most::entries(limit)).await
    }

    /// As [`Store::journal`], within bounds: for answers that are made in memory.
    ///
    /// # Errors
    /// As [`Store::journal`].
    pub async fn journal_within(
        &self,
        build: BuildId,
        from: u64,
        most: Most,
    ) -> Result<Vec<Entry>, Error> {
        let mut found = Vec::new();
        let mut reader = EntryReader::new(self.clone(), build, from).without_removed();
        reader.read_within(most, &mut found).await?;
        Ok(found)
    }

    /// Reads what happened to a build without what was said: the entries of its journal that are
    /// no log lines, from a number on, at most `limit`. Submissions come without their definitions.
    ///
    /// # Errors
    /// When the database fails or an entry is damaged.
    pub async fn events(
        &self,
        build: BuildId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        let mut rows = RowReader::new(self.clone(), build, from);
        let mut found = Vec::new();
        while found.len() < limit && rows.skip_logs().await? {
            let Some((place, plain)) = rows.open().await? else { break };
            rows.advance();
            plain.each(&place, from, &mut |entry| {
                if !matches!(entry.event, Event::Log(_)) {
                    found.push(entry);
                }
                true
            })?;
        }
        Ok(found)
    }

    /// Takes a row's body apart, from memory when it was read lately.
    pub(crate) async fn open_row(&self, position: i64, row: &RawRow) -> Result<Arc<Plain>, Error> {
        if let Some(plain) = self.blocks.get(position, row) {
            return Ok(plain);
        }
        let plain = match Pointer::of(&row.body) {
            None => Plain::of(&row.place, &row.body)?,
            Some(pointer) => self.frame(&row.place, pointer).await?,
        };
        Ok(self.blocks.keep(position, row, plain))
    }

    /// Reads the row that holds an entry.
    pub(crate) async fn row_of(&self, position: i64, number: u64) -> Result<Option<RawRow>, Error> {
        let sql = "SELECT number, count, time, body FROM entries \
                   WHERE build = $1 AND number <= $2 ORDER BY number DESC LIMIT 1";
        let row = self.db.maybe(sql, args![position, number]).await?;
        row.as_ref().map(RawRow::of).transpose()
    }

    /// Returns the entries of a row from a number on, and how much more is wanted then. Many are
    /// taken apart on threads that give way to all others.
    async fn entries(
        &self,
        place: Place,
        plain: Arc<Plain>,
        from: u64,
        most: Most,
    ) -> Result<(Vec<Entry>, Most), Error> {
        let take = move || {
            let (mut found, mut left) = (Vec::new(), most);
            let take = &mut |entry| {
                left.take(entry_bytes(&entry, plain.bytes().len()));
                found.push(entry);
                !left.is_reached()
            };
            plain.each(&place, from, take).map(|()| (found, left))
        };
        if place.count <= ENTRIES_FEW {
            return take();
        }
        self.pressure.give_way().await;
        self.readers.run(take).await?
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
            let sql = "SELECT number, count, time, last_time FROM entries \
                       WHERE build = $1 AND number <= $2 ORDER BY number DESC LIMIT 1";
            let Some(row) = self.db.maybe(sql, args![position, middle]).await? else { break };
            let (first, count) = (row.count(0)?, row.count(1)?);
            if row.time(3)? < time {
                low = first + count;
            } else if row.time(2)? >= time {
                high = first;
            } else {
                return self.first_at(build, first, time).await;
            }
        }
        Ok(low)
    }

    /// Returns the number of the first entry at or after a time in the row that has an entry.
    async fn first_at(&self, build: BuildId, number: u64, time: Timestamp) -> Result<u64, Error> {
        let mut reader = EntryReader::new(self.clone(), build, number);
        let mut found = Vec::new();
        loop {
            found.clear();
            reader.read(ROWS_AT_ONCE as usize, &mut found).await?;
            if let Some(entry) = found.iter().find(|e| e.time >= time) {
                return Ok(entry.number);
            }
            if found.is_empty() {
                return Ok(reader.next);
            }
        }
    }

    /// Reads the entries of all builds of a scope by time, but removed log lines: the first `limit`
    /// of a range, or with `newest_first` the last ones, newest first. Submissions come without their definitions.
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
                true => rest.until = last.time(2)?,
                false => rest.from = last.time(4)?.after(Some(last.time(4)?)),
            }
            for row in &rows {
                if found.len() < limit {
                    let left = limit - found.len();
                    found.extend(self.scope_entries(row, range, left, newest_first).await?);
                }
            }
        }
        Ok(found)
    }

    /// Returns the first or last entries of a row within a range of time.
    async fn scope_entries(
        &self,
        row: &Row,
        range: TimeRange,
        limit: usize,
        newest_first: bool,
    ) -> Result<Vec<ScopeEntry>, Error> {
        let (build, position, raw) = (row.build(5)?, row.int(6)?, RawRow::of(row)?);
        let place = raw.place;
        if codec::is_removed(&raw.body) {
            return Ok(Vec::new());
        }
        let plain = self.open_row(position, &raw).await?;
        let mut found = VecDeque::new();
        plain.each(&place, place.number, &mut |entry| {
            if entry.time >= range.until {
                return false;
            }
            if entry.time >= range.from {
                found.push_back(ScopeEntry { build, entry });
            }
            if found.len() > limit {
                // Only the last ones are wanted when there can be more of them.
                found.pop_front();
            }
            newest_first || found.len() < limit
        })?;
        Ok(if newest_first { found.into_iter().rev().collect() } else { found.into() })
    }

    async fn scope_rows(
        &self,
        scope: i64,
        range: TimeRange,
        newest_first: bool,
    ) -> Result<Vec<Row>, Error> {
        // Rows of a scope never overlap in time, so at most one that ends after the range begins
        // inside of it: the first one that does. It bounds the walk.
        const FORWARD: &str = "SELECT e.number, e.count, e.time, e.body, e.last_time, b.id, e.build \
             FROM entries e JOIN builds b ON b.position = e.build \
             WHERE e.scope = $1 AND e.last_time >= $2 AND e.time < $3 AND e.last_time <= COALESCE(\
             (SELECT MIN(n.last_time) FROM entries n WHERE n.scope = $1 AND n.last_time >= $3), \
             9223372036854775807) ORDER BY e.last_time LIMIT $4";
        const BACKWARD: &str = "SELECT e.number, e.count, e.time, e.body, e.last_time, b.id, e.build \
             FROM entries e JOIN builds b ON b.position = e.build \
             WHERE e.scope = $1 AND e.last_time >= $2 AND e.time < $3 AND e.last_time <= COALESCE(\
             (SELECT MIN(n.last_time) FROM entries n WHERE n.scope = $1 AND n.last_time >= $3), \
             9223372036854775807) ORDER BY e.last_time DESC LIMIT $4";
        let sql = if newest_first { BACKWARD } else { FORWARD };
        self.db.all(sql, args![scope, range.from, range.until, SCOPE_ROWS_AT_ONCE]).await
    }
}
