//! Other ways to a daemon of `scripts/peers`: TCP with TLS, and a stand-in for a buildkitd.
//!
//! No package has a buildkitd. The stand-in is the BuildKit of a real Docker daemon, with its upgrade
//! to gRPC done beforehand: what is left is the protocol that a buildkitd speaks on its socket.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ashlar_buildkit::Address;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::{BuildHistoryEvent, BuildHistoryRequest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, UnixStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// A TCP port that leads to a daemon until it is closed.
pub(crate) struct Door {
    runtime: std::sync::Mutex<Option<Runtime>>,
    address: SocketAddr,
    query: String,
    pki: Option<Pki>,
    asked: Arc<AtomicUsize>,
}

/// What is behind a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// The daemon as it is.
    Dockerd,
    /// Its BuildKit alone.
    Buildkitd,
    /// The daemon, but the first request that begins like this is answered with this error.
    Refusing(&'static str, u16),
}

impl Door {
    /// Opens a door without TLS.
    pub(crate) fn to(daemon: &Address) -> Self {
        Self::open(daemon, Behind::Dockerd, None)
    }

    /// Opens a door; with certificates only for those that have one of the same authority.
    pub(crate) fn open(daemon: &Address, behind: Behind, pki: Option<Pki>) -> Self {
        let socket = PathBuf::from(daemon.to_string().strip_prefix("unix://").unwrap());
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = pki.as_ref().map(|p| p.acceptor(behind));
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (socket, acceptor, asked) = (socket.clone(), acceptor.clone(), counted.clone());
                tokio::spawn(async move {
                    match acceptor {
                        Some(acceptor) => {
                            if let Ok(tls) = acceptor.accept(stream).await {
                                splice(tls, &socket, behind, &asked).await;
                            }
                        }
                        None => splice(stream, &socket, behind, &asked).await,
                    }
                });
            }
        });
        let query = pki.as_ref().map_or_else(String::new, |p| format!("?certs={}", p.folder()));
        Self { runtime: std::sync::Mutex::new(Some(runtime)), address, query, pki, asked }
    }

    pub(crate) fn address(&self) -> Address {
        format!("tcp://{}{}", self.address, self.query).parse().unwrap()
    }

    /// Returns the address with other certificates, or none.
    pub(crate) fn address_with(&self, query: &str) -> Address {
        format!("tcp://{}{query}", self.address).parse().unwrap()
    }

    /// Returns how many requests came of those of which the first is refused.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn pki(&self) -> &Pki {
        self.pki.as_ref().unwrap()
    }

    /// Returns what the BuildKit behind a door keeps of earlier builds.
    pub(crate) fn history(&self) -> Vec<BuildHistoryEvent> {
        let address = format!("http://{}", self.address);
        let wish = BuildHistoryRequest { early_exit: true, ..BuildHistoryRequest::default() };
        let runtime = self.runtime.lock().unwrap();
        runtime.as_ref().unwrap().block_on(async {
            let mut client = ControlClient::connect(address).await.unwrap();
            let mut events = client.listen_build_history(wish).await.unwrap().into_inner();
            let mut all = Vec::new();
            while let Some(event) = events.message().await.unwrap() {
                all.push(event);
            }
            all
        })
    }

    /// Breaks all connections, and lets in none.
    pub(crate) fn close(&self) {
        let runtime = self.runtime.lock().unwrap().take();
        runtime.unwrap().shutdown_background();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }
}

/// Carries bytes both ways until one side ends.
async fn splice(
    mut near: impl AsyncRead + AsyncWrite + Unpin,
    socket: &Path,
    behind: Behind,
    asked: &AtomicUsize,
) {
    let mut far = UnixStream::connect(socket).await.unwrap();
    if behind == Behind::Buildkitd {
        let upgrade =
            "POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        far.write_all(upgrade.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(far.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    }
    if let Behind::Refusing(start, status) = behind {
        let mut head = vec![0; start.len()];
        if near.read_exact(&mut head).await.is_err() {
            return;
        }
        if head == start.as_bytes() && asked.fetch_add(1, Ordering::Relaxed) == 0 {
            let answer =
                format!("HTTP/1.1 {status} No\r\nContent-Length: 13\r\n\r\nout of order\n");
            near.write_all(answer.as_bytes()).await.unwrap();
            // What was asked is read to its end, so that the answer is not cut off by a reset.
            let _ = near.read_to_end(&mut head).await;
            return;
        }
        far.write_all(&head).await.unwrap();
    }
    // Either side may break off.
    let _ = copy_bidirectional(&mut near, &mut far).await;
}

/// An authority, a server's certificate and a client's, as Docker lays them out.
pub(crate) struct Pki {
    dir: TempDir,
    server: (CertificateDer<'static>, PrivateKeyDer<'static>),
    /// The same as text: certificate and key.
    server_pem: (String, String),
    authority: CertificateDer<'static>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            // Its issuer must not have the same name, or it passes for one that signed itself.
            params.distinguished_name.push(DnType::CommonName, name);
            (params.signed_by(&key, &authority).unwrap(), key)
        };
        let (server, server_key) = issue("127.0.0.1");
        let (client, client_key) = issue("client");
        std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(dir.path().join("cert.pem"), client.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), client_key.serialize_pem()).unwrap();
        let key = PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
        let authority = authority.der().clone();
        let server_pem = (server.pem(), server_key.serialize_pem());
        Self { dir, server: (server.der().clone(), key), server_pem, authority }
    }

    /// Writes what a dockerd needs to listen with TLS.
    pub(crate) fn write_server(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::copy(self.dir.path().join("ca.pem"), folder.join("ca.pem")).unwrap();
        std::fs::write(folder.join("server-cert.pem"), &self.server_pem.0).unwrap();
        std::fs::write(folder.join("server-key.pem"), &self.server_pem.1).unwrap();
    }

    pub(crate) fn folder(&self) -> String {
        self.dir.path().display().to_string()
    }

    fn acceptor(&self, behind: Behind) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![self.server.0.clone()], self.server.1.clone_key())
            .unwrap();
        let protocol: &[u8] = if behind == Behind::Buildkitd { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}
