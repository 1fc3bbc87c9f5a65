//! A session: what the daemon may ask of us while it builds.
//!
//! It is an HTTP/2 connection on which we are the server. Each method that we offer is named when
//! the session is opened; the daemon asks for no other.

mod auth;
mod files;
mod health;
mod receive;
mod secrets;
mod ssh;

use std::sync::Arc;

use bollard_buildkit_proto::health::health_server::HealthServer;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::FileSyncServer;
use bollard_buildkit_proto::moby::filesync::v1::auth_server::AuthServer;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::FileSendServer;
use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::SshServer;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tonic::service::Routes;

use crate::connect::Link;
use crate::patience::Pulse;

pub(crate) use auth::Logins;
pub(crate) use files::Files;
pub(crate) use receive::{Archive, REFUSAL, Receiver, archive, forward};
pub(crate) use secrets::Secrets;
pub(crate) use ssh::Agents;

/// The methods that every session offers, in the daemon's spelling.
const METHODS: &[&str] = &[
    "/grpc.health.v1.Health/check",
    "/moby.filesync.v1.FileSync/diffcopy",
    "/moby.filesync.v1.FileSend/diffcopy",
    "/moby.filesync.v1.Auth/credentials",
    "/moby.buildkit.secrets.v1.Secrets/getsecret",
];
/// Those of ssh agents, when there are any.
const SSH_METHODS: &[&str] =
    &["/moby.sshforward.v1.SSH/checkagent", "/moby.sshforward.v1.SSH/forwardagent"];
/// The largest message of a daemon, as its own clients have it.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes that one stream may have under way.
const WINDOW_BYTES: u32 = 4 << 20;

/// What one session offers.
pub(crate) struct Session {
    /// Names it to the daemon.
    pub(crate) id: String,
    /// Sessions with the same key continue each other's transfers of directories.
    pub(crate) shared_key: String,
    pub(crate) files: Files,
    pub(crate) receiver: Receiver,
    pub(crate) secrets: Secrets,
    pub(crate) logins: Logins,
    pub(crate) agents: Agents,
    /// Told when the daemon asks for our health.
    pub(crate) pulse: Arc<Pulse>,
}

impl Session {
    /// Returns what is said of the session when it is opened.
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("x-docker-expose-session-uuid", self.id.clone()),
            ("x-docker-expose-session-name", "ashlar".to_owned()),
            ("x-docker-expose-session-sharedkey", self.shared_key.clone()),
        ];
        let ssh = if self.agents.is_empty() { &[] } else { SSH_METHODS };
        let methods = METHODS.iter().chain(ssh);
        headers.extend(methods.map(|m| ("x-docker-expose-session-grpc-method", (*m).to_owned())));
        headers
    }

    /// Serves until the connection ends.
    pub(crate) async fn serve(self, link: Link) {
        let mut routes = Routes::builder();
        routes
            .add_service(HealthServer::new(health::Well(self.pulse)))
            .add_service(
                FileSyncServer::new(self.files).max_decoding_message_size(MESSAGE_BYTES_MAX),
            )
            .add_service(
                FileSendServer::new(self.receiver).max_decoding_message_size(MESSAGE_BYTES_MAX),
            )
            .add_service(AuthServer::new(self.logins))
            .add_service(SecretsServer::new(self.secrets));
        if !self.agents.is_empty() {
            routes.add_service(SshServer::new(self.agents));
        }
        let service = TowerToHyperService::new(routes.routes().prepare());
        let served = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .serve_connection(TokioIo::new(link), service)
            .await;
        if let Err(error) = served {
            // The daemon ends it when the build is done, in whatever way.
            tracing::debug!(%error, "a session ended");
        }
    }
}
