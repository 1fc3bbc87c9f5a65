//! Listens.

use std::future::Future;
use std::io;

use axum::Router;
use tokio::net::TcpListener;

/// Serves a router until `shutdown` is over; requests under way are then finished.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}
