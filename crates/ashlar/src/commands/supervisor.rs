//! Tells the supervisor of the process (systemd, by `NOTIFY_SOCKET`) how the server is.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

/// Says that requests are answered, and from now on that the process is alive when the supervisor
/// wants to know that. Needs a Tokio runtime.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
    if let Some(patience) = sd_notify::watchdog_enabled() {
        tokio::spawn(stay_alive(patience));
    }
}

/// Says that the server ends, within this time.
pub(crate) fn stopping(within: Duration) {
    let micros = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

/// A runtime that does not come to this task is stuck; a database that is down is not: a restart
/// would mend nothing.
async fn stay_alive(patience: Duration) {
    let mut every = interval((patience / 2).max(Duration::from_millis(1)));
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the supervisor was not told");
    }
}
