//! One daemon: its control connection and its session.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{BytesMessage, InfoRequest};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;
use tokio_util::io::ReaderStream;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::address::Address;
use crate::connect::{ConnectError, Kind, Link, connect, detect, within};
use crate::failure::is_lost;
use crate::http;
use crate::session::Session;

/// The largest message of a daemon: definitions and progress of large builds are long.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes that one HTTP/2 stream may have under way: archives of images are large.
const WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of a tunnelled session that are under way.
const TUNNEL_BYTES: usize = 256 << 10;

/// An open daemon.
pub(crate) struct Daemon {
    address: Address,
    kind: Kind,
    /// How long another connection to it may take to come about.
    limit: Duration,
    pub(crate) control: ControlClient<Channel>,
}

impl Daemon {
    /// Connects to whatever listens at an address.
    pub(crate) async fn open(address: &Address, limit: Duration) -> Result<Self, ConnectError> {
        within(limit, Self::open_now(address, limit)).await
    }

    async fn open_now(address: &Address, limit: Duration) -> Result<Self, ConnectError> {
        let kind = detect(address).await?;
        let link = connect(address, kind).await?;
        let link = match kind {
            Kind::Dockerd => http::upgrade(link, "/grpc", &[]).await?,
            Kind::Buildkitd => link,
        };
        let control = ControlClient::new(channel(link).await?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { address: address.clone(), kind, limit, control })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Says whether the daemon is there to stay. One that is told to end stops to listen before all
    /// else; one that began anew since does not know the connection that we have.
    pub(crate) async fn stays(&self) -> bool {
        let asked = async {
            let listens = detect(&self.address).await? == self.kind;
            let answer = self.control.clone().info(InfoRequest {}).await;
            // An old one does not know the question, and says so.
            Ok(listens && answer.err().is_none_or(|status| !is_lost(&status)))
        };
        within(self.limit, asked).await.unwrap_or(false)
    }

    /// Offers a session to the daemon. It lasts until the guard is dropped.
    pub(crate) async fn attach(&self, session: Session) -> Result<Attached, ConnectError> {
        let headers = session.headers();
        let task = match self.kind {
            Kind::Dockerd => {
                let upgraded = async {
                    let link = connect(&self.address, self.kind).await?;
                    http::upgrade(link, "/session", &headers).await
                };
                tokio::spawn(session.serve(within(self.limit, upgraded).await?))
            }
            Kind::Buildkitd => {
                let (ours, theirs) = tokio::io::duplex(TUNNEL_BYTES);
                let tunnel = tunnel(self.control.clone(), headers, theirs);
                let serving = session.serve(Link::new(ours));
                tokio::spawn(async move {
                    // Whichever ends first ends the other.
                    tokio::select! {
                        () = serving => {}
                        done = tunnel => {
                            if let Err(error) = done {
                                tracing::debug!(%error, "the session with buildkitd ended");
                            }
                        }
                    }
                })
            }
        };
        Ok(Attached(task))
    }

    /// Returns the archive of an image in a Docker daemon's store.
    pub(crate) async fn save(
        &self,
        image: &str,
    ) -> Result<impl Stream<Item = io::Result<Bytes>> + use<>, ConnectError> {
        let link = within(self.limit, connect(&self.address, self.kind)).await?;
        // It begins to answer when the archive is ready, which may take its time.
        http::save(link, image).await
    }

    /// Takes a name off an image in a Docker daemon's store.
    pub(crate) async fn untag(&self, image: &str) -> Result<(), ConnectError> {
        let untagged = async { http::untag(connect(&self.address, self.kind).await?, image).await };
        within(self.limit, untagged).await
    }
}

/// Ends the session when it is dropped.
pub(crate) struct Attached(JoinHandle<()>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Speaks gRPC on one connection, which is not opened again when it breaks.
async fn channel(link: Link) -> Result<Channel, ConnectError> {
    let link = Arc::new(Mutex::new(Some(TokioIo::new(link))));
    let once = tower::service_fn(move |_: Uri| {
        let link = link.lock().unwrap_or_else(PoisonError::into_inner).take();
        async { link.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset)) }
    });
    let endpoint = Endpoint::from_static("http://localhost")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    Ok(endpoint.connect_with_connector(once).await?)
}

/// Carries a session in messages of the control connection, as a buildkitd wants it.
async fn tunnel(
    mut control: ControlClient<Channel>,
    headers: Vec<(&'static str, String)>,
    io: tokio::io::DuplexStream,
) -> Result<(), tonic::Status> {
    let (reader, mut writer) = tokio::io::split(io);
    let out = ReaderStream::with_capacity(reader, TUNNEL_BYTES / 4)
        .filter_map(|bytes| async { bytes.ok().map(|b| BytesMessage { data: b.to_vec() }) });
    let mut request = tonic::Request::new(out);
    for (name, value) in headers {
        let key = AsciiMetadataKey::from_static(name);
        let value = AsciiMetadataValue::try_from(value)
            .map_err(|_| tonic::Status::invalid_argument("a header of the session"))?;
        request.metadata_mut().append(key, value);
    }
    let mut incoming = control.session(request).await?.into_inner();
    while let Some(message) = incoming.message().await? {
        writer.write_all(&message.data).await.map_err(|e| tonic::Status::aborted(e.to_string()))?;
    }
    Ok(())
}
