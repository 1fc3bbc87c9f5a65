//! Builds: accepting one, its row, and the row's upkeep.

use ashlar_core::journal::{Entry, Event, Mode, Record, Submission};
use ashlar_core::{BuildId, Timestamp, WorkerId};
use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::db::{Arg, Row, Tx, args, pieces, placeholders};
use crate::read::EntryReader;
use crate::{Error, Store, facets, journal, segments};

/// The fencing number of a build that is driven by the process which accepted it.
pub const FIRST_FENCE: u64 = 1;
/// The longest definition, in bytes of JSON.
pub const DEFINITION_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Entries that a rebuilt row takes in at a time.
const REBUILT_AT_ONCE: usize = 4096;
/// Ids that a prefix search returns.
pub const FOUND_MAX: usize = 10;

/// A build as it lies in the database, locked by the transaction that read it.
pub(crate) struct Loaded {
    pub(crate) position: i64,
    pub(crate) scope: i64,
    /// Time of the newest entry of the scope.
    pub(crate) scope_time: Timestamp,
    /// The last batch of the current attempt's writer.
    pub(crate) batch: u64,
    pub(crate) record: Record,
}

/// Writes a new build's row, definition, first entries and facets. With `claimed` a worker has it
/// from the start, and it never waits.
pub(crate) async fn accept(
    tx: &mut Tx,
    submission: &Submission,
    claimed: Option<WorkerId>,
    now: Timestamp,
) -> Result<Loaded, Error> {
    let definition = submission.definition.to_string();
    if definition.len() > DEFINITION_BYTES_MAX {
        let max = DEFINITION_BYTES_MAX as u64;
        return Err(Error::TooLarge { what: "the build's definition", max, unit: "bytes" });
    }
    let more = i64::from(claimed.is_some());
    let (scope, scope_time) = advance_scope(tx, submission, now, more).await?;
    let first = Timestamp::from_nanos(scope_time.nanos() - more);
    let bare = Submission { definition: Value::Null, ..submission.clone() };
    let mut entries =
        vec![Entry { number: 0, time: first, event: Event::Submitted(Box::new(bare)) }];
    entries.extend(claimed.map(|worker| {
        let event = Event::Claimed { attempt: 1, fence: FIRST_FENCE, worker };
        Entry { number: 1, time: scope_time, event }
    }));
    let record = Record::rebuild(&entries)?;
    let position = insert(tx, scope, &record).await?;
    let sql = "INSERT INTO definitions (build, body) VALUES ($1, $2)";
    tx.run(sql, args![position, definition]).await?;
    journal::insert(tx, position, scope, &entries).await?;
    let mut changes = facets::Changes::default();
    changes.accept(position, &facets::of(&record));
    changes.write(tx).await?;
    Ok(Loaded { position, scope, scope_time, batch: 0, record })
}

/// Returns the scope's number and the new time of its newest entry, `more` entries after the first
/// new one; makes the scope when it is new. The scope is locked from then on.
async fn advance_scope(
    tx: &mut Tx,
    submission: &Submission,
    now: Timestamp,
    more: i64,
) -> Result<(i64, Timestamp), Error> {
    let sql = "INSERT INTO scopes (tenant, name, last_time) VALUES ($1, $2, $3 + $4) \
               ON CONFLICT (tenant, name) DO UPDATE SET last_time = $4 + \
               CASE WHEN scopes.last_time < $3 THEN $3 ELSE scopes.last_time + 1 END \
               RETURNING id, last_time";
    let row = tx.one(sql, args![submission.tenant, &submission.scope, now, more]).await?;
    Ok((row.int(0)?, row.time(1)?))
}

