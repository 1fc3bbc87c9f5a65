//! A token that ends running steps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Cheap to clone; once cancelled it stays so. Backed by an eventfd, so that a wait for it costs nothing.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cancelled: AtomicBool,
    /// Written once and never read: readable means cancelled, for every waiter.
    event: OwnedFd,
}

impl Cancel {
    /// Makes a token that is not cancelled.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    pub fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { cancelled: AtomicBool::new(false), event })))
    }

    /// Ends every step that runs under this token; at once for the caller, within a second for the steps.
    pub fn cancel(&self) {
        if !self.0.cancelled.swap(true, Ordering::AcqRel) {
            // An eventfd takes 2^64-2 before a write fails, and this one is written once.
            let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        }
    }

    /// Tells whether `cancel` was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
