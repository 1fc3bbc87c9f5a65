//! How long builds are kept: who says so, when what will go, and the upkeep that lets it go.
//!
//! Several levels say something, the more special one wins bound by bound: the scope, the scopes that
//! it lies in (for a node's builds that of their run), its tenant, the server. A dialect whose vendor
//! documents what it keeps may say so between tenant and server
//! ([`Service::set_dialect_retention`]); none of those there are has a vendor that does.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use ashlar_core::identity::Role;
use ashlar_core::journal::Record;
use ashlar_core::{BuildId, TenantId, Timestamp};
use ashlar_records::{Bounds, Exempt, Group, LetGo, Place, Retention, Standing, What, Why};
use serde_json::json;

use crate::recipe::image_name;
use crate::{Actor, Error, Service};

/// Groups that one round looks at.
const GROUPS_AT_ONCE: u32 = 200;
/// Things that one round lets go at most.
const GONE_AT_ONCE: usize = 1000;

/// What a process knows about retention.
#[derive(Debug, Default)]
pub(crate) struct RetentionState {
    dialects: RwLock<BTreeMap<&'static str, Retention>>,
    walk: Mutex<Walk>,
}

/// A walk over all groups, in rounds.
#[derive(Debug, Default)]
struct Walk {
    /// The next round begins after this group.
    after: Option<Group>,
    /// Whether an earlier round has left something that is overdue where it is.
    left: bool,
}

/// What a round of upkeep came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionRound {
    /// Things that went.
    pub gone: usize,
    /// Whether the round ended a walk over all groups that left nothing overdue: there is time
    /// until the next one.
    pub done: bool,
}

impl RetentionState {
    fn of_dialect(&self, dialect: &str) -> Retention {
        let known = self.dialects.read().unwrap_or_else(PoisonError::into_inner);
        known.get(dialect).copied().unwrap_or_default()
    }

    fn any_bound(&self) -> bool {
        let known = self.dialects.read().unwrap_or_else(PoisonError::into_inner);
        known.values().any(Retention::is_bound)
    }
}

/// When something goes, and which bound lets it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The first moment; the next upkeep after it acts.
    pub at: Timestamp,
    /// Which bound.
    pub why: Why,
}

/// When the things of a build go, as far as is known now: newer builds may let them go earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expiry {
    /// Why the build stays in any case; nothing goes then.
    pub exempt: Option<Exempt>,
    /// The record, and all else with it.
    pub record: Option<Due>,
    /// The log.
    pub log: Option<Due>,
    /// The artifacts.
    pub artifacts: Option<Due>,
}

/// Says when a thing goes by bounds.
fn due(bounds: &Bounds, ended_at: Timestamp, place: Place, now: Timestamp) -> Option<Due> {
    if bounds.count().is_some_and(|most| place.newer >= most) {
        return Some(Due { at: now, why: Why::Count });
    }
    if bounds.bytes().is_some_and(|most| place.bytes > most) {
        return Some(Due { at: now, why: Why::Bytes });
    }
    let nanos = |age: Duration| i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
    let at = |age| Timestamp::from_nanos(ended_at.nanos().saturating_add(nanos(age)));
    bounds.age().map(|age| Due { at: at(age), why: Why::Age })
}

fn expiry_of(retention: &Retention, standing: &Standing) -> Expiry {
    if standing.exempt.is_some() || !retention.is_bound() {
        return Expiry { exempt: standing.exempt, ..Expiry::default() };
    }
    let (ended_at, now) = (standing.ended_at, ashlar_records::now());
    let [record, log, artifacts] = standing.things;
    let of = |what, place: Place| {
        let found = due(retention.of(what), ended_at, place, now);
        found.filter(|_| place.there)
    };
    let gone = of(What::Record, record);
    let with_record = |what, place: Place| earlier(of(what, place), gone).filter(|_| place.there);
    Expiry {
        exempt: None,
        record: gone,
        log: with_record(What::Log, log),
        artifacts: with_record(What::Artifacts, artifacts),
    }
}

fn earlier(a: Option<Due>, b: Option<Due>) -> Option<Due> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
        (a, b) => a.or(b),
    }
}

impl Service {
    /// Sets how long builds of a dialect are kept unless tenants and scopes say otherwise: its
    /// vendor's defaults. To be called when the dialect's router is made.
    pub fn set_dialect_retention(&self, dialect: &'static str, retention: Retention) {
        let mut known =
            self.retention_state().dialects.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(dialect, retention);
    }

    /// Says how long builds of a scope (none: of the whole tenant) are kept. Nothing said takes
    /// back what was.
    ///
    /// # Errors
    /// [`Error::Forbidden`] unless the actor manages the tenant; [`Error::Invalid`].
    pub async fn set_retention(
        &self,
        actor: &Actor,
        scope: Option<&str>,
        retention: Retention,
    ) -> Result<(), Error> {
        actor.needs(Role::Owner)?;
        if let Some(scope) = scope {
            crate::submit::check_scope(scope)?;
        }
        let now = ashlar_records::now();
        self.store().set_retention(actor.tenant.id, scope, &retention, now).await?;
        let detail = json!({ "retention": retention.to_string() });
        self.audit(actor, "retention.set", scope.unwrap_or("*"), detail).await
    }