async fn insert(tx: &mut Tx, scope: i64, record: &Record) -> Result<i64, Error> {
    let s = &record.submission;
    let sql = "INSERT INTO builds (id, tenant, scope, state, created_at, updated_at, fence, batch, \
               record) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8) \
               ON CONFLICT (id) DO NOTHING RETURNING position";
    let (state, created, updated) = (record.state.as_str(), record.created_at, record.updated_at);
    let row = json(record)?;
    let values = args![s.build, s.tenant, scope, state, created, updated, record.fence, row];
    match tx.maybe(sql, values).await? {
        Some(row) => row.int(0),
        None => Err(Error::Taken { what: "build", name: s.build.to_string() }),
    }
}

pub(crate) fn json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::damaged("a value to be stored", e))
}

/// Reads a build in order to write its journal. The lock is on its scope, whose time every entry
/// moves on: whoever holds it is the only one who writes to any build of the scope. It is taken
/// before all other locks, so that nobody waits in a circle.
pub(crate) async fn load(tx: &mut Tx, build: BuildId) -> Result<Loaded, Error> {
    let sql = if tx.is_postgres() {
        "SELECT id, last_time FROM scopes WHERE id = (SELECT scope FROM builds WHERE id = $1) \
         FOR UPDATE"
    } else {
        "SELECT id, last_time FROM scopes WHERE id = (SELECT scope FROM builds WHERE id = $1)"
    };
    let scope = tx.maybe(sql, args![build]).await?.ok_or(Error::NoSuchBuild(build))?;
    let sql = "SELECT position, batch, record FROM builds WHERE id = $1";
    let row = tx.maybe(sql, args![build]).await?.ok_or(Error::NoSuchBuild(build))?;
    Ok(Loaded {
        position: row.int(0)?,
        scope: scope.int(0)?,
        scope_time: scope.time(1)?,
        batch: row.count(1)?,
        record: record(&row, 2, build)?,
    })
}

fn record(row: &Row, column: usize, build: impl ToString) -> Result<Record, Error> {
    row.json(column, &format!("build {}", build.to_string()))
}

/// Writes the row after its journal has grown.
pub(crate) async fn update(tx: &mut Tx, loaded: &Loaded, before: &Record) -> Result<(), Error> {
    let now = &loaded.record;
    let sql = "UPDATE builds SET state = $2, updated_at = $3, finished_at = $4, fence = $5, \
               batch = $6, record = $7 WHERE position = $1";
    let state = now.state.as_str();
    let record = json(now)?;
    let (updated, finished) = (now.updated_at, now.finished_at);
    let values = args![loaded.position, state, updated, finished, now.fence, loaded.batch, record];
    tx.run(sql, values).await?;
    if now.state.is_terminal() && !before.state.is_terminal() {
        segments::ended(tx, loaded.position).await?;
    }
    let sql = "UPDATE scopes SET last_time = $2 WHERE id = $1";
    tx.run(sql, args![loaded.scope, loaded.scope_time]).await?;
    let changed = before.state != now.state
        || before.executor != now.executor
        || before.labels != now.labels
        || before.name != now.name;
    if changed {
        let mut changes = facets::Changes::default();
        changes.change(loaded.position, &facets::of(before), &facets::of(now));
        changes.write(tx).await?;
    }
    Ok(())
}

/// Reads a record and its definition.
const WHOLE: &str = "SELECT b.record, d.body FROM builds b \
                     JOIN definitions d ON d.build = b.position WHERE b.id = $1";

/// Returns a build with its definition.
pub(crate) async fn whole(tx: &mut Tx, build: BuildId) -> Result<Option<Record>, Error> {
    let row = tx.maybe(WHOLE, args![build]).await?;
    row.map(|row| defined(&row, build)).transpose()
}

fn defined(row: &Row, build: BuildId) -> Result<Record, Error> {
    let mut record = record(row, 0, build)?;
    record.submission.definition = row.json(1, "a definition")?;
    Ok(record)
}

impl Store {
    /// Returns a build with its definition.
    ///
    /// # Errors
    /// When the database fails or the record is damaged.
    pub async fn get(&self, build: BuildId) -> Result<Option<Record>, Error> {
        let row = self.db.maybe(WHOLE, args![build]).await?;
        row.map(|row| defined(&row, build)).transpose()
    }

