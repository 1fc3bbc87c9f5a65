//! The queue: who goes next.
//!
//! Tenants take turns: the one with the fewest builds at work goes first, then the one whose last
//! turn is longest ago. Within a tenant the larger priority goes first, then the older build. A
//! scope may bound how many of its builds are at work, and says what a new build means for those
//! that are there already ([`Policy`]). Runs of builds are bounded apart from builds.
//!
//! A build goes to the worker that built its scope last, whose cache is warm: for
//! [`AFFINITY_WAIT`] after it began to wait others leave it to that worker, as long as that one is
//! alive and has a free slot, and that worker takes it before builds of other scopes that are as
//! fresh. Then the order above is all that counts.

use std::time::Duration;

use ashlar_core::journal::{BuildKind, Event, Record};
use ashlar_core::state::State;
use ashlar_core::{BuildId, TenantId, Timestamp, WorkerId};
use sqlx::AssertSqlSafe;

use crate::builds::{self, Loaded, waits};
use crate::db::{Arg, Row, Tx, args};
use crate::facets::kind_word;
use crate::journal::Stamped;
use crate::store::retried;
use crate::{Error, Store, journal, kept, leases, needs, secrets};

/// Tenants that one claim looks at.
const TENANTS_MAX: u32 = 1000;
/// How often a claim begins again when another one was faster.
const RACES_MAX: u32 = 64;
/// Backends that one worker can serve.
const BACKENDS_MAX: usize = 16;
/// How long a build waits for the worker whose cache is warm.
pub const AFFINITY_WAIT: Duration = Duration::from_millis(300);
/// A worker that asked for builds this lately is alive.
const WORKER_ALIVE: Duration = Duration::from_secs(30);
/// How often a worker that asks is written down.
const WORKER_SEEN_EVERY: Duration = Duration::from_secs(10);
/// Workers that were not heard of for this long are forgotten.
const WORKER_KEPT: Duration = Duration::from_secs(24 * 3600);

/// What a new build of a scope means for those that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// They run beside each other, as far as the bound allows.
    #[default]
    Allow,
    /// One after the other.
    Queue,
    /// There must be none.
    Forbid,
    /// Those that wait are cancelled; one after the other.
    ReplacePending,
    /// All are cancelled; the new one starts when the running one has ended.
    ReplaceRunning,
}

impl Policy {
    const ALL: [Self; 5] =
        [Self::Allow, Self::Queue, Self::Forbid, Self::ReplacePending, Self::ReplaceRunning];

    /// Returns the word used in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Queue => "queue",
            Self::Forbid => "forbid",
            Self::ReplacePending => "replace_pending",
            Self::ReplaceRunning => "replace_running",
        }
    }

    /// Reads the word used in records.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.as_str() == text)
    }
}

/// What a worker can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub worker: WorkerId,
    /// Builds, or runs of builds.
    pub kind: BuildKind,
    /// The backends that it serves; builds that asked for none are always taken.
    pub backends: Vec<String>,
    /// How many builds it runs at once.
    pub slots: u32,
}

/// What became of one try to claim.
enum Try {
    Took(Vec<BuildId>),
    Nothing,
    TooLate,
}

/// Puts a build into the queue.
pub(crate) async fn enqueue(tx: &mut Tx, loaded: &Loaded) -> Result<(), Error> {
    let s = &loaded.record.submission;
    let sql = "INSERT INTO queue (build, tenant, scope, kind, backend, priority, queued_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let (kind, backend) = (kind_word(s.kind), s.backend.as_deref().unwrap_or(""));
    let queued: Timestamp = loaded.record.queued_at;
    let values = args![loaded.position, s.tenant, loaded.scope, kind, backend, s.priority, queued];
    tx.run(sql, values).await?;
    Ok(())
}