    /// Returns what holds for a scope's builds of a dialect.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retention(
        &self,
        actor: &Actor,
        scope: &str,
        dialect: &str,
    ) -> Result<Retention, Error> {
        self.effective_retention(actor.tenant.id, scope, dialect).await
    }

    /// Lists what the actor's tenant says, by scope, after a scope; that for the whole tenant has
    /// none and comes first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retentions(
        &self,
        actor: &Actor,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(Option<String>, Retention)>, Error> {
        Ok(self.store().retentions(actor.tenant.id, after, limit).await?)
    }

    async fn effective_retention(
        &self,
        tenant: TenantId,
        scope: &str,
        dialect: &str,
    ) -> Result<Retention, Error> {
        let said = self.store().retention(tenant, scope).await?;
        let server = self.config().retention;
        Ok(said.over(self.retention_state().of_dialect(dialect)).over(server))
    }

    /// Says when the things of a build go. Of a build that has not ended nothing goes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expiry(&self, record: &Record) -> Result<Expiry, Error> {
        let s = &record.submission;
        let retention = self.effective_retention(s.tenant, &s.scope, &s.dialect).await?;
        let standing = self.store().standing(s.build, &retention).await?;
        Ok(standing.map_or_else(Expiry::default, |s| expiry_of(&retention, &s)))
    }

    /// Says the same of builds of one scope and dialect, in their order: a few queries for a whole
    /// page. Where nothing is bound nothing is looked at, not even whether a build is exempt.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expiries<R>(&self, records: &[R]) -> Result<Vec<Expiry>, Error>
    where
        R: Borrow<Record> + Sync,
    {
        let Some(first) = records.first().map(|r| &r.borrow().submission) else {
            return Ok(Vec::new());
        };
        let retention =
            self.effective_retention(first.tenant, &first.scope, &first.dialect).await?;
        if !retention.is_bound() {
            return Ok(vec![Expiry::default(); records.len()]);
        }
        let builds: Vec<BuildId> = records.iter().map(|r| r.borrow().submission.build).collect();
        let counted = What::ALL.iter().any(|what| {
            let bounds = retention.of(*what);
            bounds.count().is_some() || bounds.bytes().is_some()
        });
        let standings = self.store().standings(&builds, counted).await?;
        let expiry = |build: &BuildId| {
            let standing = standings.get(build);
            standing.map_or_else(Expiry::default, |s| expiry_of(&retention, s))
        };
        Ok(builds.iter().map(expiry).collect())
    }

    /// Lets go what is past its bounds, some of it; called again and again it gets everywhere.
    ///
    /// # Errors
    /// When the database fails; what went before is gone.
    pub async fn apply_retention(
        self: &Arc<Self>,
        now: Timestamp,
    ) -> Result<RetentionRound, Error> {
        let state = self.retention_state();
        let bound = self.config().retention.is_bound() || state.any_bound();
        if !bound && !self.store().has_retention().await? {
            return Ok(RetentionRound { gone: 0, done: true });
        }
        self.store().spare_no_longer(now).await?;
        let from = state.walk.lock().unwrap_or_else(PoisonError::into_inner).after.clone();
        let groups = self.store().retention_groups(from.as_ref(), GROUPS_AT_ONCE).await?;
        let (mut gone, mut last) = (0, None);
        for group in &groups {
            gone += self.apply_to_group(group, now, GONE_AT_ONCE - gone).await?;
            last = Some(group.clone());
            if gone >= GONE_AT_ONCE {
                break;
            }
        }
        let cut = gone >= GONE_AT_ONCE;
        let more =
            groups.len() as u64 == u64::from(GROUPS_AT_ONCE) || last.as_ref() != groups.last();
        let mut walk = state.walk.lock().unwrap_or_else(PoisonError::into_inner);
        let left = walk.left || cut;
        // After the last group the first one is next. A group that was cut short waits for its next
        // turn, so that none keeps the others from theirs.
        *walk = Walk { after: last.filter(|_| more), left: more && left };
        Ok(RetentionRound { gone, done: !more && !left })
    }

    async fn apply_to_group(
        self: &Arc<Self>,
        group: &Group,
        now: Timestamp,
        most: usize,
    ) -> Result<usize, Error> {
        let retention =
            self.effective_retention(group.tenant, &group.scope, &group.dialect).await?;
        let mut gone = 0;
        for what in [What::Artifacts, What::Log, What::Record] {
            let bounds = retention.of(what);
            while gone < most {
                let overdue = self.store().overdue(group, what, bounds, now).await?;
                let mut moved = false;
                for (build, why) in overdue.into_iter().take(most - gone) {
                    let done = self.let_go(group.tenant, build, what, why, now).await?;
                    moved |= done != LetGo::Nothing;
                    gone += usize::from(done == LetGo::Gone);
                }
                if !moved {
                    break;
                }
            }
        }
        Ok(gone)
    }

    async fn let_go(
        self: &Arc<Self>,
        tenant: TenantId,
        build: BuildId,
        what: What,
        why: Why,
        now: Timestamp,
    ) -> Result<LetGo, Error> {
        let done = self.store().let_go(build, what, why, now).await?;
        if done == LetGo::Gone && what != What::Log {
            self.drop_image(tenant, build).await?;
        }
        Ok(done)
    }

    /// Takes a build's image its name in the local store, so that a collection of garbage finds it
    /// unused. Without effect when there is none.
    pub(crate) async fn drop_image(
        self: &Arc<Self>,
        tenant: TenantId,
        build: BuildId,
    ) -> Result<(), Error> {
        let name = image_name(tenant, build)?.to_string();
        self.blocking(move |service| match service.engine().images().store().remove(&name) {
            Err(ashlar_oci::ImageStoreError::Unknown(_)) | Ok(_) => Ok(()),
            Err(error) => Err(Error::internal(error)),
        })
        .await
    }
}
