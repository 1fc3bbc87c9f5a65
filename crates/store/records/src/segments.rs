//! Logs of ended builds as blobs.
//!
//! While a build runs its log lies in rows, where appending is quick. Afterwards
//! [`Store::move_logs`] joins rows that follow each other to frames and frames to segments, puts
//! those into the blob store, and replaces the rows by one a frame that points there: so entries
//! are found by number, by time and by scope as before, and only whoever reads a log line asks the
//! blob store. A segment is zstd frames in the seekable format ([`crate::segment`]).
//!
//! The blob is durable before the transaction that replaces the rows begins. A crash in between
//! leaves a blob that nobody refers to. The right to it that kept it until then lapses when it was
//! not used for some days, and it is garbage like any other then; each attempt makes another blob.

use std::io;
use std::sync::Arc;

use ashlar_core::{BuildId, Digest, Timestamp};

use crate::builds::{self, Loaded};
use crate::codec::frame::FrameBuilder;
use crate::codec::{self, Packed, Place, Plain, Pointer};
use crate::db::{Tx, args};
use crate::journal::{self, Stamped};
use crate::kept::{self, Held, Holder, Kept};
use crate::read::RawRow;
use crate::removed::LogRemoved;
use crate::segment::SegmentBuilder;
use crate::store::retried;
use crate::{Error, Store, random};

/// A log of fewer bytes (as rows) stays in the database: a file for each small build costs more
/// than it saves.
pub const SEGMENT_BYTES_MIN: u64 = 32 * 1024;
/// A segment ends once it has so many bytes: it is put together in memory.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;
/// Rows that one query reads.
const ROWS_AT_ONCE: u32 = 32;
/// Other builds' rows between those of one query that are looked at; behind the last one of them
/// frames are not joined.
const BETWEEN_MAX: u32 = 1000;
/// Builds that one call looks at.
const BUILDS_AT_ONCE: u32 = 16;

/// Where segments are kept. The calls block.
pub trait SegmentBlobs: Send + Sync {
    /// Keeps bytes under their digest. On return they survive a power cut and can be read by all
    /// who share the database.
    ///
    /// # Errors
    /// When they cannot be kept.
    fn put(&self, digest: &Digest, bytes: &[u8]) -> io::Result<()>;

    /// Reads a range of bytes.
    ///
    /// # Errors
    /// When the blob is not there, is shorter or cannot be read.
    fn get(&self, digest: &Digest, offset: u64, length: u64) -> io::Result<Vec<u8>>;
}

/// A frame of a segment that takes the place of rows.
struct Moved {
    place: Place,
    last_time: Timestamp,
    rows: u64,
    offset: u64,
    length: u64,
}

impl Store {
    /// Moves the logs of some ended builds into the blob store, from a place on (0 is the first).
    /// Returns the place to go on from; none when there was nothing more to do. Without a blob
    /// store ([`Store::with_segments`]) nothing is moved.
    ///
    /// # Errors
    /// When the database or the blob store fails; nothing is lost, call it again later.
    pub async fn move_logs(&self, from: u64) -> Result<Option<u64>, Error> {
        if self.segments.is_none() {
            return Ok(None);
        }
        let sql = "SELECT e.build, (SELECT b.id FROM builds b WHERE b.position = e.build) \
                   FROM ended_logs e WHERE e.build >= $1 ORDER BY e.build LIMIT $2";
        let rows = self.db.all(sql, args![from, BUILDS_AT_ONCE]).await?;
        for row in &rows {
            let (position, build) = (row.int(0)?, row.build(1)?);
            match self.move_log(position, build).await {
                // One damaged journal must not keep the others where they are.
                Err(error @ Error::Damaged { .. }) => {
                    tracing::warn!(%build, %error, "a log stays in the database");
                }
                other => other?,
            }
            let sql = "DELETE FROM ended_logs WHERE build = $1";
            self.db.run(sql, args![position]).await?;
        }
        let last = rows.last().map(|row| row.count(0)).transpose()?;
        Ok(last.map(|position| position + 1))
    }

    async fn move_log(&self, position: i64, build: BuildId) -> Result<(), Error> {
        let sql = "SELECT CAST(COALESCE(SUM(LENGTH(body)), 0) AS BIGINT) FROM entries \
                   WHERE build = $1";
        let bytes = self.db.maybe(sql, args![position]).await?.map_or(Ok(0), |r| r.count(0))?;
        if bytes < SEGMENT_BYTES_MIN {
            return Ok(());
        }
        let sql = "SELECT scope FROM builds WHERE position = $1";
        let Some(row) = self.db.maybe(sql, args![position]).await? else { return Ok(()) };
        let mut mover = Mover {
            store: self.clone(),
            position,
            build,
            scope: row.int(0)?,
            frame: FrameBuilder::default(),
            rows: 0,
            segment: SegmentBuilder::new(&random::bytes()?),
            moved: Vec::new(),
        };
        mover.run().await
    }

