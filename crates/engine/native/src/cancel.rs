//! Waiting for one thing while watching for the wish to stop.

use ashlar_core::failure::Failure;
use ashlar_sandbox::Cancel;
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::AsFd as _;

use crate::error::internal;

/// Runs `wait`; when `cancel` is called meanwhile, runs `stop` once, on a thread of its own. A panic
/// of `wait` passes on.
///
/// # Errors
/// When the system has no descriptors left.
pub fn while_waiting<T>(
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
        // Whichever way `wait` ends: the scope waits for the thread, even while it unwinds.
        let _ends_the_thread = EndOf(ended);
        wait()
    });
    Ok(result)
}

/// Calls a token when it is dropped.
struct EndOf<'a>(&'a Cancel);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
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

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Far longer than anything here takes: a test that hangs says so.
    const NEVER: Duration = Duration::from_secs(60);

    #[test]
    fn a_wish_to_stop_reaches_what_is_waited_for() {
        let cancel = Cancel::new().unwrap();
        let (stop, stopped) = mpsc::channel();
        let waited = while_waiting(
            &cancel,
            move || stop.send("stopped").unwrap(),
            || {
                cancel.cancel();
                stopped.recv_timeout(NEVER)
            },
        );
        assert_eq!(waited.unwrap().unwrap(), "stopped");
    }

    #[test]
    fn a_panic_ends_the_watch_and_passes_on() {
        let (send, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let wait = || -> () { panic!("of a test") };
            let unwound = catch_unwind(|| while_waiting(&Cancel::new().unwrap(), || {}, wait));
            send.send(unwound.is_err())
        });
        assert!(ended.recv_timeout(NEVER).expect("the watch does not end"));
    }
}
