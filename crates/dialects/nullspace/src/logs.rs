//! Logs of builds, read from an offset on and followed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use ashlar_core::{BuildId, TenantId};
use ashlar_service::{Actor, Document, Most, Record};

use crate::app::App;
use crate::documents::{Attempt, AttemptFiles};
use crate::errors::{Answer, ApiError};
use crate::ids;
use crate::project::Projector;
use crate::templates::Found;
use crate::views;
use crate::wire::{CacheSummary, LogEntry, LogKind, ResultMetadata};

/// Journal entries that one read takes, and bytes of them: of a long log as much is in memory.
pub(crate) const PIECE: usize = 1000;
const PIECE_BYTES: usize = 1024 * 1024;
/// Builds whose place in the journal is remembered.
const POSITIONS_MAX: usize = 256;

/// How far the logs of recently read builds were projected, so that whoever polls does not make
/// the server read a journal from its beginning each time.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    known: Mutex<(HashMap<BuildId, Projector>, VecDeque<BuildId>)>,
}

impl Positions {
    /// Returns a projector at or before an offset, and before the journal's entry of a number.
    fn before(&self, build: BuildId, offset: u64, until: u64) -> Option<Projector> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |p: &&Projector| p.offset() <= offset && p.next_number() <= until;
        known.0.get(&build).filter(fits).cloned()
    }

    pub(crate) fn remember(&self, build: BuildId, projector: &Projector) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (map, order) = &mut *known;
        if map.insert(build, projector.clone()).is_none() {
            order.push_back(build);
        }
        if order.len() > POSITIONS_MAX
            && let Some(oldest) = order.pop_front()
        {
            map.remove(&oldest);
        }
    }
}

/// A build of the caller's with its template.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) found: Found,
    pub(crate) attempt: Document<Attempt>,
    pub(crate) build: BuildId,
}

/// A log from an offset on as it is at one moment, however fast it grows, read piece by piece.
#[derive(Debug)]
pub(crate) struct LogReader {
    app: Arc<App>,
    actor: Actor,
    owned: Owned,
    projector: Projector,
    from: u64,
    /// The journal's entry at which it ends.
    until: u64,
    more: bool,
}

impl LogReader {
    /// Reads from an offset up to the journal's entry of a number.
    pub(crate) async fn new(
        app: Arc<App>,
        actor: Actor,
        owned: Owned,
        (from, until): (u64, u64),
    ) -> Answer<Self> {
        let projector =
            app.projector(owned.found.tenant, owned.build, owned.found.id, (from, until)).await?;
        Ok(Self { app, actor, owned, projector, from, until, more: true })
    }

    /// Says whether there may be another piece.
    pub(crate) const fn more(&self) -> bool {
        self.more
    }

    /// Reads the next piece, which may be empty.
    pub(crate) async fn next(mut self) -> Answer<(Vec<LogEntry>, Self)> {
        let (build, until) = (self.owned.build, self.until);
        let piece = self.app.piece(&self.actor, build, &mut self.projector, until).await?;
        let (mut entries, more) = piece;
        entries.retain(|e| e.offset >= self.from);
        self.owned = self.app.complete(self.owned, &mut entries).await?;
        self.more = more;
        Ok((entries, self))
    }

    /// Returns where the log ends, once all of it was read; whoever asks for what comes then is
    /// spared the way there.
    pub(crate) fn end(&self) -> u64 {
        self.app.positions.remember(self.owned.build, &self.projector);
        self.projector.offset().max(self.from)
    }
}

impl App {
    /// Finds a build of the caller's.
    pub(crate) async fn owned(&self, actor: &Actor, id: &str) -> Answer<Owned> {
        let missing = || ApiError::no_build(id);
        let build = ids::read_build(id).ok_or_else(missing)?;
        let tenant = actor.tenant.id;
        let attempt = self.attempt(tenant, build).await?.ok_or_else(missing)?;
        let found = self.by_id(actor, attempt.value.template).await?;
        let found = found.filter(|f| f.own).ok_or_else(missing)?;
        Ok(Owned { found, attempt, build })
    }

