//! Removing objects of a blob store that several servers share.
//!
//! An object may be removed that nothing refers to, but a server may be about to refer to it: it
//! looks whether the blob is there, and then writes a row that names it. An object store has no
//! transaction that spans both, so the database orders them:
//!
//! 1. Whoever is to refer to a blob has a right to it first ([`Store::grant`]), then sees to it that
//!    the object is there, and only then writes what needs it.
//! 2. Whoever removes objects first writes down which ([`Store::begin_removal`]); what anybody has a
//!    right to, or a build or document holds, is left out. Then the objects go, then the rows
//!    ([`Store::end_removal`]).
//! 3. The two transactions exclude each other. So either the right is seen and the object stays, or
//!    the removal is seen and the right waits for its end; the blob is stored again after that.
//!
//! A server that dies while it removes leaves rows behind. They are void after [`REMOVAL_MAX`]; a
//! server therefore removes nothing later than [`REMOVAL_TIME`] after it wrote them down. In between
//! lies the time of the last request and what the servers' clocks may differ by.

use std::time::Duration;

use ashlar_core::{Digest, Timestamp, WorkerId};
use sqlx::AssertSqlSafe;

use crate::db::{Arg, Tx, args, pieces, placeholders};
use crate::grants::before;
use crate::leases::after;
use crate::store::retried;
use crate::{Error, Store};

/// How long after [`Store::begin_removal`] objects may be removed.
pub const REMOVAL_TIME: Duration = Duration::from_secs(60);
/// How long a removal is waited for.
pub const REMOVAL_MAX: Duration = Duration::from_secs(300);

/// Taken by whoever grants (shared) and by whoever begins removals, on PostgreSQL.
const ADVISORY_LOCK: i64 = 0x6173_686c_6173;

/// What a transaction needs to be sure of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removals {
    /// No removal begins before it ends.
    MustNotBegin,
    /// It begins removals: no right is given before it ends.
    Begin,
}

/// Takes the lock that orders rights and removals. SQLite has one writer anyway.
pub(crate) async fn lock(tx: &mut Tx, what: Removals) -> Result<(), Error> {
    if tx.is_postgres() {
        let sql = match what {
            Removals::MustNotBegin => "SELECT pg_advisory_xact_lock_shared($1)",
            Removals::Begin => "SELECT pg_advisory_xact_lock($1)",
        };
        tx.all(sql, args![ADVISORY_LOCK]).await?;
    }
    Ok(())
}

/// Says whether one of a few blobs is being removed.
pub(crate) async fn under_way(
    tx: &mut Tx,
    digests: &[Digest],
    now: Timestamp,
) -> Result<bool, Error> {
    let sql = format!(
        "SELECT 1 FROM removals WHERE digest IN (VALUES {}) AND began_at >= ${} LIMIT 1",
        placeholders(1, digests.len(), 1),
        digests.len() + 1
    );
    let mut values: Vec<Arg> = digests.iter().map(|d| Arg::from(*d)).collect();
    values.push(before(now, REMOVAL_MAX).into());
    Ok(tx.maybe(AssertSqlSafe(sql), values).await?.is_some())
}

impl Store {
    /// Writes down that blobs are being removed from the store; returns those that may be: nobody
    /// has a right to them, nothing holds them and nobody else removes them. Those that something
    /// *lists* (a context its files) are for the caller to leave out.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_removal(
        &self,
        digests: &[Digest],
        now: Timestamp,
    ) -> Result<Vec<Digest>, Error> {
        retried(|| self.begin_removal_once(digests, now)).await
    }

    async fn begin_removal_once(
        &self,
        digests: &[Digest],
        now: Timestamp,
    ) -> Result<Vec<Digest>, Error> {
        let mut tx = self.db.write().await?;
        lock(&mut tx, Removals::Begin).await?;
        let sql = "DELETE FROM removals WHERE began_at < $1";
        tx.run(sql, args![before(now, REMOVAL_MAX)]).await?;
        let mut begun = Vec::new();
        for digest in digests {
            let sql = "SELECT 1 FROM grants WHERE digest = $1 UNION ALL \
                       SELECT 1 FROM holds WHERE digest = $1 LIMIT 1";
            if tx.maybe(sql, args![*digest]).await?.is_some() {
                continue;
            }
            let sql = "INSERT INTO removals (digest, began_at) VALUES ($1, $2) \
                       ON CONFLICT (digest) DO NOTHING";
            if tx.run(sql, args![*digest, now]).await? == 1 {
                begun.push(*digest);
            }
        }
        tx.commit().await.map(|()| begun)
    }

    /// Writes down that the removal of blobs that [`begin_removal`](Self::begin_removal) returned
    /// at that time is over, however it went.
    ///
    /// # Errors
    /// When the database fails; they are waited for until [`REMOVAL_MAX`] then.
    pub async fn end_removal(&self, digests: &[Digest], began: Timestamp) -> Result<(), Error> {
        let mut tx = self.db.write().await?;
        for piece in pieces(digests) {
            for digest in piece {
                let sql = "DELETE FROM removals WHERE digest = $1 AND began_at = $2";
                tx.run(sql, args![*digest, began]).await?;
            }
        }
        tx.commit().await
    }

    /// Takes, or prolongs, the turn to do some work that one server of all does at a time; says
    /// whether it is the caller's. It is not when somebody else is at it, or the work was done less
    /// than `every` ago.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_turn(
        &self,
        name: &str,
        holder: WorkerId,
        now: Timestamp,
        time: Duration,
        every: Duration,
    ) -> Result<bool, Error> {
        let sql = "INSERT INTO duties (name, holder, until, done_at) VALUES ($1, $2, $3, 0) \
                   ON CONFLICT (name) DO UPDATE \
                   SET holder = excluded.holder, until = excluded.until \
                   WHERE duties.until < $4 AND duties.done_at <= $5 \
                   OR duties.until >= $4 AND duties.holder = excluded.holder";
        let values = args![name, holder, after(now, time), now, before(now, every)];
        Ok(self.db.run(sql, values).await? == 1)
    }

    /// Gives the turn back; `done` says that the work was done.
    ///
    /// # Errors
    /// When the database fails; the turn then ends by itself.
    pub async fn end_turn(
        &self,
        name: &str,
        holder: WorkerId,
        now: Timestamp,
        done: bool,
    ) -> Result<(), Error> {
        let sql = "UPDATE duties SET until = 0, done_at = CASE WHEN $4 = 1 THEN $3 ELSE done_at END \
                   WHERE name = $1 AND holder = $2";
        self.db.run(sql, args![name, holder, now, done]).await.map(drop)
    }
}
