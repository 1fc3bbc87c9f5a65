//! Lets readers give way to writers that cannot keep up: a build says more than the database takes
//! for a while, and what readers take from the machine would slow it down. They may lag.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a reader gives way before it reads on nevertheless, a piece at a time.
const GIVE_WAY: Duration = Duration::from_millis(50);

/// Whether writers of this process are behind.
#[derive(Default)]
pub(crate) struct Pressure {
    behind: AtomicUsize,
    relieved: Notify,
}

impl Pressure {
    /// Says that one more writer is behind.
    pub(crate) fn raise(&self) {
        self.behind.fetch_add(1, Ordering::AcqRel);
    }

    /// Says that a writer is no longer behind.
    pub(crate) fn lower(&self) {
        if self.behind.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.relieved.notify_waiters();
        }
    }

    /// Waits while writers are behind, but not for long.
    pub(crate) async fn give_way(&self) {
        let relieved = self.relieved.notified();
        if self.behind.load(Ordering::Acquire) > 0 {
            // Time is up: whoever reads gets a little further all the same.
            let _ = timeout(GIVE_WAY, relieved).await;
        }
    }
}
