//! What the workers of a process share: slots, the attempts at work, the wish to stop.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ashlar_core::{BuildId, WorkerId};
use ashlar_sandbox::Cancel;
use tokio::sync::{Notify, Semaphore, watch};

/// The workers' shared state.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(super) id: WorkerId,
    pub(super) slots: Arc<Semaphore>,
    slots_count: usize,
    pub(super) wake: Notify,
    draining: AtomicBool,
    /// Whether the blob store did not answer when it was asked last.
    store_away: AtomicBool,
    /// Builds that a drain has given up.
    pub(super) giving_up: AtomicBool,
    /// The attempts at work, by their fencing numbers too: a new attempt may begin here before the
    /// one that was given up has ended.
    running: Mutex<HashMap<BuildId, (u64, Cancel)>>,
    /// Signalled when a build has ended.
    ended: Notify,
    /// True once a drain is over.
    stopped: watch::Sender<bool>,
}

impl Workers {
    pub(crate) fn new(id: WorkerId, slots: usize) -> Self {
        Self {
            id,
            slots: Arc::new(Semaphore::new(slots)),
            slots_count: slots,
            wake: Notify::new(),
            draining: AtomicBool::new(false),
            store_away: AtomicBool::new(false),
            giving_up: AtomicBool::new(false),
            running: Mutex::default(),
            ended: Notify::new(),
            stopped: watch::Sender::new(false),
        }
    }

    /// Returns who claims builds for this process.
    pub(crate) const fn id(&self) -> WorkerId {
        self.id
    }

    /// Lets an idle worker look at the queue.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Stops a build if it runs here.
    pub(crate) fn cancel(&self, build: BuildId) {
        if let Some((_, cancel)) = self.running().get(&build) {
            cancel.cancel();
        }
    }

    pub(crate) fn running_count(&self) -> usize {
        self.running().len()
    }

    pub(crate) const fn slots_count(&self) -> usize {
        self.slots_count
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    pub(super) fn is_store_away(&self) -> bool {
        self.store_away.load(Ordering::Acquire)
    }

    pub(super) fn set_store_away(&self, away: bool) {
        self.store_away.store(away, Ordering::Release);
    }

    /// Takes no more builds.
    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake();
    }

    /// Stops all builds, to be run again by somebody else.
    pub(crate) fn give_up(&self) {
        self.giving_up.store(true, Ordering::Release);
        self.running().values().for_each(|(_, cancel)| cancel.cancel());
    }

    /// Waits until no build runs here.
    pub(crate) async fn idle(&self) {
        loop {
            let ended = self.ended.notified();
            if self.running_count() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Says that the drain is over.
    pub(crate) fn stop(&self) {
        self.stopped.send_replace(true);
    }

    pub(crate) async fn stopped(&self) {
        // The sender lives as long as `self`.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    fn running(&self) -> MutexGuard<'_, HashMap<BuildId, (u64, Cancel)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn register(&self, build: BuildId, fence: u64, cancel: &Cancel) {
        self.running().insert(build, (fence, cancel.clone()));
        if self.giving_up.load(Ordering::Acquire) {
            cancel.cancel();
        }
    }

    pub(super) fn forget(&self, build: BuildId, fence: u64) {
        let mut running = self.running();
        if running.get(&build).is_some_and(|(held, _)| *held == fence) {
            running.remove(&build);
        }
        drop(running);
        self.ended.notify_waiters();
        self.wake();
    }
}