    /// Returns a build of the caller's with template and note up to date.
    pub(crate) async fn fresh(&self, owned: Owned) -> Answer<Owned> {
        if owned.attempt.value.settled {
            return Ok(owned);
        }
        let Owned { found, build, .. } = owned;
        let found = self.settled(found).await?;
        let attempt = self.attempt(found.tenant, build).await?;
        let attempt = attempt.ok_or_else(|| ApiError::no_build(&ids::build(build)))?;
        Ok(Owned { found, attempt, build })
    }

    /// Returns a projector at or before an offset of a build's log, and before the journal's entry
    /// of a number.
    pub(crate) async fn projector(
        &self,
        tenant: TenantId,
        build: BuildId,
        template: uuid::Uuid,
        (offset, until): (u64, u64),
    ) -> Answer<Projector> {
        if let Some(projector) = self.positions.before(build, offset, until) {
            return Ok(projector);
        }
        let files = self.objects.document::<AttemptFiles>(Some(tenant), build.uuid()).await?;
        let files = files.map(|d| d.value).unwrap_or_default();
        Ok(Projector::new(build, template, files))
    }

    /// Reads the next piece of a log, up to the journal's entry of a number, and says whether there
    /// may be more.
    pub(crate) async fn piece(
        &self,
        actor: &Actor,
        build: BuildId,
        projector: &mut Projector,
        until: u64,
    ) -> Answer<(Vec<LogEntry>, bool)> {
        let from = projector.next_number();
        let limit = usize::try_from(until.saturating_sub(from)).map_or(PIECE, |n| n.min(PIECE));
        let mut entries = Vec::new();
        if limit == 0 {
            return Ok((entries, false));
        }
        let most = Most { entries: limit, bytes: PIECE_BYTES };
        let mut read = self.service.journal_within(actor, build, from, most).await?;
        // Numbers of removed lines are missing: what comes after them may lie beyond the end.
        read.retain(|entry| entry.number < until);
        read.iter().for_each(|entry| projector.add(entry, &mut entries));
        let more = !read.is_empty() && projector.next_number() < until && !projector.ended();
        Ok((entries, more))
    }

    /// Goes over a log up to the journal's entry of a number; returns the projector there.
    pub(crate) async fn passed(
        &self,
        actor: &Actor,
        found: &Found,
        build: BuildId,
        until: u64,
    ) -> Answer<Projector> {
        let place = (u64::MAX, until);
        let mut projector = self.projector(found.tenant, build, found.id, place).await?;
        while self.piece(actor, build, &mut projector, until).await?.1 {}
        self.positions.remember(build, &projector);
        Ok(projector)
    }

    /// Fills in what the last entry of a good build says of the template.
    pub(crate) async fn complete(&self, owned: Owned, entries: &mut [LogEntry]) -> Answer<Owned> {
        let Some(end) = entries.last_mut().filter(|e| e.kind == LogKind::End) else {
            return Ok(owned);
        };
        let owned = self.fresh(owned).await?;
        let attempt = &owned.attempt.value;
        end.result = Some(owned.found.info(Some(attempt)));
        end.result_metadata = Some(ResultMetadata {
            runtime_defaults: attempt.runtime_defaults.clone(),
            oci_metadata: attempt.oci_metadata.clone(),
        });
        Ok(owned)
    }

    /// Returns the counters of a build: those of its record, or counted over its log when it took
    /// several attempts, whose entries the log has all.
    pub(crate) async fn cache(
        &self,
        actor: &Actor,
        found: &Found,
        attempt: &Attempt,
        record: &Record,
    ) -> Answer<CacheSummary> {
        if record.attempt <= 1 {
            return Ok(views::cache_of(record, attempt.files));
        }
        let (build, until) = (record.submission.build, record.next_number);
        Ok(self.passed(actor, found, build, until).await?.counted())
    }
}
