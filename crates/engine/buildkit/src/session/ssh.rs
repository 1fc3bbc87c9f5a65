//! Lets steps reach ssh agents of ours.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;

use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::Ssh;
use bollard_buildkit_proto::moby::sshforward::v1::{
    BytesMessage, CheckAgentRequest, CheckAgentResponse,
};
use futures_util::{Stream, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

/// Says which agent is meant.
const ID_KEY: &str = "buildkit.ssh.id";
/// The agent of a mount that names none.
const ID_DEFAULT: &str = "default";

/// Sockets of agents by id.
pub(crate) struct Agents(pub(crate) BTreeMap<String, PathBuf>);

impl Agents {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn socket(&self, id: &str) -> Result<&PathBuf, Status> {
        let id = if id.is_empty() { ID_DEFAULT } else { id };
        self.0.get(id).ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))
    }
}

#[tonic::async_trait]
impl Ssh for Agents {
    type ForwardAgentStream = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.socket(&request.into_inner().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = request.metadata().get(ID_KEY).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let socket = self.socket(id)?;
        let agent = UnixStream::connect(socket).await;
        let agent = agent.map_err(|e| Status::unavailable(format!("the ssh agent: {e}")))?;
        let (reader, mut writer) = agent.into_split();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if writer.write_all(&message.data).await.is_err() {
                    return;
                }
            }
            // The other direction may still have something to say.
            let _ = writer.shutdown().await;
        });
        let out = ReaderStream::new(reader).map(|bytes| match bytes {
            Ok(bytes) => Ok(BytesMessage { data: bytes.to_vec() }),
            Err(e) => Err(Status::aborted(e.to_string())),
        });
        Ok(Response::new(Box::pin(out)))
    }
}
