//! Logs: the lines among a journal's entries.

use ashlar_core::journal::{Entry, Event, LogLine};
use ashlar_core::{BuildId, Timestamp};

use crate::{Actor, Error, Service};

/// Entries that one piece of a search reads.
const PIECE: usize = 4096;
/// Entries that one search looks at; it then says where to go on.
const SEARCHED_MAX: u64 = 1_000_000;

/// A line with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLineAt {
    /// The entry's number.
    pub number: u64,
    /// The entry's time.
    pub time: Timestamp,
    /// The line.
    pub line: LogLine,
}

impl LogLineAt {
    /// Returns the line of an entry that is one.
    pub fn of(entry: Entry) -> Option<Self> {
        match entry.event {
            Event::Log(line) => Some(Self { number: entry.number, time: entry.time, line }),
            _ => None,
        }
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The lines, oldest first.
    pub lines: Vec<LogLineAt>,
    /// Where to go on, when there may be more.
    pub next: Option<u64>,
}

impl Service {
    /// Searches a build's log for a text, in any case, from an entry's number on.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn search_log(
        &self,
        actor: &Actor,
        build: BuildId,
        text: &str,
        from: u64,
        limit: usize,
    ) -> Result<Found, Error> {
        self.row(actor, build).await?;
        let wanted = text.to_lowercase();
        let mut found = Found { lines: Vec::new(), next: None };
        let mut next = from;
        while next - from < SEARCHED_MAX {
            let entries = self.store().journal(build, next, PIECE).await?;
            let Some(last) = entries.last() else { return Ok(found) };
            let end = last.number + 1;
            for line in entries.into_iter().filter_map(LogLineAt::of) {
                if line.line.text.to_lowercase().contains(&wanted) {
                    if found.lines.len() == limit {
                        found.next = Some(line.number);
                        return Ok(found);
                    }
                    found.lines.push(line);
                }
            }
            next = end;
        }
        found.next = Some(next);
        Ok(found)
    }

    /// Returns the lines among the next entries of a build's journal, and the number to go on
    /// from. No lines and the same number: there is nothing (yet).
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn log(
        &self,
        actor: &Actor,
        build: BuildId,
        from: u64,
        limit: usize,
    ) -> Result<(Vec<LogLineAt>, u64), Error> {
        let entries = self.journal(actor, build, from, limit).await?;
        let next = entries.last().map_or(from, |e| e.number + 1);
        Ok((entries.into_iter().filter_map(LogLineAt::of).collect(), next))
    }
}
