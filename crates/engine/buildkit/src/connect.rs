//! Connections to a daemon's socket, plain or with TLS, and what answers there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::address::{Address, Place};
use crate::tls::TlsError;

/// A quiet TCP connection is probed after this time,
const PROBE_AFTER: Duration = Duration::from_secs(15);
/// again this often,
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// and given up after so many probes without an answer.
const PROBES_MAX: u32 = 3;
/// How long what was sent may stay unacknowledged, in milliseconds.
const UNANSWERED_MILLIS: u32 = 30_000;
/// What dockerd speaks.
const HTTP1: &[u8] = b"http/1.1";
/// What buildkitd speaks.
const HTTP2: &[u8] = b"h2";
/// Asked by those who want to know whether a Docker daemon listens.
const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";
/// How the answer of an HTTP/1 server begins.
const HTTP1_ANSWER: &[u8] = b"HTTP/1.";

/// No connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("nothing answers")]
    Unreachable(#[source] io::Error),
    #[error("no answer within {} s", .0.as_secs_f32())]
    Slow(Duration),
    #[error("TLS failed")]
    Handshake(#[source] io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("'{0}' is no name that a certificate can have")]
    ServerName(String),
    #[error("it does not speak its protocol")]
    Http(#[from] hyper::Error),
    #[error("it refuses {path} with status {status}: {text}")]
    Refused { path: String, status: u16, text: String },
    #[error("it does not speak gRPC")]
    Grpc(#[from] tonic::transport::Error),
}

/// What listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A Docker daemon with BuildKit inside.
    Dockerd,
    /// BuildKit alone.
    Buildkitd,
}

trait Io: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

/// A connection, whatever it is made of.
pub(crate) struct Link(Pin<Box<dyn Io>>);

impl Link {
    pub(crate) fn new(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        Self(Box::pin(io))
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}

/// Connects to a daemon of a kind that is known. To be bounded by [`within`], as all that follows.
pub(crate) async fn connect(address: &Address, kind: Kind) -> Result<Link, ConnectError> {
    let protocol = match kind {
        Kind::Dockerd => HTTP1,
        Kind::Buildkitd => HTTP2,
    };
    Ok(open(address, &[protocol]).await?.0)
}

/// Finds out what listens: by the protocol that TLS agreed on, else by asking as for Docker.
pub(crate) async fn detect(address: &Address) -> Result<Kind, ConnectError> {
    let (mut link, agreed) = open(address, &[HTTP1, HTTP2]).await?;
    if agreed.as_deref() == Some(HTTP2) {
        return Ok(Kind::Buildkitd);
    }
    let mut answer = [0; HTTP1_ANSWER.len()];
    let asked = async {
        link.write_all(PING).await?;
        link.read_exact(&mut answer).await
    };
    let read = asked.await;
    match read {
        Ok(_) if answer == HTTP1_ANSWER => Ok(Kind::Dockerd),
        // A server that does not want our certificate says so only now.
        Err(error) if is_alert(&error) => Err(ConnectError::Handshake(error)),
        // One that speaks gRPC only closes the connection, or answers in HTTP/2.
        _ => Ok(Kind::Buildkitd),
    }
}

/// Says whether TLS failed, and not what it carries.
fn is_alert(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|e| e.is::<rustls::Error>())
}

/// Bounds the time that all of a connection's beginning takes.
pub(crate) async fn within<T>(
    limit: Duration,
    doing: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout(limit, doing).await.unwrap_or(Err(ConnectError::Slow(limit)))
}

async fn open(
    address: &Address,
    protocols: &[&[u8]],
) -> Result<(Link, Option<Vec<u8>>), ConnectError> {
    let (host, port) = match &address.place {
        Place::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(ConnectError::Unreachable)?;
            return Ok((Link::new(stream), None));
        }
        Place::Tcp { host, port } => (host, *port),
    };
    let tcp = TcpStream::connect((host.as_str(), port)).await;
    let tcp = tcp.map_err(ConnectError::Unreachable)?;
    prepare(&tcp).map_err(ConnectError::Unreachable)?;
    let Some(certificates) = &address.certificates else { return Ok((Link::new(tcp), None)) };
    let name = certificates.server_name.as_ref().unwrap_or(host);
    let bad_name = || ConnectError::ServerName(name.clone());
    let server = ServerName::try_from(name.clone()).map_err(|_| bad_name())?;
    let connector = TlsConnector::from(Arc::new(certificates.config(protocols)?));
    let tls = connector.connect(server, tcp).await.map_err(ConnectError::Handshake)?;
    let agreed = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    Ok((Link::new(tls), agreed))
}

/// Sets a connection up such that a host that vanishes is noticed: a step may be silent for hours.
fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(tcp, PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(tcp, PROBES_MAX)?;
    sockopt::set_tcp_user_timeout(tcp, UNANSWERED_MILLIS)?;
    Ok(())
}