/// Keeps queue, leases, secrets and needs in step with a journal that has grown.
pub(crate) async fn after_append(
    tx: &mut Tx,
    loaded: &mut Loaded,
    before: &Record,
) -> Result<(), Error> {
    kept::after_append(tx, loaded, before).await?;
    let now = &loaded.record;
    if before.state == now.state && before.fence == now.fence {
        return Ok(());
    }
    if waits(before) && !waits(now) {
        tx.run("DELETE FROM queue WHERE build = $1", args![loaded.position]).await?;
    }
    if before.state.is_active() && !now.state.is_active() {
        tx.run("DELETE FROM leases WHERE build = $1", args![loaded.position]).await?;
    }
    if now.state.is_terminal() {
        secrets::erase_bound(tx, loaded.position).await?;
        needs::ended(tx, loaded).await?;
    }
    if !waits(before) && waits(now) {
        enqueue(tx, loaded).await?;
    }
    if before.fence != loaded.record.fence {
        loaded.batch = 0;
    }
    Ok(())
}

/// Does what a scope's policy says about a new build of it; before the build is there.
pub(crate) async fn make_way(
    tx: &mut Tx,
    (scope, name): (i64, &str),
    kind: BuildKind,
    policy: Policy,
    now: Timestamp,
) -> Result<Vec<BuildId>, Error> {
    let (waiting, running) = match policy {
        Policy::Allow | Policy::Queue => return Ok(Vec::new()),
        Policy::Forbid => {
            let found = members(tx, WAITING, scope, kind).await?.len();
            return match found + members(tx, RUNNING, scope, kind).await?.len() {
                0 => Ok(Vec::new()),
                _ => Err(Error::ScopeBusy(name.to_owned())),
            };
        }
        Policy::ReplacePending => (members(tx, WAITING, scope, kind).await?, Vec::new()),
        Policy::ReplaceRunning => {
            (members(tx, WAITING, scope, kind).await?, members(tx, RUNNING, scope, kind).await?)
        }
    };
    let wish = || Event::CancelRequested {
        by: "policy".into(),
        reason: Some("a newer build takes its place".into()),
    };
    let found: Vec<BuildId> = waiting.into_iter().chain(running).collect();
    for build in &found {
        tell(tx, *build, wish(), now).await?;
    }
    Ok(found)
}

const WAITING: &str = "SELECT b.id FROM queue q JOIN builds b ON b.position = q.build \
                       WHERE q.scope = $1 AND q.kind = $2";
const RUNNING: &str = "SELECT b.id FROM leases l JOIN builds b ON b.position = l.build \
                       WHERE l.scope = $1 AND l.kind = $2";

async fn members(
    tx: &mut Tx,
    sql: &'static str,
    scope: i64,
    kind: BuildKind,
) -> Result<Vec<BuildId>, Error> {
    tx.all(sql, args![scope, kind_word(kind)]).await?.iter().map(|row| row.build(0)).collect()
}

/// Says to a build that it is to stop; one that waits is cancelled then, but for a run that has begun:
/// its driver stops its builds first.
async fn tell(tx: &mut Tx, build: BuildId, wish: Event, now: Timestamp) -> Result<(), Error> {
    let mut loaded = builds::load(tx, build).await?;
    let r = &loaded.record;
    let begun = r.submission.kind == BuildKind::Workflow && r.attempt > 0;
    let end = (r.state == State::Queued && !begun).then_some(Event::State { to: State::Cancelled });
    let events = [wish].into_iter().chain(end).map(|event| Stamped::new(now, event));
    journal::append(tx, &mut loaded, None, events).await?;
    journal::announce(tx, build).await
}