    /// Returns those of these builds that are there, without their definitions, in any order.
    ///
    /// # Errors
    /// When the database fails or a record is damaged.
    pub async fn rows(&self, builds: &[BuildId]) -> Result<Vec<Record>, Error> {
        let mut found = Vec::new();
        for piece in pieces(builds) {
            let sql = format!(
                "SELECT id, record FROM builds WHERE id IN (VALUES {})",
                placeholders(1, piece.len(), 1)
            );
            let values = piece.iter().map(|b| Arg::from(*b)).collect();
            for row in self.db.all(AssertSqlSafe(sql), values).await? {
                found.push(record(&row, 1, row.build(0)?)?);
            }
        }
        Ok(found)
    }

    /// Returns a build without its definition.
    ///
    /// # Errors
    /// When there is no such build, the database fails or the record is damaged.
    pub async fn row(&self, build: BuildId) -> Result<Record, Error> {
        let sql = "SELECT record FROM builds WHERE id = $1";
        let row = self.db.maybe(sql, args![build]).await?.ok_or(Error::NoSuchBuild(build))?;
        record(&row, 0, build)
    }

    /// Rebuilds a build's row from its journal and says what both are; they are always equal.
    ///
    /// # Errors
    /// When there is no such build, or its journal does not fold.
    pub async fn rebuild(&self, build: BuildId) -> Result<(Record, Record), Error> {
        let row = self.get(build).await?.ok_or(Error::NoSuchBuild(build))?;
        let mut reader = EntryReader::new(self.clone(), build, 0);
        let mut entries = Vec::new();
        reader.read(1, &mut entries).await?;
        let mut fold = Record::rebuild(&entries)?;
        loop {
            entries.clear();
            reader.read(REBUILT_AT_ONCE, &mut entries).await?;
            if entries.is_empty() {
                return Ok((row, fold));
            }
            entries.iter().try_for_each(|entry| fold.apply(entry))?;
        }
    }

    /// Returns the builds whose ids begin with some hexadecimal digits, newest first, at most
    /// [`FOUND_MAX`]. Hyphens do not matter; what is no beginning of an id finds nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn find(&self, prefix: &str) -> Result<Vec<BuildId>, Error> {
        let Some((low, high)) = id_range(prefix) else { return Ok(Vec::new()) };
        let sql = "SELECT id FROM builds WHERE id >= $1 AND id <= $2 ORDER BY id DESC LIMIT 10";
        let rows = self.db.all(sql, args![low.to_vec(), high.to_vec()]).await?;
        rows.iter().map(|row| row.build(0)).collect()
    }
}

/// Returns the lowest and the highest id that begin with `prefix`.
fn id_range(prefix: &str) -> Option<([u8; 16], [u8; 16])> {
    let digits: Vec<u8> = prefix
        .chars()
        .filter(|c| *c != '-')
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect::<Option<_>>()?;
    if digits.is_empty() || digits.len() > 32 {
        return None;
    }
    let fill = |pad: u8| {
        let digit = |i: usize| digits.get(i).copied().unwrap_or(pad);
        std::array::from_fn(|i| (digit(2 * i) << 4) | digit(2 * i + 1))
    };
    Some((fill(0), fill(15)))
}

/// Says whether a build waits in the queue for a worker of ours.
pub(crate) fn waits(record: &Record) -> bool {
    record.submission.mode == Mode::Managed && record.state == ashlar_core::state::State::Queued
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_span_the_ids_that_begin_so() {
        let (low, high) = id_range("0190-A").unwrap();
        assert_eq!(low[..4], [0x01, 0x90, 0xa0, 0x00]);
        assert_eq!(high[..4], [0x01, 0x90, 0xaf, 0xff]);
        assert_eq!(id_range("xyz"), None);
        assert_eq!(id_range(""), None);
        assert_eq!(id_range(&"0".repeat(33)), None);
    }
}