    /// Reads a frame.
    pub(crate) async fn frame(
        &self,
        place: &Place,
        pointer: Option<Pointer>,
    ) -> Result<Plain, Error> {
        let damaged = || Error::damaged(format!("entry {}", place.number), "its pointer is cut");
        let Pointer { segment, offset, length } = pointer.ok_or_else(damaged)?;
        let failed = |source| Error::Segment { digest: segment, source };
        let Some(blobs) = self.segments.clone() else {
            return Err(failed(io::Error::other("no blob store is configured")));
        };
        let read = tokio::task::spawn_blocking(move || blobs.get(&segment, offset, length));
        let bytes = read.await.map_err(io::Error::other).flatten().map_err(failed)?;
        Plain::of_frame(place, &bytes)
    }
}

/// Moves the log of one build.
struct Mover {
    store: Store,
    position: i64,
    build: BuildId,
    scope: i64,
    frame: FrameBuilder,
    /// Rows in the frame.
    rows: u64,
    segment: SegmentBuilder,
    moved: Vec<Moved>,
}

impl Mover {
    async fn run(&mut self) -> Result<(), Error> {
        let mut next = 0;
        loop {
            let rows = self.read(next).await?;
            let Some((last, _)) = rows.last() else { break };
            next = last.place.number + last.place.count;
            let between = self.between(&rows).await?;
            let mut before = None;
            for (row, last_time) in rows {
                // Frames must not overlap with other rows of the scope in time.
                let apart = before.is_none_or(|b| between.lie_between(b, row.place.time));
                before = Some(last_time);
                self.take(&row, last_time, apart)?;
            }
            if self.segment.len() >= SEGMENT_BYTES {
                self.end_frame()?;
                self.put().await?;
            }
        }
        self.end_frame()?;
        self.put().await
    }

    /// Reads rows with the times of their last entries.
    async fn read(&self, from: u64) -> Result<Vec<(RawRow, Timestamp)>, Error> {
        let sql = "SELECT number, count, time, body, last_time FROM entries \
                   WHERE build = $1 AND number >= $2 ORDER BY number LIMIT $3";
        let rows = self.store.db.all(sql, args![self.position, from, ROWS_AT_ONCE]).await?;
        rows.iter().map(|row| Ok((RawRow::of(row)?, row.time(4)?))).collect()
    }

    /// Returns when other builds of the scope wrote in between.
    async fn between(&self, rows: &[(RawRow, Timestamp)]) -> Result<Between, Error> {
        let (first, last) = match (rows.first(), rows.last()) {
            (Some((first, _)), Some((_, last))) => (first.place.time, *last),
            _ => return Ok(Between { times: Vec::new(), known_until: Timestamp::default() }),
        };
        let sql = "SELECT last_time FROM entries WHERE scope = $1 AND last_time > $2 \
                   AND last_time < $3 AND build <> $4 ORDER BY last_time LIMIT $5";
        let values = args![self.scope, first, last, self.position, BETWEEN_MAX];
        let rows = self.store.db.all(sql, values).await?;
        let times = rows.iter().map(|r| r.time(0)).collect::<Result<Vec<_>, _>>()?;
        let cut = times.len() == BETWEEN_MAX as usize;
        let known_until = times.last().copied().filter(|_| cut).unwrap_or(last);
        Ok(Between { times, known_until })
    }

    fn take(&mut self, row: &RawRow, last_time: Timestamp, apart: bool) -> Result<(), Error> {
        if !codec::is_log(&row.body) {
            return self.end_frame();
        }
        let plain = Plain::of(&row.place, &row.body)?;
        if apart || !self.frame.takes(&row.place, plain.bytes().len()) {
            self.end_frame()?;
        }
        self.frame.push(&row.place, last_time.nanos(), &plain);
        self.rows += 1;
        Ok(())
    }

