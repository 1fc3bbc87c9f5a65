//! The task that writes what a build says.

use std::sync::Arc;
use std::time::Duration;

use ashlar_core::journal::Record;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout_at};

use super::pack::Batch;
use super::{Shared, now};
use crate::journal::Writer;
use crate::leases::Held;
use crate::{Error, Store};

/// How long a database that does not answer is asked again.
const RETRY_MAX: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Why a writer gives up that cannot reach the database.
const CUT_OFF: &str = "the database has not answered for as long as a worker is believed to live; \
                       another one may have the build by now";
/// Why nothing is written any more once the last of an attempt is.
const ENDED: &str = "the attempt has ended";

/// Writes batches in order, and says that the worker is alive.
pub(super) struct Task {
    shared: Arc<Shared>,
    store: Store,
    fence: u64,
    batch: u64,
    /// Until when nobody else can have the build: a lease after the last heartbeat that arrived.
    held_until: Instant,
}

impl Task {
    pub(super) fn new(shared: Arc<Shared>, store: Store, fence: u64) -> Self {
        let held_until = Instant::now() + store.lease();
        Self { shared, store, fence, batch: 0, held_until }
    }

    pub(super) async fn run(mut self, mut batches: Receiver<Batch>) {
        let every = self.store.heartbeat_every();
        let mut heartbeat = Instant::now() + every;
        loop {
            // Silence until the next heartbeat is due ends the wait too, and so does the lease.
            let due = heartbeat.min(self.held_until);
            match timeout_at(due, batches.recv()).await {
                Ok(Some(batch)) => {
                    if !self.write(batch).await {
                        return;
                    }
                }
                Ok(None) => return self.end(),
                Err(_) => {}
            }
            if Instant::now() >= due {
                heartbeat = Instant::now() + every;
                if !self.beat().await {
                    return;
                }
            }
        }
    }

    /// There are no more batches: all that was said is written, unless the packer broke down.
    fn end(&self) {
        if !self.shared.lock().closed {
            self.shared.give_up("what packs its journal has ended");
        }
    }

    /// Writes a batch; says whether to go on.
    async fn write(&mut self, batch: Batch) -> bool {
        self.batch += 1;
        // A database that cannot be reached may keep a call waiting for ever.
        let Ok(appended) = timeout_at(self.held_until, self.append(&batch)).await else {
            return self.cut_off();
        };
        match appended {
            Ok(record) => {
                let ended = record.state.is_terminal() || batch.decide.is_some();
                self.shared.written(batch.bytes);
                self.shared.progress.send_modify(|p| {
                    p.written += batch.count;
                    p.cancelled |= record.cancellation.is_some();
                    p.record = Some(Arc::new(record));
                    if ended {
                        p.error = Some(ENDED.into());
                    }
                });
                if ended {
                    self.shared.give_up(ENDED);
                }
                !ended
            }
            Err(error) => {
                self.shared.give_up(&chain(&error));
                false
            }
        }
    }

    async fn append(&self, batch: &Batch) -> Result<Record, Error> {
        let writer = Writer::Worker { fence: self.fence, batch: Some(self.batch) };
        let until = Instant::now() + RETRY_MAX;
        loop {
            match self
                .store
                .append_said(self.shared.build, writer, &batch.said, batch.decide.as_deref())
                .await
            {
                Err(error) if error.is_transient() && Instant::now() < until => {
                    tracing::warn!(build = %self.shared.build, error = chain(&error), "retrying");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Says that the worker is alive; says whether to go on.
    async fn beat(&mut self) -> bool {
        let sent = Instant::now();
        let heartbeat = self.store.heartbeat(self.shared.build, self.fence, now);
        let Ok(held) = timeout_at(self.held_until, heartbeat).await else {
            return self.cut_off();
        };
        match held {
            Ok(Held::Yes { cancellation }) => {
                self.held_until = sent + self.store.lease();
                let cancelled = cancellation.is_some();
                self.shared.progress.send_modify(|p| p.cancelled |= cancelled);
                true
            }
            Ok(Held::No) => {
                self.shared.give_up("the build was given to another worker or has ended");
                false
            }
            Err(error) => {
                tracing::warn!(build = %self.shared.build, error = chain(&error), "no heartbeat");
                Instant::now() < self.held_until || self.cut_off()
            }
        }
    }

    /// Gives the build up, which somebody else may have by now: there is nothing to go on with.
    fn cut_off(&self) -> bool {
        self.shared.progress.send_modify(|p| p.cut_off = true);
        self.shared.give_up(CUT_OFF);
        false
    }
}

/// Returns an error's text with those of its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
