//! Logs that retention removed: what is said of them, and where it is found.

use std::fmt;

use ashlar_core::journal::{Entry, Event};
use ashlar_core::{BuildId, Timestamp};
use serde_json::{Value, json};

use crate::codec::{self, Plain};
use crate::db::args;
use crate::read::RawRow;
use crate::{Error, Store};

/// Who notes it in the journal.
const DIALECT: &str = "retention";
/// The note's only field.
const FIELD: &str = "log_removed";
/// Rows that one query reads.
const ROWS_AT_ONCE: u32 = 64;
/// Rows at the end of a journal among which the note is looked for: after the end of a build there
/// are labels and pins, and a removal that cannot be dated is still known.
const ROWS_LOOKED_AT_MAX: u32 = 1024;

/// A log that retention removed. Displayed it is a sentence without its full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRemoved {
    /// Which bound let it go, and when; unknown when the journal says it too far before its end.
    pub told: Option<(String, Timestamp)>,
}

impl LogRemoved {
    /// Returns what an entry says of a removed log, if it does.
    pub fn of(entry: &Entry) -> Option<Self> {
        let Event::Note { dialect, value } = &entry.event else { return None };
        let why = value.get(FIELD).and_then(Value::as_str).filter(|_| dialect == DIALECT)?;
        Some(Self { told: Some((why.to_owned(), entry.time)) })
    }

    /// Returns the event that says so.
    pub(crate) fn event(why: &str) -> Event {
        Event::Note { dialect: DIALECT.into(), value: json!({ FIELD: why }) }
    }
}

impl fmt::Display for LogRemoved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("log removed by retention")?;
        match &self.told {
            Some((why, at)) => write!(f, " ({why}) at {}", at.rfc3339()),
            None => Ok(()),
        }
    }
}

impl Store {
    /// Says whether a build's log was removed; then its lines are no longer among what readers of
    /// its journal get, and all other entries have the numbers that they had.
    ///
    /// # Errors
    /// When the database fails or the journal is damaged.
    pub async fn log_removed(&self, build: BuildId) -> Result<Option<LogRemoved>, Error> {
        let sql = "SELECT b.position FROM builds b JOIN kept k ON k.build = b.position \
                   WHERE b.id = $1 AND k.log_bytes IS NULL";
        let Some(row) = self.db.maybe(sql, args![build]).await? else { return Ok(None) };
        let (position, mut before, mut looked_at) = (row.int(0)?, i64::MAX, 0);
        while looked_at < ROWS_LOOKED_AT_MAX {
            let sql = "SELECT number, count, time, body FROM entries \
                       WHERE build = $1 AND number < $2 ORDER BY number DESC LIMIT $3";
            let rows = self.db.all(sql, args![position, before, ROWS_AT_ONCE]).await?;
            let Some(last) = rows.last() else { break };
            before = last.int(0)?;
            looked_at += ROWS_AT_ONCE;
            for row in &rows {
                let row = RawRow::of(row)?;
                if let Some(found) = note_in(&row)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(Some(LogRemoved { told: None }))
    }
}

fn note_in(row: &RawRow) -> Result<Option<LogRemoved>, Error> {
    let mut found = None;
    if !codec::holds_log(&row.body) {
        let take = &mut |entry: Entry| {
            found = LogRemoved::of(&entry);
            false
        };
        Plain::of(&row.place, &row.body)?.each(&row.place, row.place.number, take)?;
    }
    Ok(found)
}
