//! Journals: what happened, by number, by time, live.

use ashlar_core::journal::Entry;
use ashlar_core::{BuildId, Timestamp};
use ashlar_records::{Follower, LogRemoved, Most, ScopeEntry, TimeRange};

use crate::{Actor, Error, Service};

/// Entries that one read returns at most.
pub(crate) const ENTRIES_MAX: usize = 10_000;

impl Service {
    /// Reads a build's journal from an entry's number on: events and log lines, one numbering.
    /// Lines of a log that retention removed are left out, and their numbers with them.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn journal(
        &self,
        actor: &Actor,
        build: BuildId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.journal_within(actor, build, from, Most { entries: limit, bytes: usize::MAX }).await
    }

    /// As [`Service::journal`], within bounds: for answers that are made in memory.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn journal_within(
        &self,
        actor: &Actor,
        build: BuildId,
        from: u64,
        most: Most,
    ) -> Result<Vec<Entry>, Error> {
        self.row(actor, build).await?;
        let most = Most { entries: most.entries.min(ENTRIES_MAX), ..most };
        let read = self.store().journal_within(build, from, most);
        Ok(self.counters().timed("journal", read).await?)
    }

    /// Reads the last entries of a build's journal, in order.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn journal_tail(
        &self,
        actor: &Actor,
        build: BuildId,
        most: Most,
    ) -> Result<Vec<Entry>, Error> {
        self.row(actor, build).await?;
        let most = Most { entries: most.entries.min(ENTRIES_MAX), ..most };
        let read = self.store().journal_tail(build, most);
        Ok(self.counters().timed("journal", read).await?)
    }

    /// Says whether retention removed a build's log.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn log_removed(
        &self,
        actor: &Actor,
        build: BuildId,
    ) -> Result<Option<LogRemoved>, Error> {
        let row = self.row(actor, build).await?;
        match row.state.is_terminal() {
            true => Ok(self.store().log_removed(build).await?),
            false => Ok(None),
        }
    }

    /// Reads what happened to a build without what was said: its journal without log lines, from an
    /// entry's number on.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn events(
        &self,
        actor: &Actor,
        build: BuildId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        self.row(actor, build).await?;
        Ok(self.store().events(build, from, limit.min(ENTRIES_MAX)).await?)
    }

    /// Follows a build's journal from an entry's number on: first what is there, then what comes,
    /// until the build has ended. After a break, follow again from the last number seen plus one.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn follow(
        &self,
        actor: &Actor,
        build: BuildId,
        from: u64,
    ) -> Result<Follower, Error> {
        self.row(actor, build).await?;
        Ok(self.store().follow(build, from))
    }

    /// Returns the number of the first entry at or after a time.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn number_at(
        &self,
        actor: &Actor,
        build: BuildId,
        time: Timestamp,
    ) -> Result<u64, Error> {
        self.row(actor, build).await?;
        Ok(self.store().number_at(build, time).await?)
    }

    /// Reads the entries of all builds of a scope of the actor's tenant by time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn scope_journal(
        &self,
        actor: &Actor,
        scope: &str,
        range: TimeRange,
        limit: usize,
        newest_first: bool,
    ) -> Result<Vec<ScopeEntry>, Error> {
        let (tenant, limit) = (actor.tenant.id, limit.min(ENTRIES_MAX));
        Ok(self.store().scope_journal(tenant, scope, range, limit, newest_first).await?)
    }
}
