//! A listener whose connections end: none is waited for longer than said.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt as _;

use crate::body::Patient;

/// Connections of one listener at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16_384;
/// How long a client may take over a request's head, and be silent between requests.
const HEAD_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a client may be silent in the middle of a request's body.
const BODY_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long to wait when no connection can be accepted, for example without file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long clients are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a request's head, and between requests.
    pub head: Duration,
    /// For the next bytes of a request's body.
    pub body: Duration,
}

impl Default for Patience {
    /// A minute for each.
    fn default() -> Self {
        Self { head: HEAD_TIME_MAX, body: BODY_SILENCE_MAX }
    }
}

/// Serves a router until `shutdown` is over. Requests under way may then go on for `grace`; after
/// that their connections are closed.
///
/// # Errors
/// None at present: a listener that cannot accept is tried again.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
    grace: Duration,
) -> io::Result<()> {
    serve_with(listener, router, shutdown, grace, Patience::default()).await
}

/// Serves a router as [`serve`] does, and waits for clients as long as is said.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
    grace: Duration,
    patience: Patience,
) -> io::Result<()> {
    let closing = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                match accepted {
                    Ok((stream, peer)) => {
                        let one = connection(stream, peer, router.clone(), closing.subscribe(), patience);
                        connections.spawn(one);
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept connections");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(grace, ended).await.is_err() {
        tracing::warn!(connections = connections.len(), "closing connections that did not end");
        connections.shutdown().await;
    }
    Ok(())
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    mut closing: watch::Receiver<bool>,
    patience: Patience,
) {
    // Answers are small and come in pieces that somebody waits for.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let patient = |body| axum::body::Body::new(Patient::new(body, patience.body));
        answer(router.clone(), request.map(patient))
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience.head);
    let connection = builder.serve_connection(TokioIo::new(stream), answer).with_upgrades();
    let mut connection = pin!(connection);
    // The sender outlives the connections.
    let closing = async { drop(closing.wait_for(|closing| *closing).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients go away at any time; that is no fault.
        tracing::debug!(%peer, %error, "a connection broke");
    }
}

async fn answer(router: Router, request: Request) -> Result<Response, Infallible> {
    router.oneshot(request).await
}
