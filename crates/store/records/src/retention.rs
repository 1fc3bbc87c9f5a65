//! Retention: whose turn it is to go, and letting it go.
//!
//! A *group* is what bounds count over: the builds of a scope that came through one door. Its
//! totals are known, so the walk begins at the oldest build and ends at the first one that may
//! stay: what it costs depends on what goes, never on what stays.

use std::collections::BTreeSet;
use std::time::Duration;

use ashlar_core::journal::Event;
use ashlar_core::{BuildId, TenantId, Timestamp};
use serde_json::json;
use sqlx::AssertSqlSafe;

use crate::bounds::{Bounds, Retention, What};
use crate::builds::{self, Loaded};
use crate::db::{Arg, Row, Tx, args, pieces, placeholders};
use crate::journal::Stamped;
use crate::kept::{self, Exempt};
use crate::leases::after;
use crate::store::retried;
use crate::{Error, Store, aliases, facets, journal, segments};

/// Builds that one call forgets at most: a bound on how long it keeps others waiting.
pub const FORGET_AT_ONCE: usize = 100;
/// How long an exempt build is not looked at again.
pub const SPARED_FOR: Duration = Duration::from_secs(3600);
/// Exempt builds that one call looks at again at most.
const SPARED_AT_ONCE: u32 = 1000;
/// Newer builds that are added up for one build's prospects at most.
pub(crate) const NEWER_MAX: u64 = 10_000;
/// Scopes that one lies in, and itself, for which something may be said.
const LEVELS_MAX: usize = 8;
/// Groups that one look returns at most.
pub const GROUPS_MAX: u32 = 1000;

/// A group, in a walk over all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Whose.
    pub tenant: TenantId,
    /// Of which scope.
    pub scope: String,
    /// Through which door the builds came.
    pub dialect: String,
    id: i64,
}

/// Which bound lets something go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is too old.
    Age,
    /// There are enough newer ones.
    Count,
    /// The newer ones take up enough room.
    Bytes,
}

impl Why {
    /// Returns the word used in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Count => "count",
            Self::Bytes => "bytes",
        }
    }
}

/// What became of letting something go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetGo {
    /// It is gone.
    Gone,
    /// The build is exempt; it is not looked at again for [`SPARED_FOR`].
    Spared(Exempt),
    /// It was gone before, or the build has not ended.
    Nothing,
}

/// What bounds go by for one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// When it ended.
    pub ended_at: Timestamp,
    /// Why it stays in any case.
    pub exempt: Option<Exempt>,
    /// For each of [`What::ALL`]: whether it is there still, how many newer ones the group has and
    /// how many bytes it and the newer ones take up.
    pub things: [Place; 3],
}

/// Where a thing lies among those of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Whether it is there.
    pub there: bool,
    /// Newer ones.
    pub newer: u64,
    /// Bytes of it and the newer ones.
    pub bytes: u64,
}

/// Returns the columns of `kept_totals` that count a kind of thing and add up its bytes.
const fn totals(what: What) -> (&'static str, &'static str) {
    match what {
        What::Record => ("records", "log_bytes"),
        What::Log => ("logs", "log_bytes"),
        What::Artifacts => ("artifacts", "artifact_bytes"),
    }
}

const fn columns(what: What) -> (&'static str, &'static str) {
    match what {
        What::Record => ("", "COALESCE(k.log_bytes, 0)"),
        What::Log => (" AND k.log_bytes IS NOT NULL", "k.log_bytes"),
        What::Artifacts => (" AND k.artifact_bytes IS NOT NULL", "k.artifact_bytes"),
    }
}

impl Store {
    /// Forgets builds: their rows, journals, documents and names. Those that have not ended, are
    /// pinned, or are gone already are left alone. Returns the ids that were forgotten; call it
    /// with at most [`FORGET_AT_ONCE`] ids, more are not looked at.
    ///
    /// # Errors
    /// When the database fails; what was forgotten before stays so.
    pub async fn forget(&self, wanted: &[BuildId]) -> Result<Vec<BuildId>, Error> {
        let mut forgotten = Vec::new();
        for build in wanted.iter().take(FORGET_AT_ONCE) {
            let mut tx = self.db.write().await?;
            let Some(loaded) = ended(&mut tx, *build).await? else { continue };
            if !loaded.record.pinned {
                remove(&mut tx, &loaded).await?;
                tx.commit().await?;
                forgotten.push(*build);
            }
        }
        Ok(forgotten)
    }

