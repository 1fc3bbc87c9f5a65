//! A token that ends running steps.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

/// Cheap to clone; once cancelled it stays so. Backed by an eventfd, so that a wait for it costs nothing.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cancelled: AtomicBool,
    /// Written once and never read: readable means cancelled, for every waiter.
    event: OwnedFd,
    calls: Mutex<Calls>,
}

/// What is called when the token is cancelled, by a number that is used once.
#[derive(Default)]
struct Calls {
    last: u64,
    waiting: BTreeMap<u64, Box<dyn FnOnce() + Send>>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Cancel {
    /// Makes a token that is not cancelled.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (cancelled, calls) = (AtomicBool::new(false), Mutex::default());
        Ok(Self(Arc::new(Inner { cancelled, event, calls })))
    }

    /// Ends every step that runs under this token; at once for the caller, within a second for the steps.
    pub fn cancel(&self) {
        if self.0.cancelled.swap(true, Ordering::AcqRel) {
            return;
        }
        // An eventfd takes 2^64-2 before a write fails, and this one is written once.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        // Outside of the lock: a call may end the wait of another one.
        let calls = mem::take(&mut self.0.calls().waiting);
        calls.into_values().for_each(|call| call());
    }

    /// Tells whether `cancel` was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Has `call` called once when the token is cancelled, on the thread that cancels it, or at once
    /// when it is already; never when what this returns is dropped before. It must not block.
    pub fn on_cancel(&self, call: impl FnOnce() + Send + 'static) -> OnCancel {
        let mut calls = self.0.calls();
        // Whoever cancels says so before it takes the calls: one that is missed there is seen here.
        if self.is_cancelled() {
            drop(calls);
            call();
            return OnCancel { cancel: self.clone(), number: None };
        }
        calls.last += 1;
        let number = calls.last;
        calls.waiting.insert(number, Box::new(call));
        OnCancel { cancel: self.clone(), number: Some(number) }
    }
}

impl Inner {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

/// A call that waits for a token; dropped, it waits no more.
#[derive(Debug)]
#[must_use = "dropped, it is never called"]
pub struct OnCancel {
    cancel: Cancel,
    number: Option<u64>,
}

impl Drop for OnCancel {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let call = self.cancel.0.calls().waiting.remove(&number);
        // What the call owns may have anything to do when it goes.
        drop(call);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    fn counting(count: &Arc<AtomicUsize>) -> impl FnOnce() + Send + use<> {
        let count = Arc::clone(count);
        move || {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn calls_come_once_also_when_it_is_too_late_but_not_when_nobody_waits_any_more() {
        let (cancel, count) = (Cancel::new().unwrap(), Arc::default());
        let waiting = cancel.on_cancel(counting(&count));
        drop(cancel.on_cancel(counting(&count)));
        // Cancelled from within a call, and asked for another one there.
        let (again, later) = (cancel.clone(), counting(&count));
        let nested = cancel.on_cancel(move || {
            again.cancel();
            drop(again.on_cancel(later));
        });
        cancel.cancel();
        assert_eq!(count.load(Ordering::Relaxed), 2);
        cancel.cancel();
        drop((waiting, nested));
        drop(cancel.on_cancel(counting(&count)));
        assert_eq!(count.load(Ordering::Relaxed), 3);
        assert!(cancel.0.calls().waiting.is_empty());
    }

    #[test]
    fn a_call_that_races_with_the_end_comes_exactly_once() {
        for _ in 0..200 {
            let (cancel, count) = (Cancel::new().unwrap(), Arc::default());
            let call = counting(&count);
            thread::scope(|scope| {
                scope.spawn(|| cancel.cancel());
                scope.spawn(|| {
                    let waiting = cancel.on_cancel(call);
                    while count.load(Ordering::Relaxed) == 0 {
                        thread::yield_now();
                    }
                    drop(waiting);
                });
            });
            assert_eq!(count.load(Ordering::Relaxed), 1);
        }
    }
}
