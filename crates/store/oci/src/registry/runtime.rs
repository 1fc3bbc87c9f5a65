//! The runtime that the network runs on, started with the first request of the process.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::error::Failure;
use crate::transfer::Transfer;

/// How often a waiting transfer looks at its cancel flag.
const CANCEL_POLL: Duration = Duration::from_millis(25);

/// It lives as long as the process: idle connections of all clients belong to it, and dropping a
/// runtime inside a server's async task would panic.
static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();

fn runtime() -> Result<&'static Runtime, Failure> {
    let start = || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2).max_blocking_threads(4).thread_name("registry").enable_all();
        builder.build().map_err(|e| format!("cannot start the network threads: {e}"))
    };
    RUNTIME.get_or_init(start).as_ref().map_err(|e| Failure::SetUp(e.clone()))
}

/// Runs `future` on the calling thread until it is done or `transfer` is cancelled.
pub(crate) fn run<T>(
    transfer: &Transfer<'_>,
    future: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    runtime()?.block_on(async {
        tokio::pin!(future);
        loop {
            if transfer.is_cancelled() {
                return Err(Failure::Cancelled);
            }
            tokio::select! {
                biased;
                result = &mut future => return result,
                () = tokio::time::sleep(CANCEL_POLL) => {}
            }
        }
    })
}

/// Waits, unless cancelled.
pub(crate) fn wait(transfer: &Transfer<'_>, time: Duration) -> Result<(), Failure> {
    run(transfer, async {
        tokio::time::sleep(time).await;
        Ok(())
    })
}
