//! The end of a journal.

use std::collections::VecDeque;
use std::sync::Arc;

use ashlar_core::BuildId;
use ashlar_core::journal::Entry;

use crate::codec::{Place, Plain, is_removed};
use crate::db::args;
use crate::most::entry_bytes;
use crate::read::{BODY_BYTES_SMALL, RawRow};
use crate::{Error, Most, Store};

/// Rows that one query reads, without bodies that are large.
const ROWS_AT_ONCE: u32 = 256;

impl Store {
    /// Reads the last entries of a build's journal, in order. It looks back over as many numbers as
    /// there may be entries, so that lines which were removed are not replaced by earlier entries.
    /// Submissions come without their definitions.
    ///
    /// # Errors
    /// When the database fails or an entry is damaged.
    pub async fn journal_tail(&self, build: BuildId, most: Most) -> Result<Vec<Entry>, Error> {
        let sql = "SELECT b.position, (SELECT MAX(e.number + e.count) FROM entries e \
                   WHERE e.build = b.position) FROM builds b WHERE b.id = $1";
        let Some(row) = self.db.maybe(sql, args![build]).await? else { return Ok(Vec::new()) };
        let (position, end) = (row.int(0)?, row.maybe_int(1)?.unwrap_or(0));
        let end = u64::try_from(end).unwrap_or(0);
        let first = end.saturating_sub(most.entries as u64);
        let mut walk = Backwards { store: self, position, next: end, rows: VecDeque::new() };
        let (mut left, mut parts) = (most, Vec::new());
        while walk.next > first && !left.is_reached() {
            let until = walk.next;
            let Some(row) = walk.row().await? else { break };
            if is_removed(&row.body) {
                continue;
            }
            let plain = self.open_row(position, &row).await?;
            let take = move || last_of(&row.place, &plain, (first, until), left);
            let (part, rest) = self.readers.run(take).await??;
            parts.push(part);
            left = rest;
        }
        Ok(parts.into_iter().rev().flatten().collect())
    }
}

/// Reads the rows of a build from the last one to the first.
struct Backwards<'a> {
    store: &'a Store,
    position: i64,
    /// Number after the last entry of the next row.
    next: u64,
    rows: VecDeque<RawRow>,
}

impl Backwards<'_> {
    async fn row(&mut self) -> Result<Option<RawRow>, Error> {
        if self.rows.is_empty() {
            let sql = "SELECT number, count, time, \
                       CASE WHEN LENGTH(body) <= $4 THEN body END, \
                       CAST(LENGTH(body) AS BIGINT) FROM entries \
                       WHERE build = $1 AND number < $2 ORDER BY number DESC LIMIT $3";
            let values = args![self.position, self.next, ROWS_AT_ONCE, BODY_BYTES_SMALL];
            let rows = self.store.db.all(sql, values).await?;
            self.rows = rows.iter().map(RawRow::with_length).collect::<Result<_, _>>()?;
        }
        let Some(mut row) = self.rows.pop_front() else { return Ok(None) };
        if row.body.is_empty() {
            let number = row.place.number;
            let Some(now) = self.store.row_of(self.position, number).await? else {
                return Ok(None);
            };
            if now.place != row.place {
                // Meanwhile the row became part of a frame, and so did some of those before it.
                self.rows.retain(|earlier| earlier.place.number < now.place.number);
            }
            row = now;
        }
        self.next = row.place.number;
        Ok(Some(row))
    }
}

/// Returns the last entries of a row within a range of numbers, and how much more is wanted.
fn last_of(
    place: &Place,
    plain: &Arc<Plain>,
    (first, until): (u64, u64),
    most: Most,
) -> Result<(VecDeque<Entry>, Most), Error> {
    let (mut found, mut sizes, mut bytes) = (VecDeque::new(), VecDeque::new(), 0_usize);
    plain.each(place, first, &mut |entry| {
        if entry.number >= until {
            return false;
        }
        let size = entry_bytes(&entry, plain.bytes().len());
        found.push_back(entry);
        sizes.push_back(size);
        bytes += size;
        // What stays reaches the bound, and would not without its first entry.
        while let Some(oldest) = sizes.front()
            && (found.len() > most.entries || bytes - oldest >= most.bytes)
        {
            bytes -= oldest;
            sizes.pop_front();
            found.pop_front();
        }
        true
    })?;
    let mut left = most;
    sizes.into_iter().for_each(|size| left.take(size));
    Ok((found, left))
}
