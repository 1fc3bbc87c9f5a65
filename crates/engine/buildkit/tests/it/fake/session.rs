//! The daemon's side of a session: it asks, the client answers.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::health::HealthCheckRequest;
use bollard_buildkit_proto::health::health_client::HealthClient;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_client::FileSyncClient;
use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient;
use bollard_buildkit_proto::moby::filesync::v1::{self, CredentialsRequest};
use futures_util::{StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::io::ReaderStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};

use super::Out;

/// Bytes of a session under way.
const TUNNEL_BYTES: usize = 64 << 10;
/// Bytes of an archive in one message.
const PIECE_BYTES: usize = 32 << 10;
/// The bits of Go's file modes that say what is no regular file: `fs.ModeType`.
const MODE_TYPE: u32 = 0x8f28_0000;

/// Makes of a session's messages a connection on which the daemon is the client.
pub(super) fn open(
    mut incoming: Streaming<BytesMessage>,
) -> (Out<BytesMessage>, impl Future<Output = Channel> + Send + 'static) {
    let (near, far) = tokio::io::duplex(TUNNEL_BYTES);
    let (reader, mut writer) = tokio::io::split(near);
    tokio::spawn(async move {
        while let Ok(Some(message)) = incoming.message().await {
            if writer.write_all(&message.data).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    });
    let out = ReaderStream::new(reader).map(|bytes| match bytes {
        Ok(bytes) => Ok(BytesMessage { data: bytes.to_vec() }),
        Err(error) => Err(Status::aborted(error.to_string())),
    });
    let far = Arc::new(Mutex::new(Some(TokioIo::new(far))));
    let once = tower::service_fn(move |_: Uri| {
        let far = far.lock().unwrap().take();
        async { far.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionReset)) }
    });
    let channel = async {
        Endpoint::from_static("http://localhost").connect_with_connector(once).await.unwrap()
    };
    (Box::pin(out), channel)
}

pub(super) async fn is_well(channel: &Channel) -> bool {
    HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.is_ok()
}

pub(super) async fn secret(channel: &Channel, id: &str) -> Result<Vec<u8>, Status> {
    let request = GetSecretRequest { id: id.into(), ..GetSecretRequest::default() };
    let answer = SecretsClient::new(channel.clone()).get_secret(request).await?;
    Ok(answer.into_inner().data)
}

pub(super) async fn login(channel: &Channel, host: &str) -> Result<(String, String), Status> {
    let request = CredentialsRequest { host: host.into() };
    let answer = AuthClient::new(channel.clone()).credentials(request).await?.into_inner();
    Ok((answer.username, answer.secret))
}

/// Hands an archive out; what the client says against it is the build's error.
pub(super) async fn send(channel: &Channel, archive: Vec<u8>) -> Result<(), Status> {
    let pieces: Vec<_> =
        archive.chunks(PIECE_BYTES).map(|p| v1::BytesMessage { data: p.to_vec() }).collect();
    let sent = FileSendClient::new(channel.clone()).diff_copy(stream::iter(pieces)).await;
    let failed = |s: Status| Status::unknown(format!("error from receiver: {}", s.message()));
    let mut answer = sent.map_err(failed)?.into_inner();
    while answer.message().await.map_err(failed)?.is_some() {}
    Ok(())
}

/// Takes a directory: all of it, or what these paths lead to.
pub(super) async fn files(
    channel: &Channel,
    name: &str,
    follow: &[&str],
) -> Result<BTreeMap<String, Vec<u8>>, Status> {
    let (ask, asks) = unbounded_channel::<Packet>();
    let asks = stream::unfold(asks, |mut asks| async { asks.recv().await.map(|a| (a, asks)) });
    let mut request = Request::new(Box::pin(asks));
    request.metadata_mut().insert("dir-name", name.parse().unwrap());
    for path in follow {
        request.metadata_mut().append("followpaths", path.parse().unwrap());
    }
    let packets = FileSyncClient::new(channel.clone()).diff_copy(request).await?;
    let mut packets = packets.into_inner();
    let stats = stats(&mut packets).await?;
    let say = |kind: PacketType, id: usize| {
        let id = u32::try_from(id).unwrap();
        ask.send(Packet { r#type: kind.into(), id, ..Packet::default() }).unwrap();
    };
    let is_file = |stat: &Stat| stat.mode & MODE_TYPE == 0;
    let mut files: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut open = 0;
    for (id, _) in stats.iter().enumerate().filter(|(_, stat)| is_file(stat)) {
        say(PacketType::PacketReq, id);
        open += 1;
    }
    while open > 0 {
        let packet = next(&mut packets).await?;
        assert_eq!(packet.r#type, i32::from(PacketType::PacketData));
        open -= usize::from(packet.data.is_empty());
        files.entry(packet.id).or_default().extend(packet.data);
    }
    say(PacketType::PacketFin, 0);
    assert_eq!(next(&mut packets).await?.r#type, i32::from(PacketType::PacketFin));
    Ok(files.into_iter().map(|(id, bytes)| (stats[id as usize].path.clone(), bytes)).collect())
}

/// Takes the list of entries, which comes first.
async fn stats(packets: &mut Streaming<Packet>) -> Result<Vec<Stat>, Status> {
    let mut stats = Vec::new();
    while let Some(stat) = next(packets).await?.stat {
        stats.push(stat);
    }
    Ok(stats)
}

async fn next(packets: &mut Streaming<Packet>) -> Result<Packet, Status> {
    let packet = packets.message().await?;
    let packet = packet.ok_or_else(|| Status::unknown("a transfer broke off"))?;
    if packet.r#type == i32::from(PacketType::PacketErr) {
        let text = String::from_utf8_lossy(&packet.data);
        return Err(Status::unknown(format!("error from sender: {text}")));
    }
    Ok(packet)
}
