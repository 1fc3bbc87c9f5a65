//! How a caller watches and stops a transfer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use ashlar_core::Digest;

/// How far the transfer of one blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The blob.
    pub digest: Digest,
    /// Bytes that are there.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What a caller gives to a transfer: a callback for progress and a flag that stops it.
///
/// The callback runs on the threads that transfer, possibly on several at once.
#[derive(Clone, Copy)]
pub struct Transfer<'a> {
    on_progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    cancel: Option<&'a AtomicBool>,
    /// Set when a sibling of this transfer failed.
    stop: Option<&'a AtomicBool>,
}

impl<'a> Transfer<'a> {
    /// Returns a transfer that nobody watches or stops.
    pub const fn quiet() -> Self {
        Self { on_progress: None, cancel: None, stop: None }
    }

    /// Calls `callback` as bytes arrive.
    #[must_use]
    pub const fn with_progress(mut self, callback: &'a (dyn Fn(Progress) + Sync)) -> Self {
        self.on_progress = Some(callback);
        self
    }

    /// Stops soon (within 50 ms) after `flag` is set.
    #[must_use]
    pub const fn with_cancel(mut self, flag: &'a AtomicBool) -> Self {
        self.cancel = Some(flag);
        self
    }

    /// Returns the same without the callback, for small things that no bar should show.
    pub(crate) const fn without_progress(mut self) -> Self {
        self.on_progress = None;
        self
    }

    pub(crate) fn report(&self, digest: Digest, done: u64, total: u64) {
        if let Some(callback) = self.on_progress {
            callback(Progress { digest, done, total });
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        let is_set = |flag: Option<&AtomicBool>| flag.is_some_and(|f| f.load(Ordering::Relaxed));
        is_set(self.cancel) || is_set(self.stop)
    }

    /// Runs `work` on all `items`, at most `most` at once. The first failure stops the others and
    /// is returned.
    ///
    /// # Errors
    /// The first error of `work`.
    pub(crate) fn parallel<T: Sync, E: Send>(
        &self,
        most: usize,
        items: &[T],
        work: impl Fn(&T, &Transfer<'_>) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        if let [only] = items {
            return work(only, self);
        }
        let (next, stop, first) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
        let run = || {
            let transfer = Transfer { stop: Some(&stop), ..*self };
            while !stop.load(Ordering::Relaxed)
                && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
            {
                if let Err(error) = work(item, &transfer) {
                    // Under the lock, so that "cancelled" of a sibling never comes first.
                    let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                    stop.store(true, Ordering::Relaxed);
                    first.get_or_insert(error);
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..items.len().min(most) {
                scope.spawn(run);
            }
        });
        first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}
