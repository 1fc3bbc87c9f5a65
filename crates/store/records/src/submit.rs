//! Accepts builds.

use ashlar_core::journal::{Event, Record, Submission};
use ashlar_core::{Timestamp, WorkerId};

use crate::builds::{self, waits};
use crate::journal::Stamped;
use crate::{Error, Store, journal, leases, queue};

/// The fencing number of a build that is driven by the process which accepted it.
pub const FIRST_FENCE: u64 = 1;

impl Store {
    /// Accepts a build that the calling process drives itself from the start: it never waits in
    /// the queue. The caller holds it with [`FIRST_FENCE`] and has to be heard of.
    ///
    /// # Errors
    /// When the build exists already, its definition is too large or the database fails.
    pub async fn begin(
        &self,
        submission: &Submission,
        worker: WorkerId,
        now: Timestamp,
    ) -> Result<Record, Error> {
        let mut tx = self.db.write().await?;
        let mut loaded = builds::accept(&mut tx, submission, now).await?;
        if waits(&loaded.record) {
            queue::enqueue(&mut tx, &loaded).await?;
        }
        let claimed = Event::Claimed { attempt: 1, fence: FIRST_FENCE, worker };
        journal::append(&mut tx, &mut loaded, None, [Stamped::new(now, claimed)]).await?;
        leases::grant(&mut tx, &loaded, worker, now).await?;
        journal::announce(&mut tx, submission.build).await?;
        tx.commit().await?;
        self.wakeups.wake(submission.build);
        let definition = submission.definition.clone();
        Ok(Record {
            submission: Submission { definition, ..loaded.record.submission },
            ..loaded.record
        })
    }
}
