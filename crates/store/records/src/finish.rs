//! Ends that change more than a journal: names that move on success, leases of a dead process.

use ashlar_core::journal::{Event, Record};
use ashlar_core::{BuildId, Timestamp, WorkerId};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::aliases::{Namespace, NewAlias, or_all};
use crate::db::{Arg, Tx, args};
use crate::journal::Stamped;
use crate::{Error, Store, builds, journal};

/// Names that one look returns at most.
pub const ALIASES_MAX: u32 = 1000;

/// What is written last of an attempt at a build.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// What happened last; the last of it ends the attempt.
    pub events: Vec<Event>,
    /// Names that lead to the build from then on.
    pub names: Vec<NewAlias>,
}

/// Decides how an attempt ends, once all that it said is written. It is asked again when the
/// database has to be.
pub type Decide = dyn Fn(&Record) -> Ending + Send + Sync;

pub(crate) async fn put_alias(tx: &mut Tx, new: &NewAlias, target: Uuid) -> Result<(), Error> {
    let n = &new.namespace;
    let sql = "INSERT INTO aliases (dialect, tenant, kind, alias, target, promoted) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (dialect, tenant, kind, alias) \
               DO UPDATE SET target = excluded.target, promoted = excluded.promoted";
    let values = args![&n.dialect, or_all(n.tenant), &n.kind, &new.alias, target, new.protects];
    tx.run(sql, values).await.map(drop)
}

/// Returns the first text, in the order of code points, that comes after all that begin with a prefix;
/// none when nothing does.
fn prefix_end(prefix: &str) -> Option<String> {
    let mut kept = prefix.to_owned();
    while let Some(last) = kept.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            kept.push(next);
            return Some(kept);
        }
    }
    None
}

impl Store {
    /// Appends a worker's last events and lets names lead to the build, in one transaction: who
    /// follows a name finds a build that has ended, and no ended build lacks its names.
    ///
    /// # Errors
    /// As [`Store::append`]; nothing is written then.
    pub async fn finish(
        &self,
        build: BuildId,
        fence: u64,
        events: impl IntoIterator<Item = Stamped, IntoIter: Send> + Send,
        names: &[NewAlias],
    ) -> Result<Record, Error> {
        let mut tx = self.db.write().await?;
        let mut loaded = builds::load(&mut tx, build).await?;
        journal::append(&mut tx, &mut loaded, Some(fence), events).await?;
        for name in names {
            put_alias(&mut tx, name, build.uuid()).await?;
        }
        journal::announce(&mut tx, build).await?;
        tx.commit().await?;
        self.wakeups.wake(build);
        Ok(loaded.record)
    }

    /// Lets names lead to a thing, all or none, wherever they led before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_aliases(&self, names: &[NewAlias], target: Uuid) -> Result<(), Error> {
        let mut tx = self.db.write().await?;
        for name in names {
            put_alias(&mut tx, name, target).await?;
        }
        tx.commit().await
    }

    /// Lists names that begin with a text, with what they stand for, in the order of code points,
    /// after a name. Costs what it returns, however many names there are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn aliases_from(
        &self,
        namespace: &Namespace,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Vec<(String, Uuid)>, Error> {
        let n = namespace;
        let (from, more) = if after >= prefix { (after, ">") } else { (prefix, ">=") };
        let mut values = args![&n.dialect, or_all(n.tenant), &n.kind, from, limit.min(ALIASES_MAX)];
        let end = prefix_end(prefix);
        let until = if end.is_some() { " AND alias < $6" } else { "" };
        values.extend(end.map(Arg::from));
        let sql = AssertSqlSafe(format!(
            "SELECT alias, target FROM aliases WHERE dialect = $1 AND tenant = $2 AND kind = $3 \
             AND alias {more} $4{until} ORDER BY alias LIMIT $5"
        ));
        let rows = self.db.all(sql, values).await?;
        rows.iter().map(|row| Ok((row.text(0)?, row.uuid(1)?))).collect()
    }

    /// Declares a worker lost at once, when its process is known to be dead: the next
    /// [`Store::expire`] ends its leases. Returns how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lose_worker(&self, worker: WorkerId) -> Result<u64, Error> {
        let longest_ago = Timestamp::from_nanos(0);
        let sql = "UPDATE leases SET expires_at = $2 WHERE worker = $1";
        let mut tx = self.db.write().await?;
        let lost = tx.run(sql, args![worker, longest_ago]).await?;
        tx.commit().await.map(|()| lost)
    }
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn what_begins_with_a_prefix_lies_before_its_end() {
        assert_eq!(prefix_end("app:").as_deref(), Some("app;"));
        assert_eq!(prefix_end("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(prefix_end("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(prefix_end("\u{10ffff}"), None);
        assert_eq!(prefix_end(""), None);
    }
}
