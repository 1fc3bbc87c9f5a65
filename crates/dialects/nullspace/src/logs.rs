//! Logs of builds, read from an offset on and followed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use ashlar_core::{BuildId, TenantId};
use ashlar_service::{Actor, Document, Record};

use crate::app::App;
use crate::documents::{Attempt, AttemptFiles};
use crate::errors::{Answer, ApiError};
use crate::ids;
use crate::project::Projector;
use crate::templates::Found;
use crate::views;
use crate::wire::{CacheSummary, LogEntry, LogKind, ResultMetadata, StatusSnapshot};

/// Journal entries that one read takes: of a long log as much is in memory.
pub(crate) const PIECE: usize = 1000;
/// Builds whose place in the journal is remembered.
const POSITIONS_MAX: usize = 256;

/// How far the logs of recently read builds were projected, so that whoever polls does not make
/// the server read a journal from its beginning each time.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    known: Mutex<(HashMap<BuildId, Projector>, VecDeque<BuildId>)>,
}

impl Positions {
    /// Returns a projector at or before an offset.
    fn before(&self, build: BuildId, offset: u64) -> Option<Projector> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.get(&build).filter(|p| p.offset() <= offset).cloned()
    }

    fn remember(&self, build: BuildId, projector: &Projector) {
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

/// Where a snapshot's log begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFrom {
    /// At an offset.
    Offset(u64),
    /// At its end.
    End,
}

/// A build of the caller's with its template.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) found: Found,
    pub(crate) attempt: Document<Attempt>,
    pub(crate) build: BuildId,
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

    /// Returns a projector at or before an offset of a build's log.
    pub(crate) async fn projector(
        &self,
        tenant: TenantId,
        build: BuildId,
        template: uuid::Uuid,
        offset: u64,
    ) -> Answer<Projector> {
        if let Some(projector) = self.positions.before(build, offset) {
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
        let read = self.service.journal(actor, build, from, limit).await?;
        read.iter().for_each(|entry| projector.add(entry, &mut entries));
        Ok((entries, read.len() == limit && !projector.ended()))
    }

    /// Reads what there is of a log from an offset on. Returns the entries, and the projector
    /// behind the last one.
    async fn entries(
        &self,
        actor: &Actor,
        found: &Found,
        build: BuildId,
        offset: u64,
    ) -> Answer<(Vec<LogEntry>, Projector)> {
        let mut projector = self.projector(found.tenant, build, found.id, offset).await?;
        let mut entries = Vec::new();
        loop {
            let (piece, more) = self.piece(actor, build, &mut projector, u64::MAX).await?;
            entries.extend(piece.into_iter().filter(|e| e.offset >= offset));
            if !more {
                break;
            }
        }
        self.positions.remember(build, &projector);
        Ok((entries, projector))
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
        let build = record.submission.build;
        let (_, projector) = self.entries(actor, found, build, u64::MAX).await?;
        Ok(projector.counted())
    }

    /// Returns a build with its log from an offset on. At the end of the log nothing is said of what
    /// was before it, but for the last entry of a build that has ended.
    pub(crate) async fn snapshot(
        &self,
        actor: &Actor,
        id: &str,
        from: LogFrom,
    ) -> Answer<StatusSnapshot> {
        let offset = match from {
            LogFrom::Offset(offset) => offset,
            LogFrom::End => u64::MAX,
        };
        let owned = self.owned(actor, id).await?;
        let (mut entries, projector) =
            self.entries(actor, &owned.found, owned.build, offset).await?;
        // After the entries: an end that is shown is one whose last entry is there too.
        let mut record = self.service.row(actor, owned.build).await?;
        let late = record.state.is_terminal() && !projector.ended();
        let (mut owned, mut projector) = (owned, projector);
        if late {
            (entries, projector) = self.entries(actor, &owned.found, owned.build, offset).await?;
            record = self.service.row(actor, owned.build).await?;
        }
        if record.state.is_terminal() {
            owned = self.fresh(owned).await?;
        }
        if from == LogFrom::End {
            entries.extend(projector.last().cloned());
        }
        owned = self.complete(owned, &mut entries).await?;
        let cache = self.cache(actor, &owned.found, &owned.attempt.value, &record).await?;
        let kept = self.kept(&record).await?;
        let build = views::build(&owned.found, &record, &owned.attempt.value, cache, kept);
        let next_offset = match from {
            LogFrom::Offset(offset) => projector.offset().max(offset),
            LogFrom::End => projector.offset(),
        };
        Ok(StatusSnapshot { build, entries, next_offset })
    }
}
