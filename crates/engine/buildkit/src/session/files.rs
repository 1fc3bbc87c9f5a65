//! Serves directories of the build: only what the daemon asks for, and of that what changed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use ashlar_layers::Stop;
use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSync;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::sync::{Ask, Counts, Transfer, Wish};

/// Packets that wait to be sent.
const WAITING_MAX: usize = 32;

/// Directories by the names that the daemon knows them by.
pub(crate) struct Files {
    pub(crate) directories: BTreeMap<String, PathBuf>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) stop: Stop,
}

impl Files {
    fn transfer(&self, metadata: &MetadataMap) -> Result<Transfer, Status> {
        let name = values(metadata, "dir-name")?.pop().unwrap_or_default();
        let Some(place) = self.directories.get(&name) else {
            return Err(Status::not_found(format!("there is no context named {name}")));
        };
        Ok(Transfer {
            wish: Wish {
                include: values(metadata, "include-patterns")?,
                exclude: values(metadata, "exclude-patterns")?,
                follow: values(metadata, "followpaths")?,
            },
            name,
            place: place.clone(),
            counts: Arc::clone(&self.counts),
            stop: self.stop.clone(),
        })
    }
}

#[tonic::async_trait]
impl FileSync for Files {
    type DiffCopyStream = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;
    type TarStreamStream = Self::DiffCopyStream;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let transfer = self.transfer(request.metadata())?;
        let mut incoming = request.into_inner();
        let (to_daemon, packets) = mpsc::channel::<Result<Packet, Status>>(WAITING_MAX);
        // Not bounded: the daemon asks while it is still being told what there is, and waits for
        // neither. `Transfer` takes no more wishes than there are files.
        let (asks, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(packet)) = incoming.message().await {
                let ask = match PacketType::try_from(packet.r#type) {
                    Ok(PacketType::PacketReq) => Ask::File(packet.id),
                    Ok(PacketType::PacketFin) => Ask::Done,
                    _ => return,
                };
                if asks.send(ask).is_err() {
                    return;
                }
            }
        });
        tokio::task::spawn_blocking(move || {
            let send = |packet| to_daemon.blocking_send(Ok(packet)).is_ok();
            if let Err(error) = transfer.run(asked, &send) {
                let data = error.to_string().into_bytes();
                // A daemon that is gone needs no reason.
                send(Packet { r#type: PacketType::PacketErr.into(), data, ..Packet::default() });
            }
        });
        let out = stream::unfold(packets, |mut packets| async {
            packets.recv().await.map(|packet| (packet, packets))
        });
        Ok(Response::new(Box::pin(out)))
    }

    async fn tar_stream(
        &self,
        _: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("ask with DiffCopy"))
    }
}

/// Returns all values of a key, decoded: a daemon encodes them as in a query when one is not ASCII,
/// and says so in a second key.
fn values(metadata: &MetadataMap, key: &str) -> Result<Vec<String>, Status> {
    let encoded = metadata.get(format!("{key}-encoded")).is_some_and(|v| v == "1");
    let read = |v: &tonic::metadata::AsciiMetadataValue| {
        let text = v.to_str().map_err(|_| Status::invalid_argument(key.to_owned()))?;
        Ok(if encoded { decoded(text) } else { text.to_owned() })
    };
    metadata.get_all(key).iter().map(read).collect()
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_only_when_they_say_so() {
        let mut metadata = MetadataMap::new();
        metadata.append("followpaths", "a+b".parse().unwrap());
        assert_eq!(values(&metadata, "followpaths").unwrap(), ["a+b"]);
        metadata.append("followpaths", "%C3%A9%2Bx+y%".parse().unwrap());
        metadata.insert("followpaths-encoded", "1".parse().unwrap());
        assert_eq!(values(&metadata, "followpaths").unwrap(), ["a b", "é+x y%"]);
        assert!(values(&metadata, "other").unwrap().is_empty());
    }
}
