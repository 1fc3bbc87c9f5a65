//! Journals: what happened, by number, by time, live.

use ashlar_core::journal::Entry;
use ashlar_core::{BuildId, Timestamp};
use ashlar_records::{Follower, ScopeEntry, TimeRange};

use crate::{Actor, Error, Service};

/// Entries that one read returns at most.
pub(crate) const ENTRIES_MAX: usize = 10_000;

impl Service {
    /// Reads a build's journal from an entry's number on: events and log lines, one numbering.
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
        self.row(actor, build).await?;
        let read = self.store().journal(build, from, limit.min(ENTRIES_MAX));
        Ok(self.counters().timed("journal", read).await?)
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