impl Store {
    /// Sets what new builds of a scope mean for those that are there, and how many may be at work
    /// at once (none: no bound). All policies but [`Policy::Allow`] mean one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_scope_policy(
        &self,
        tenant: TenantId,
        scope: &str,
        policy: Policy,
        active_max: Option<u32>,
    ) -> Result<(), Error> {
        let bound = if policy == Policy::Allow { active_max } else { Some(1) };
        let sql = "INSERT INTO scopes (tenant, name, last_time, policy, active_max) \
                   VALUES ($1, $2, 0, $3, $4) ON CONFLICT (tenant, name) \
                   DO UPDATE SET policy = excluded.policy, active_max = excluded.active_max";
        self.db.run(sql, args![tenant, scope, policy.as_str(), bound]).await.map(drop)
    }

    /// Returns what [`Store::set_scope_policy`] has set for a scope, or what goes for all others.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn scope_policy(
        &self,
        tenant: TenantId,
        scope: &str,
    ) -> Result<(Policy, Option<u32>), Error> {
        let sql = "SELECT policy, active_max FROM scopes WHERE tenant = $1 AND name = $2";
        let Some(row) = self.db.maybe(sql, args![tenant, scope]).await? else {
            return Ok((Policy::default(), None));
        };
        let word = row.text(0)?;
        let policy = Policy::parse(&word)
            .ok_or_else(|| Error::damaged("a scope", format!("unknown policy '{word}'")))?;
        Ok((policy, row.maybe_int(1)?.and_then(|bound| u32::try_from(bound).ok())))
    }

    /// Gives a worker the next build, with its definition; none when nothing waits that it can
    /// take. The worker then has to be heard of ([`Store::heartbeat`]) and writes with the fencing
    /// number in the record.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim(&self, claim: &Claim, now: Timestamp) -> Result<Option<Record>, Error> {
        Ok(self.claim_up_to(claim, 1, || now).await?.pop())
    }

    /// As [`Store::claim`], with so many builds at most: one transaction costs one wait for the
    /// disk. Where other workers are alive it is one build, so that they get their share. The clock
    /// is read when the transaction has begun: the wait for a database that is away must not be a
    /// part of the leases.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_up_to(
        &self,
        claim: &Claim,
        most: usize,
        clock: impl Fn() -> Timestamp + Send + Sync,
    ) -> Result<Vec<Record>, Error> {
        for _ in 0..RACES_MAX {
            match retried(|| self.claim_once(claim, most, &clock)).await? {
                Try::Took(builds) => {
                    let mut records = Vec::with_capacity(builds.len());
                    for build in builds {
                        records.extend(self.get(build).await?);
                    }
                    return Ok(records);
                }
                Try::Nothing => return Ok(Vec::new()),
                Try::TooLate => {}
            }
        }
        Ok(Vec::new())
    }

    async fn claim_once(
        &self,
        claim: &Claim,
        most: usize,
        clock: &(impl Fn() -> Timestamp + Send + Sync),
    ) -> Result<Try, Error> {
        let mut tx = self.db.write().await?;
        let now = clock();
        let alone = see_worker(&mut tx, claim, now).await?;
        let most = if alone { most } else { most.min(1) };
        let (lease, mut taken) = (self.leased_until(now), Vec::new());
        while taken.len() < most
            && let Some(build) = candidate(&mut tx, claim, alone, now).await?
        {
            if !take(&mut tx, build, (claim.worker, lease), now).await? {
                if taken.is_empty() {
                    return Ok(Try::TooLate);
                }
                break;
            }
            journal::announce(&mut tx, build).await?;
            taken.push(build);
        }
        // Keeps what was written about the worker, too. A claim that is lost with the power is one
        // of a worker that is lost with it.
        tx.commit_early().await?;
        taken.iter().for_each(|build| self.wakeups.wake(*build));
        Ok(if taken.is_empty() { Try::Nothing } else { Try::Took(taken) })
    }

    /// Returns how many builds wait.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting(&self) -> Result<u64, Error> {
        let row = self.db.maybe("SELECT COUNT(*) FROM queue", args![]).await?;
        row.map_or(Ok(0), |row| row.count(0))
    }
}

/// Writes down that a worker asks for builds; says whether it is the only one that does.
async fn see_worker(tx: &mut Tx, claim: &Claim, now: Timestamp) -> Result<bool, Error> {
    if claim.kind != BuildKind::Build {
        return Ok(true);
    }
    let sql = "SELECT seen_at, slots FROM workers WHERE id = $1";
    let known = match tx.maybe(sql, args![claim.worker]).await? {
        Some(row) => {
            row.time(0)? > before(now, WORKER_SEEN_EVERY) && row.int(1)? == i64::from(claim.slots)
        }
        None => false,
    };
    if !known {
        let sql = "INSERT INTO workers (id, slots, seen_at) VALUES ($1, $2, $3) \
                   ON CONFLICT (id) DO UPDATE SET slots = excluded.slots, seen_at = excluded.seen_at";
        tx.run(sql, args![claim.worker, claim.slots, now]).await?;
        tx.run("DELETE FROM workers WHERE seen_at < $1", args![before(now, WORKER_KEPT)]).await?;
    }
    let sql = "SELECT COUNT(*) FROM workers WHERE seen_at > $1";
    Ok(tx.one(sql, args![before(now, WORKER_ALIVE)]).await?.int(0)? <= 1)
}