    /// Says how long builds of a scope (none: of all the tenant's scopes that say nothing
    /// themselves) are kept. Nothing said takes back what was.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_retention(
        &self,
        tenant: TenantId,
        scope: Option<&str>,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<(), Error> {
        let scope = scope.unwrap_or("");
        if retention.is_empty() {
            let sql = "DELETE FROM retention WHERE tenant = $1 AND scope = $2";
            return self.db.run(sql, args![tenant, scope]).await.map(drop);
        }
        let sql = "INSERT INTO retention (tenant, scope, policy, updated_at) \
                   VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, scope) \
                   DO UPDATE SET policy = excluded.policy, updated_at = excluded.updated_at";
        self.db.run(sql, args![tenant, scope, builds::json(retention)?, now]).await.map(drop)
    }

    /// Returns what is said for a scope, on top of what is said for those that it lies in, on top of
    /// what is said for its tenant. `web/unit` lies in `web`: there are the builds of the node `unit`
    /// of runs in `web`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retention(&self, tenant: TenantId, scope: &str) -> Result<Retention, Error> {
        let levels: Vec<&str> = levels(scope).collect();
        let sql = format!(
            "SELECT scope, policy FROM retention WHERE tenant = $1 AND scope IN {}",
            placeholders(2, 1, levels.len())
        );
        let mut values = args![tenant];
        values.extend(levels.iter().map(|level| Arg::from(*level)));
        let mut said = vec![Retention::default(); levels.len()];
        for row in self.db.all(AssertSqlSafe(sql), values).await? {
            let level = row.text(0)?;
            if let Some(place) = levels.iter().position(|l| *l == level) {
                said[place] = row.json(1, "a retention policy")?;
            }
        }
        Ok(said.into_iter().fold(Retention::default(), Retention::over))
    }

    /// Lists what a tenant says, by scope, after a scope; that for the whole tenant has none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retentions(
        &self,
        tenant: TenantId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(Option<String>, Retention)>, Error> {
        let sql = "SELECT scope, policy FROM retention WHERE tenant = $1 AND scope >= $2 \
                   AND scope <> $3 ORDER BY scope LIMIT $4";
        // No scope has a control character in its name.
        let (from, but) = after.map_or(("", "\u{1}"), |a| (a, a));
        let rows = self.db.all(sql, args![tenant, from, but, limit.min(GROUPS_MAX)]).await?;
        let said = |row: &Row| {
            let scope = Some(row.text(0)?).filter(|s| !s.is_empty());
            Ok((scope, row.json(1, "a retention policy")?))
        };
        rows.iter().map(said).collect()
    }

    /// Says whether any tenant or scope says anything.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_retention(&self) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM retention WHERE tenant >= $1 LIMIT 1";
        Ok(self.db.maybe(sql, args![aliases::or_all(None)]).await?.is_some())
    }

    /// Lists groups in an order of their own, after one: all of them in pieces.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retention_groups(
        &self,
        after: Option<&Group>,
        limit: u32,
    ) -> Result<Vec<Group>, Error> {
        let sql = "SELECT t.scope, t.dialect, s.tenant, s.name \
                   FROM kept_totals t JOIN scopes s ON s.id = t.scope \
                   WHERE (t.scope, t.dialect) > ($1, $2) ORDER BY t.scope, t.dialect LIMIT $3";
        let (id, dialect) = after.map_or((-1, ""), |g| (g.id, g.dialect.as_str()));
        let rows = self.db.all(sql, args![id, dialect, limit.min(GROUPS_MAX)]).await?;
        rows.iter().map(group).collect()
    }

    /// Returns builds of a group whose things are past their bounds, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn overdue(
        &self,
        group: &Group,
        what: What,
        bounds: &Bounds,
        now: Timestamp,
    ) -> Result<Vec<(BuildId, Why)>, Error> {
        if !bounds.is_bound() {
            return Ok(Vec::new());
        }
        // Totals and rows of one moment: beside another server that lets builds go just now, older
        // totals would let newer rows go.
        let mut tx = self.db.snapshot().await?;
        let (n, sum) = totals(what);
        let sql = format!("SELECT {n}, {sum} FROM kept_totals WHERE scope = $1 AND dialect = $2");
        let row = tx.maybe(AssertSqlSafe(sql), args![group.id, &group.dialect]).await?;
        let Some(row) = row else { return Ok(Vec::new()) };
        let (mut left, mut bytes) = (row.count(0)?, row.count(1)?);
        let (there, size) = columns(what);
        let sql = format!(
            "SELECT b.id, k.ended_at, {size} FROM kept k JOIN builds b ON b.position = k.build \
             WHERE k.scope = $1 AND k.dialect = $2 AND k.spared_until = 0{there} \
             ORDER BY k.ended_at, k.build LIMIT $3"
        );
        let values = args![group.id, &group.dialect, FORGET_AT_ONCE as u64];
        let rows = tx.all(AssertSqlSafe(sql), values).await?;
        let Some(oldest) = rows.first() else { return Ok(Vec::new()) };
        let spared = spared_since(&mut tx, group, what, bounds, oldest.time(1)?).await?;
        tx.commit().await?;
        let beyond = |most: Option<u64>, n: u64, spared: u64| {
            most.is_some_and(|most| n.saturating_add(spared) > most)
        };
        let mut found = Vec::new();
        for row in rows {
            let ended = row.time(1)?;
            let before = spared.of(ended);
            let old = bounds.age().is_some_and(|age| after(ended, age) <= now);
            let why = match () {
                () if old => Why::Age,
                () if beyond(bounds.count(), left, before.0) => Why::Count,
                () if beyond(bounds.bytes(), bytes, before.1) => Why::Bytes,
                () => break,
            };
            left = left.saturating_sub(1);
            bytes = bytes.saturating_sub(row.count(2)?);
            found.push((row.build(0)?, why));
        }
        Ok(found)
    }

    /// Lets a thing of a build that has ended go, unless the build is exempt. That it went is in
    /// the journal, or in the tenant's audit log when the record itself went.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn let_go(
        &self,
        build: BuildId,
        what: What,
        why: Why,
        now: Timestamp,
    ) -> Result<LetGo, Error> {
        retried(|| self.let_go_once(build, what, why, now)).await
    }

    async fn let_go_once(
        &self,
        build: BuildId,
        what: What,
        why: Why,
        now: Timestamp,
    ) -> Result<LetGo, Error> {
        let mut tx = self.db.write().await?;
        let Some(mut loaded) = ended(&mut tx, build).await? else { return Ok(LetGo::Nothing) };
        let pinned = loaded.record.pinned;
        let exempt = kept::exempt(&mut tx, loaded.position, build, pinned).await?;
        if let Some(exempt) = exempt {
            kept::spare(&mut tx, &loaded, Some(after(now, SPARED_FOR))).await?;
            tx.commit().await?;
            return Ok(LetGo::Spared(exempt));
        }
        let done = match what {
            What::Record => {
                audit(&mut tx, &loaded, why, now).await?;
                remove(&mut tx, &loaded).await.map(|()| true)?
            }
            What::Log => segments::let_go(&mut tx, &mut loaded, why.as_str(), now).await?,
            What::Artifacts => remove_artifacts(&mut tx, &mut loaded, why, now).await?,
        };
        journal::announce(&mut tx, build).await?;
        tx.commit().await?;
        self.wakeups.wake(build);
        Ok(if done { LetGo::Gone } else { LetGo::Nothing })
    }

    /// Returns those of these builds that have no artifacts to keep: they have ended without any, or
    /// are not there at all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn without_artifacts(&self, builds: &[BuildId]) -> Result<Vec<BuildId>, Error> {
        let mut found = Vec::new();
        for piece in pieces(builds) {
            let sql = format!(
                "SELECT b.id FROM builds b LEFT JOIN kept k ON k.build = b.position \
                 WHERE b.id IN (VALUES {}) AND (k.build IS NULL OR k.artifact_bytes IS NOT NULL)",
                placeholders(1, piece.len(), 1)
            );
            let values = piece.iter().map(|b| Arg::from(*b)).collect();
            let rows = self.db.all(AssertSqlSafe(sql), values).await?;
            let needed = rows.iter().map(|row| row.build(0)).collect::<Result<BTreeSet<_>, _>>()?;
            found.extend(piece.iter().filter(|b| !needed.contains(b)));
        }
        Ok(found)
    }

    /// Looks at exempt builds again whose time has come: from now on they count as others do.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn spare_no_longer(&self, now: Timestamp) -> Result<(), Error> {
        let sql = "SELECT b.id FROM kept k JOIN builds b ON b.position = k.build \
                   WHERE k.spared_until > 0 AND k.spared_until <= $1 \
                   ORDER BY k.spared_until LIMIT $2";
        for row in self.db.all(sql, args![now, SPARED_AT_ONCE]).await? {
            let mut tx = self.db.write().await?;
            let Some(loaded) = ended(&mut tx, row.build(0)?).await? else { continue };
            kept::spare(&mut tx, &loaded, None).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Returns what these bounds go by for a build; none when it has not ended. Newer things are
    /// added up only where it matters: for bounds on their count or bytes, of builds that are not
    /// exempt.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn standing(
        &self,
        build: BuildId,
        retention: &Retention,
    ) -> Result<Option<Standing>, Error> {
        let mut tx = self.db.snapshot().await?;
        let sql = "SELECT k.build, k.scope, k.dialect, k.ended_at, k.log_bytes, k.artifact_bytes, \
                   k.spared_until FROM builds b JOIN kept k ON k.build = b.position WHERE b.id = $1";
        let Some(row) = tx.maybe(sql, args![build]).await? else { return Ok(None) };
        let position = row.int(0)?;
        let pinned = row.int(6)? == i64::MAX;
        let exempt = kept::exempt(&mut tx, position, build, pinned).await?;
        let own = [Some(row.maybe_int(4)?.unwrap_or(0)), row.maybe_int(4)?, row.maybe_int(5)?];
        let mut things = [Place::default(); 3];
        for (i, what) in What::ALL.into_iter().enumerate() {
            let Some(bytes) = own[i] else { continue };
            let most = newer_wanted(retention.of(what)).filter(|_| exempt.is_none());
            let newer = match most {
                Some(most) => newer(&mut tx, &row, what, most).await?,
                None => (0, 0),
            };
            let bytes = u64::try_from(bytes).unwrap_or(0).saturating_add(newer.1);
            things[i] = Place { there: true, newer: newer.0, bytes };
        }
        tx.commit().await?;
        Ok(Some(Standing { ended_at: row.time(3)?, exempt, things }))
    }
}

