//! What builds that have not ended need of others: retention leaves it alone until they have.

use ashlar_core::journal::{BuildKind, Record};
use ashlar_core::{BuildId, TenantId};

use crate::Error;
use crate::builds::Loaded;
use crate::db::{Tx, args};

/// Writes what a build needs that was just accepted, and that the run which it belongs to needs it.
pub(crate) async fn write(tx: &mut Tx, loaded: &Loaded, needed: &[BuildId]) -> Result<(), Error> {
    let submission = &loaded.record.submission;
    let is_run = submission.kind == BuildKind::Workflow;
    for other in needed {
        match held(tx, *other).await? {
            Some(owner) if !is_run || owner == submission.tenant => {
                insert(tx, loaded.position, *other).await?;
            }
            // A node of a run says so itself, should its turn come.
            _ if is_run => {}
            _ => return Err(Error::NotKept(*other)),
        }
    }
    by_run(tx, submission.parent, submission.build).await
}

/// Writes that the run which a build belongs to needs it, unless that has ended.
pub(crate) async fn by_run(
    tx: &mut Tx,
    parent: Option<BuildId>,
    build: BuildId,
) -> Result<(), Error> {
    let Some(parent) = parent else { return Ok(()) };
    let sql = "SELECT position FROM builds WHERE id = $1 AND finished_at IS NULL";
    match tx.maybe(sql, args![parent]).await? {
        Some(row) => insert(tx, row.int(0)?, build).await,
        None => Ok(()),
    }
}

pub(crate) async fn insert(tx: &mut Tx, build: i64, needed: BuildId) -> Result<(), Error> {
    let sql = "INSERT INTO needs (build, needed) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    tx.run(sql, args![build, needed]).await.map(drop)
}

/// Returns whose build it is, if it still has what it made. Whoever lets that go holds the build's
/// scope, so that nobody does before what is written here can be seen.
async fn held(tx: &mut Tx, build: BuildId) -> Result<Option<TenantId>, Error> {
    let sql = if tx.is_postgres() {
        "SELECT id FROM scopes WHERE id = (SELECT scope FROM builds WHERE id = $1) FOR SHARE"
    } else {
        "SELECT id FROM scopes WHERE id = (SELECT scope FROM builds WHERE id = $1)"
    };
    if tx.maybe(sql, args![build]).await?.is_none() {
        return Ok(None);
    }
    let sql = "SELECT record FROM builds WHERE id = $1";
    let Some(row) = tx.maybe(sql, args![build]).await? else { return Ok(None) };
    let record: Record = row.json(0, &format!("build {build}"))?;
    Ok((!record.artifacts.is_empty()).then_some(record.submission.tenant))
}

/// Says whether any build needs one. Rows of a build that ended while one of its own was accepted
/// say nothing.
pub(crate) async fn is_needed(tx: &mut Tx, build: BuildId) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM needs n JOIN builds b ON b.position = n.build \
               WHERE n.needed = $1 AND b.finished_at IS NULL LIMIT 1";
    Ok(tx.maybe(sql, args![build]).await?.is_some())
}

/// A build has ended: it needs nothing any more.
pub(crate) async fn ended(tx: &mut Tx, loaded: &Loaded) -> Result<(), Error> {
    tx.run("DELETE FROM needs WHERE build = $1", args![loaded.position]).await.map(drop)
}

/// A build is forgotten: nobody can need it any more.
pub(crate) async fn forget(tx: &mut Tx, loaded: &Loaded) -> Result<(), Error> {
    let build = loaded.record.submission.build;
    tx.run("DELETE FROM needs WHERE needed = $1", args![build]).await.map(drop)
}