fn before(now: Timestamp, time: Duration) -> Timestamp {
    let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    Timestamp::from_nanos(now.nanos().saturating_sub(nanos))
}

/// Finds the build whose turn it is. On PostgreSQL it is locked against other claims, by the row
/// of its definition: its other rows are changed by those who hold its scope, and for them a
/// claim must not stand in the way.
async fn candidate(
    tx: &mut Tx,
    claim: &Claim,
    alone: bool,
    now: Timestamp,
) -> Result<Option<BuildId>, Error> {
    for tenant in waiting_tenants(tx, claim).await? {
        let look = Look { claim, tenant, alone, now };
        if let Some(build) = look.candidate(tx).await? {
            return Ok(Some(build));
        }
    }
    Ok(None)
}

/// Returns the tenants that have builds in the queue, those first whose turn it is.
async fn waiting_tenants(tx: &mut Tx, claim: &Claim) -> Result<Vec<TenantId>, Error> {
    // Most of the time nobody waits, or one does.
    let sql = "SELECT (SELECT q.tenant FROM queue q WHERE q.kind = $1 ORDER BY q.tenant LIMIT 1), \
               (SELECT q.tenant FROM queue q WHERE q.kind = $1 ORDER BY q.tenant DESC LIMIT 1)";
    let ends = tx.one(sql, args![kind_word(claim.kind)]).await?;
    match (ends.maybe_bytes(0)?, ends.maybe_bytes(1)?) {
        (None, _) | (_, None) => return Ok(Vec::new()),
        (first, last) if first == last => return Ok(vec![ends.tenant(0)?]),
        _ => {}
    }
    // Steps from tenant to tenant through the index instead of reading the whole queue.
    let sql = "WITH RECURSIVE w(tenant) AS (\
                 SELECT (SELECT q.tenant FROM queue q WHERE q.kind = $1 ORDER BY q.tenant LIMIT 1) \
                 UNION ALL \
                 SELECT (SELECT q.tenant FROM queue q WHERE q.kind = $1 AND q.tenant > w.tenant \
                         ORDER BY q.tenant LIMIT 1) FROM w WHERE w.tenant IS NOT NULL) \
               SELECT w.tenant FROM w LEFT JOIN turns t ON t.tenant = w.tenant \
               WHERE w.tenant IS NOT NULL \
               ORDER BY (SELECT COUNT(*) FROM leases l \
                         WHERE l.tenant = w.tenant AND l.kind = $1), \
                 COALESCE(t.at, 0), w.tenant LIMIT $2";
    let tenants = tx.all(sql, args![kind_word(claim.kind), TENANTS_MAX]).await?;
    tenants.iter().map(|row| row.tenant(0)).collect()
}

/// A look at one tenant's part of the queue.
struct Look<'a> {
    claim: &'a Claim,
    tenant: TenantId,
    /// No other worker is there to leave a build to.
    alone: bool,
    now: Timestamp,
}

