//! Ctrl-C: the first one cancels and waits, the second one ends the program at once.

use anyhow::Result;
use ashlar_sandbox::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Exit code of a program that Ctrl-C ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// Returns a token that SIGINT, SIGTERM or SIGHUP cancels. A second signal ends the program; the
/// kernel then ends what runs in sandboxes, and the next start clears up.
pub(crate) fn cancel_on_signals() -> Result<Cancel> {
    let cancel = Cancel::new()?;
    let token = cancel.clone();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            if token.is_cancelled() {
                std::process::exit(i32::from(INTERRUPTED));
            }
            token.cancel();
            crate::output::note("\nstopping (Ctrl-C again to end at once)");
        }
    })?;
    Ok(cancel)
}