/// Exempt builds of a group, newest first: when each ended, how many there are up to it and how many
/// bytes they take up together. They stay, but whoever is older has them before it as any other.
#[derive(Default)]
struct SparedSince(Vec<(Timestamp, u64, u64)>);

impl SparedSince {
    /// Returns how many ended at a time or after it, and their bytes.
    fn of(&self, time: Timestamp) -> (u64, u64) {
        let newer = self.0.partition_point(|(ended, ..)| *ended >= time);
        newer.checked_sub(1).map_or((0, 0), |last| (self.0[last].1, self.0[last].2))
    }
}

/// Reads the exempt builds of a group that ended at a time or after it; of very many only some.
async fn spared_since(
    tx: &mut Tx,
    group: &Group,
    what: What,
    bounds: &Bounds,
    since: Timestamp,
) -> Result<SparedSince, Error> {
    let mut spared = SparedSince::default();
    if bounds.count().is_none() && bounds.bytes().is_none() {
        return Ok(spared);
    }
    let (there, size) = columns(what);
    let sql = format!(
        "SELECT k.ended_at, {size} FROM kept k WHERE k.scope = $1 AND k.dialect = $2 \
         AND k.spared_until > 0{there} AND k.ended_at >= $3 ORDER BY k.ended_at DESC LIMIT $4"
    );
    let values = args![group.id, &group.dialect, since, NEWER_MAX];
    let (mut count, mut bytes) = (0, 0_u64);
    for row in tx.all(AssertSqlSafe(sql), values).await? {
        count += 1;
        bytes = bytes.saturating_add(row.count(1)?);
        spared.0.push((row.time(0)?, count, bytes));
    }
    Ok(spared)
}

