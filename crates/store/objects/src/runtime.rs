//! The threads that requests run on, so that whoever calls may block.

use std::future::Future;
use std::io;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

/// Threads for requests of all stores of the process.
const THREADS: usize = 2;

/// It lives as long as the process: dropping a runtime inside a server's async task would panic.
static RUNTIME: OnceLock<io::Result<Runtime>> = OnceLock::new();

/// Returns the threads, started with the first store.
pub(crate) fn handle() -> io::Result<Handle> {
    let start = || {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(THREADS).thread_name("blob-store").enable_all().build()
    };
    match RUNTIME.get_or_init(start) {
        Ok(runtime) => Ok(runtime.handle().clone()),
        Err(e) => Err(io::Error::new(e.kind(), format!("cannot start threads: {e}"))),
    }
}

/// Runs something on those threads and waits for it.
pub(crate) fn wait<T: Send + 'static>(
    handle: &Handle,
    future: impl Future<Output = T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = std::sync::mpsc::sync_channel(1);
    handle.spawn(async move {
        // Whoever waited may be gone.
        let _ = done.send(future.await);
    });
    result.recv().map_err(|_| io::Error::other("a request of the blob store panicked"))
}
