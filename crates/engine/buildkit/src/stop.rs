//! Lets a token end a build that is driven by tasks.

use std::sync::Arc;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_sandbox::Cancel;
use tokio::sync::Notify;

/// Waits until the build is to stop.
pub(crate) async fn cancelled(cancel: &Cancel) -> Failure {
    let stop = Arc::new(Notify::new());
    let call = Arc::clone(&stop);
    // A word that comes before somebody waits is kept.
    let _until_it_comes = cancel.on_cancel(move || call.notify_one());
    stop.notified().await;
    Failure::new(FailureKind::Step, "the build was cancelled")
}