/// Returns how many newer things have to be added up to know where one stands: for a bound on their
/// count as many as it lets stay, for one on their bytes all, but of very many only some.
fn newer_wanted(bounds: &Bounds) -> Option<u64> {
    match (bounds.count(), bounds.bytes()) {
        (None, None) => None,
        (Some(count), None) => Some(count.min(NEWER_MAX)),
        (_, Some(_)) => Some(NEWER_MAX),
    }
}

/// Adds up what is newer in the group of a build, at most so many, exempt or not.
async fn newer(tx: &mut Tx, row: &Row, what: What, most: u64) -> Result<(u64, u64), Error> {
    let (there, size) = columns(what);
    let sql = format!(
        "SELECT COUNT(*), CAST(COALESCE(SUM(n.size), 0) AS BIGINT) FROM \
         (SELECT {size} AS size FROM kept k WHERE k.scope = $1 AND k.dialect = $2 \
          AND k.spared_until = 0{there} AND k.ended_at >= $3 AND (k.ended_at, k.build) > ($3, $4) \
          LIMIT $5) n"
    );
    let (scope, dialect, ended) = (row.int(1)?, row.text(2)?, row.int(3)?);
    let values = args![scope, dialect, ended, row.int(0)?, most];
    let newer = tx.one(AssertSqlSafe(sql), values).await?;
    let sql = format!(
        "SELECT COUNT(*), CAST(COALESCE(SUM(n.size), 0) AS BIGINT) FROM \
         (SELECT {size} AS size FROM kept k WHERE k.scope = $1 AND k.dialect = $2 \
          AND k.spared_until > 0{there} AND k.ended_at >= $3 LIMIT $4) n"
    );
    let values = args![row.int(1)?, row.text(2)?, ended.saturating_add(1), most];
    let spared = tx.one(AssertSqlSafe(sql), values).await?;
    let sum = |column| Ok::<_, Error>(newer.count(column)?.saturating_add(spared.count(column)?));
    Ok((sum(0)?, sum(1)?))
}

