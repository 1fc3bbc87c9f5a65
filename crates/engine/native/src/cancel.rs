//! Waiting for one thing while a wish to stop may come.

use ashlar_sandbox::Cancel;

/// Runs `wait`; when `cancel` is called meanwhile, runs `stop` once, on the thread that calls it.
pub fn while_waiting<T>(
    cancel: &Cancel,
    stop: impl FnOnce() + Send + 'static,
    wait: impl FnOnce() -> T,
) -> T {
    let _until_it_returns = cancel.on_cancel(stop);
    wait()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
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
        assert_eq!(waited.unwrap(), "stopped");
    }

    #[test]
    fn nothing_is_stopped_after_a_panic() {
        let (cancel, stopped) = (Cancel::new().unwrap(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&stopped);
        let wait = || -> () { panic!("of a test") };
        let stop = move || stop.store(true, Ordering::Relaxed);
        let unwound = catch_unwind(AssertUnwindSafe(|| while_waiting(&cancel, stop, wait)));
        cancel.cancel();
        assert!(unwound.is_err() && !stopped.load(Ordering::Relaxed));
    }
}