    fn end_frame(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.rows);
        let Some((place, last, plain)) = self.frame.finish() else { return Ok(()) };
        let frame = codec::frame::compress(&plain).map_err(|e| Error::damaged("a frame", e))?;
        let length = frame.len() as u64;
        let offset = self.segment.push(&frame, plain.len());
        let last_time = Timestamp::from_nanos(last);
        self.moved.push(Moved { place, last_time, rows, offset, length });
        Ok(())
    }

    /// Puts the segment into the blob store, then its frames into the place of the rows.
    async fn put(&mut self) -> Result<(), Error> {
        let next = SegmentBuilder::new(&random::bytes()?);
        let segment = std::mem::replace(&mut self.segment, next);
        let moved = std::mem::take(&mut self.moved);
        let Some(blobs) = self.store.segments.clone().filter(|_| !moved.is_empty()) else {
            return Ok(());
        };
        let bytes = Arc::new(segment.finish());
        let (digest, copy) = (Digest::of(bytes.as_slice()), Arc::clone(&bytes));
        let put = tokio::task::spawn_blocking(move || blobs.put(&digest, &copy)).await;
        put.map_err(io::Error::other)
            .flatten()
            .map_err(|source| Error::Segment { digest, source })?;
        retried(|| self.replace(digest, bytes.len() as u64, &moved)).await
    }

    async fn replace(&self, digest: Digest, bytes: u64, moved: &[Moved]) -> Result<(), Error> {
        let (Some(first), Some(last)) = (moved.first(), moved.last()) else { return Ok(()) };
        let mut tx = self.store.db.write().await?;
        let loaded = match builds::load(&mut tx, self.build).await {
            // Forgotten meanwhile.
            Err(Error::NoSuchBuild(_)) => return Ok(()),
            other => other?,
        };
        if !is_wanted(&mut tx, self.position).await? {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(moved.len());
        for frame in moved {
            let Place { number, count, time } = frame.place;
            let sql = "DELETE FROM entries WHERE build = $1 AND number >= $2 AND number < $3";
            let gone = tx.run(sql, args![self.position, number, number + count]).await?;
            if gone != frame.rows {
                // Another server has moved them.
                return Ok(());
            }
            let pointer = Pointer { segment: digest, offset: frame.offset, length: frame.length };
            let (last_time, body) = (frame.last_time, pointer.pack());
            rows.push(Packed { number, count, time, last_time, body });
        }
        journal::insert_rows(&mut tx, self.position, loaded.scope, &rows).await?;
        let end = last.place.number + last.place.count - 1;
        let sql = "INSERT INTO segments (build, number, last, time, last_time, digest, bytes) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let (from, at, until) = (first.place.number, first.place.time, last.last_time);
        tx.run(sql, args![self.position, from, end, at, until, digest, bytes]).await?;
        kept::hold(&mut tx, digest, Holder::Build(self.position), Held::Plain).await?;
        tx.commit().await
    }
}

/// When others wrote.
struct Between {
    /// In order.
    times: Vec<Timestamp>,
    /// Nothing is known of later times.
    known_until: Timestamp,
}

impl Between {
    /// Says whether somebody wrote between two times, or may have.
    fn lie_between(&self, from: Timestamp, until: Timestamp) -> bool {
        let at = self.times.partition_point(|t| *t <= from);
        until > self.known_until || self.times.get(at).is_some_and(|t| *t < until)
    }
}

/// Says whether a log is to be moved still. Retention may have removed it while its segment was
/// being put together: the emptied rows are as many as the full ones were, and the text must not
/// come back. To be asked under the lock of the build's scope.
async fn is_wanted(tx: &mut Tx, position: i64) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM ended_logs WHERE build = $1";
    if tx.maybe(sql, args![position]).await?.is_none() {
        return Ok(false);
    }
    Ok(kept::read(tx, position).await?.is_none_or(|kept| kept.log_bytes.is_some()))
}

/// Says that a build's log is to be moved.
pub(crate) async fn ended(tx: &mut Tx, position: i64) -> Result<(), Error> {
    let sql = "INSERT INTO ended_logs (build) VALUES ($1) ON CONFLICT (build) DO NOTHING";
    tx.run(sql, args![position]).await.map(drop)
}

/// Forgets a build's segments; nobody needs their blobs any more.
pub(crate) async fn forget(tx: &mut Tx, position: i64) -> Result<(), Error> {
    for sql in [
        "DELETE FROM holds WHERE build = $1 AND digest IN \
         (SELECT digest FROM segments WHERE build = $1)",
        "DELETE FROM segments WHERE build = $1",
        "DELETE FROM ended_logs WHERE build = $1",
    ] {
        tx.run(sql, args![position]).await?;
    }
    Ok(())
}

/// Rows of a log that are emptied at once.
const EMPTIED_AT_ONCE: u32 = 256;

/// Lets the log of an ended build go: of its lines only numbers and times stay, so that what
/// happened is still in order. Says whether there was one.
pub(crate) async fn let_go(
    tx: &mut Tx,
    loaded: &mut Loaded,
    why: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let Some(old) = kept::read(tx, loaded.position).await?.filter(|k| k.log_bytes.is_some()) else {
        return Ok(false);
    };
    empty(tx, loaded.position).await?;
    forget(tx, loaded.position).await?;
    journal::append(tx, loaded, None, [Stamped::new(now, LogRemoved::event(why))]).await?;
    kept::put(tx, loaded, Some(old), Some(Kept { log_bytes: None, ..old })).await?;
    Ok(true)
}

async fn empty(tx: &mut Tx, position: i64) -> Result<(), Error> {
    let mut next = 0;
    loop {
        let sql = "SELECT number, count, time, last_time, body FROM entries \
                   WHERE build = $1 AND number >= $2 ORDER BY number LIMIT $3";
        let rows = tx.all(sql, args![position, next, EMPTIED_AT_ONCE]).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        next = last.count(0)? + last.count(1)?;
        for row in &rows {
            let span = row.int(3)?.saturating_sub(row.int(2)?);
            let Some(body) = codec::emptied(&row.bytes(4)?, row.count(1)?, span) else { continue };
            let sql = "UPDATE entries SET body = $3 WHERE build = $1 AND number = $2";
            tx.run(sql, args![position, row.int(0)?, body]).await?;
        }
    }
}
