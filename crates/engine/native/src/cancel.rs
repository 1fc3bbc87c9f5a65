//! Waiting for one thing while watching for the wish to stop.

use ashlar_core::failure::Failure;
use ashlar_sandbox::Cancel;
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::AsFd as _;

use crate::error::internal;

/// Runs `wait`; when `cancel` is called meanwhile, runs `stop` once, on a thread of its own.
pub(crate) fn while_waiting<T>(
    cancel: &Cancel,
    stop: impl FnOnce() + Send,
    wait: impl FnOnce() -> T,
) -> Result<T, Failure> {
    let done = Cancel::new().map_err(internal)?;
    let result = std::thread::scope(|scope| {
        let ended = &done;
        scope.spawn(move || {
            if wait_for_either(cancel, ended) {
                stop();
            }
        });
        let result = wait();
        done.cancel();
        result
    });
    Ok(result)
}

/// Waits until one of two tokens is cancelled; says whether it was the first.
fn wait_for_either(first: &Cancel, second: &Cancel) -> bool {
    loop {
        if first.is_cancelled() || second.is_cancelled() {
            return first.is_cancelled();
        }
        let mut fds = [
            PollFd::from_borrowed_fd(first.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(second.as_fd(), PollFlags::IN),
        ];
        // An interrupted wait is simply begun again.
        let _ = poll(&mut fds, None);
    }
}
