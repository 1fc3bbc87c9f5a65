//! Logs: the lines among a journal's entries.

use ashlar_core::journal::{Entry, Event, Level, LogLine};
use ashlar_core::{BuildId, Timestamp};
use ashlar_records::{LogRemoved, Most};

use crate::{Actor, Error, Service};

/// Lines that one answer holds at most.
const LINES_MAX: usize = 10_000;
/// The longest text that is searched for, in bytes.
const SEARCH_BYTES_MAX: usize = 1000;

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
    /// Returns the line of an entry that is one. That the log was removed is a line too: whoever
    /// was reading it just then must not take what there was until then for the whole.
    pub fn of(entry: Entry) -> Option<Self> {
        let removed = LogRemoved::of(&entry);
        let line = match entry.event {
            Event::Log(line) => line,
            _ => LogLine::service(Level::Warn, removed?.to_string()),
        };
        Some(Self { number: entry.number, time: entry.time, line })
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The lines, oldest first.
    pub lines: Vec<LogLineAt>,
    /// Where to go on, when there may be more: always while the build runs.
    pub next: Option<u64>,
}

impl Service {
    /// Searches a build's log for a text, in any case, from an entry's number on. One call looks
    /// through a bounded part of it and says where to go on.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for a text that is too long or empty.
    pub async fn search_log(
        &self,
        actor: &Actor,
        build: BuildId,
        text: &str,
        from: u64,
        limit: usize,
    ) -> Result<Found, Error> {
        if text.is_empty() || text.len() > SEARCH_BYTES_MAX {
            let why = format!("must have 1 to {SEARCH_BYTES_MAX} bytes");
            return Err(Error::invalid("search", why));
        }
        // Looked at before the log: once a build has ended, no line is written any more.
        let row = self.row(actor, build).await?;
        let found = self.store().search(build, text, from, limit.min(LINES_MAX)).await?;
        let lines = found.entries.into_iter().filter_map(LogLineAt::of).collect();
        let next = found.next.or((!row.state.is_terminal()).then_some(found.end));
        Ok(Found { lines, next })
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
        most: Most,
    ) -> Result<(Vec<LogLineAt>, u64), Error> {
        let entries = self.journal_within(actor, build, from, most).await?;
        let next = entries.last().map_or(from, |e| e.number + 1);
        Ok((entries.into_iter().filter_map(LogLineAt::of).collect(), next))
    }
}