/// Returns where something may be said for a scope, the most special first: there, in so many scopes
/// that it lies in, for the whole tenant.
fn levels(scope: &str) -> impl Iterator<Item = &str> {
    let outer = move |inner: &&str| inner.rfind('/').map(|end| &scope[..end]);
    let scopes = std::iter::successors(Some(scope), outer).filter(|s| !s.is_empty());
    scopes.take(LEVELS_MAX).chain([""])
}

fn group(row: &Row) -> Result<Group, Error> {
    let (id, dialect) = (row.int(0)?, row.text(1)?);
    Ok(Group { tenant: row.tenant(2)?, scope: row.text(3)?, dialect, id })
}

/// Loads a build that has ended.
async fn ended(tx: &mut Tx, build: BuildId) -> Result<Option<Loaded>, Error> {
    match builds::load(tx, build).await {
        Err(Error::NoSuchBuild(_)) => Ok(None),
        other => Ok(Some(other?).filter(|l| l.record.state.is_terminal())),
    }
}

async fn audit(tx: &mut Tx, loaded: &Loaded, why: Why, now: Timestamp) -> Result<(), Error> {
    let sql = "INSERT INTO audit (at, tenant, principal, action, subject, detail) \
               VALUES ($1, $2, $3, $4, $5, $6)";
    let r = &loaded.record;
    let detail = json!({ "name": r.name, "scope": r.submission.scope, "why": why.as_str() });
    let (none, subject) = (None::<ashlar_core::PrincipalId>, r.submission.build.to_string());
    let values =
        args![now, r.submission.tenant, none, "retention.record", subject, detail.to_string()];
    tx.run(sql, values).await.map(drop)
}

async fn remove_artifacts(
    tx: &mut Tx,
    loaded: &mut Loaded,
    why: Why,
    now: Timestamp,
) -> Result<bool, Error> {
    let reason = format!("retention: {}", why.as_str());
    let names: Vec<String> = loaded.record.artifacts.iter().map(|a| a.name.clone()).collect();
    let gone = |name| Event::ArtifactRemoved { name, reason: reason.clone() };
    let events: Vec<Stamped> = names.into_iter().map(|n| Stamped::new(now, gone(n))).collect();
    let some = !events.is_empty();
    journal::append(tx, loaded, None, events).await.map(|()| some)
}

async fn remove(tx: &mut Tx, loaded: &Loaded) -> Result<(), Error> {
    const BY_POSITION: [&str; 4] = [
        "DELETE FROM entries WHERE build = $1",
        "DELETE FROM definitions WHERE build = $1",
        "DELETE FROM build_secrets WHERE build = $1",
        "DELETE FROM builds WHERE position = $1",
    ];
    const BY_ID: [&str; 4] = [
        "DELETE FROM holds WHERE document > 0 AND document IN \
         (SELECT position FROM documents WHERE build = $1)",
        "DELETE FROM document_keys WHERE position IN \
         (SELECT position FROM documents WHERE build = $1)",
        "DELETE FROM documents WHERE build = $1",
        "DELETE FROM aliases WHERE target = $1",
    ];
    kept::forget(tx, loaded).await?;
    for sql in BY_ID {
        tx.run(sql, args![loaded.record.submission.build]).await?;
    }
    for sql in BY_POSITION {
        tx.run(sql, args![loaded.position]).await?;
    }
    let mut changes = facets::Changes::default();
    changes.forget(loaded.position, &facets::of(&loaded.record));
    changes.write(tx).await
}
