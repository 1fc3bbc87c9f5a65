//! Lets a token that threads wait for end a build that is driven by tasks.

use std::os::fd::AsFd as _;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_sandbox::Cancel;
use rustix::event::{PollFd, PollFlags, poll};

use crate::chain::chain;

/// Waits until the build is to stop.
pub(crate) async fn cancelled(cancel: &Cancel) -> Failure {
    let broken = |e: &dyn std::error::Error| {
        let text = format!("cannot watch for a stop: {}", chain(e));
        Failure::new(FailureKind::Internal, text)
    };
    let ended = match Cancel::new() {
        Ok(ended) => ended,
        Err(error) => return broken(&error),
    };
    let (cancel, watched) = (cancel.clone(), ended.clone());
    let _ends_the_thread = EndOf(ended);
    let waited = tokio::task::spawn_blocking(move || wait_for_either(&cancel, &watched)).await;
    match waited {
        Ok(()) => Failure::new(FailureKind::Step, "the build was cancelled"),
        Err(error) => broken(&error),
    }
}

/// Calls a token when it is dropped.
struct EndOf(Cancel);

impl Drop for EndOf {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Waits until one of two tokens is cancelled.
fn wait_for_either(first: &Cancel, second: &Cancel) {
    while !first.is_cancelled() && !second.is_cancelled() {
        let mut fds = [
            PollFd::from_borrowed_fd(first.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(second.as_fd(), PollFlags::IN),
        ];
        // An interrupted wait is simply begun again.
        let _ = poll(&mut fds, None);
    }
}
