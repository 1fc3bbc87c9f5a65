//! The queue: who goes next.

use ashlar_core::Timestamp;
use ashlar_core::journal::Record;

use crate::Error;
use crate::builds::{Loaded, waits};
use crate::db::{Tx, args};

/// Puts a build into the queue.
pub(crate) async fn enqueue(tx: &mut Tx, loaded: &Loaded) -> Result<(), Error> {
    let s = &loaded.record.submission;
    let sql = "INSERT INTO queue (build, tenant, scope, priority, queued_at) \
               VALUES ($1, $2, $3, $4, $5)";
    let queued: Timestamp = loaded.record.queued_at;
    tx.run(sql, args![loaded.position, s.tenant, loaded.scope, s.priority, queued]).await?;
    Ok(())
}

/// Keeps queue and leases in step with a journal that has grown.
pub(crate) async fn after_append(
    tx: &mut Tx,
    loaded: &mut Loaded,
    before: &Record,
) -> Result<(), Error> {
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
    if !waits(before) && waits(now) {
        enqueue(tx, loaded).await?;
    }
    if before.fence != loaded.record.fence {
        loaded.batch = 0;
    }
    Ok(())
}