impl Look<'_> {
    async fn candidate(&self, tx: &mut Tx) -> Result<Option<BuildId>, Error> {
        let Some(first) = self.first(tx, &Among::All).await? else { return Ok(None) };
        let (priority, queued, cold) = (first.int(1)?, first.time(2)?, !first.flag(3)?);
        if !self.alone && cold && queued > before(self.now, AFFINITY_WAIT) {
            // All that come after it in the order are as fresh: the search is short.
            if let Some(row) = self.first(tx, &Among::Warm { priority }).await? {
                return row.build(0).map(Some);
            }
        }
        first.build(0).map(Some)
    }

    /// Returns the first build that the worker can take: its id, its priority, since when it
    /// waits, and whether the worker built its scope last.
    async fn first(&self, tx: &mut Tx, among: &Among) -> Result<Option<Row>, Error> {
        let mut values = args![kind_word(self.claim.kind), self.tenant, self.claim.worker, ""];
        values.extend(self.claim.backends.iter().take(BACKENDS_MAX).map(Arg::from));
        let backends: Vec<String> = (4..=values.len()).map(|n| format!("${n}")).collect();
        let mut more = String::new();
        match among {
            Among::All if self.alone => {}
            Among::All => more = self.not_left_to_others(&mut values),
            Among::Warm { priority } => {
                values.extend(args![*priority]);
                more = format!(" AND q.priority = ${} AND s.worker = $3", values.len());
            }
        }
        let lock = if tx.is_postgres() { " FOR UPDATE OF d SKIP LOCKED" } else { "" };
        let sql = format!(
            "SELECT b.id, q.priority, q.queued_at, \
             CASE WHEN s.worker = $3 THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END \
             FROM queue q JOIN definitions d ON d.build = q.build \
             JOIN builds b ON b.position = q.build JOIN scopes s ON s.id = q.scope \
             WHERE q.kind = $1 AND q.tenant = $2 AND q.backend IN ({}) AND q.scope NOT IN \
             (SELECT l.scope FROM leases l JOIN scopes s ON s.id = l.scope \
              WHERE l.tenant = $2 AND l.kind = $1 AND s.active_max IS NOT NULL \
              GROUP BY l.scope, s.active_max HAVING COUNT(*) >= s.active_max){more} \
             ORDER BY q.priority DESC, q.build LIMIT 1{lock}",
            backends.join(",")
        );
        tx.maybe(AssertSqlSafe(sql), values).await
    }

    /// Returns the condition that a build is not left to the worker whose cache is warm. Waits
    /// that begin in the future are those of another clock, and not looked at.
    fn not_left_to_others(&self, values: &mut Vec<Arg>) -> String {
        let fresh = before(self.now, AFFINITY_WAIT);
        values.extend(args![fresh, self.now, before(self.now, WORKER_ALIVE)]);
        let n = values.len();
        format!(
            " AND NOT (q.queued_at > ${} AND q.queued_at <= ${} AND s.worker IS NOT NULL \
             AND s.worker <> $3 AND EXISTS (SELECT 1 FROM workers o \
             WHERE o.id = s.worker AND o.seen_at > ${} AND o.slots > (SELECT COUNT(*) \
             FROM leases l WHERE l.worker = o.id AND l.kind = $1)))",
            n - 2,
            n - 1,
            n
        )
    }
}

/// Which builds a look is for.
enum Among {
    /// All that are not left to another worker.
    All,
    /// Those of a priority whose scope this worker built last.
    Warm { priority: i64 },
}

/// Claims a build, unless somebody was faster: then says no.
async fn take(
    tx: &mut Tx,
    build: BuildId,
    (worker, until): (WorkerId, Timestamp),
    now: Timestamp,
) -> Result<bool, Error> {
    let mut loaded = match builds::load(tx, build).await {
        Err(Error::NoSuchBuild(_)) => return Ok(false),
        other => other?,
    };
    let kind = loaded.record.submission.kind;
    // With the scope's lock in hand, look again.
    if !waits(&loaded.record) || full(tx, loaded.scope, kind).await? {
        return Ok(false);
    }
    let (attempt, fence) = (loaded.record.attempt + 1, loaded.record.fence + 1);
    let claimed = Event::Claimed { attempt, fence, worker };
    journal::append(tx, &mut loaded, None, [Stamped::new(now, claimed)]).await?;
    leases::grant(tx, &loaded, worker, until).await?;
    let sql = "INSERT INTO turns (tenant, at) VALUES ($1, $2) \
               ON CONFLICT (tenant) DO UPDATE SET at = excluded.at";
    tx.run(sql, args![loaded.record.submission.tenant, now]).await?;
    if kind == BuildKind::Build {
        let sql = "UPDATE scopes SET worker = $2 \
                   WHERE id = $1 AND (worker IS NULL OR worker <> $2)";
        tx.run(sql, args![loaded.scope, worker]).await?;
    }
    Ok(true)
}

async fn full(tx: &mut Tx, scope: i64, kind: BuildKind) -> Result<bool, Error> {
    let sql = "SELECT COUNT(*) FROM scopes s WHERE s.id = $1 AND s.active_max IS NOT NULL \
               AND s.active_max <= \
               (SELECT COUNT(*) FROM leases l WHERE l.scope = $1 AND l.kind = $2)";
    tx.one(sql, args![scope, kind_word(kind)]).await?.flag(0)
}
