//! A buildkitd of our own: the protocol of a standalone daemon, with a script where the builder is.
//!
//! No package has a buildkitd. This one speaks what BuildKit's sources say of its socket: gRPC with no
//! upgrade before it, and the session in messages of `Control.Session`. It is no proof that a real one
//! understands us; that the messages mean the same, the tests on Docker daemons show.

mod image;
mod session;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use ashlar_buildkit::Address;
use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::{Control, ControlServer};
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse,
    InfoRequest, InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest,
    SolveResponse, StatusRequest, StatusResponse, UpdateBuildHistoryRequest,
    UpdateBuildHistoryResponse, UsageRecord, Vertex, VertexLog,
};
use futures_util::{Stream, stream};
use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};

/// How often a session is asked whether it lives.
const PROBE_EVERY: Duration = Duration::from_millis(100);

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type News = Result<StatusResponse, Status>;

/// What a daemon does with each build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// Secrets that it asks for.
    pub(crate) secrets: Vec<String>,
    /// Registries that it asks logins for.
    pub(crate) registries: Vec<String>,
    pub(crate) end: End,
}

/// How a build ends.
#[derive(Debug, Clone, Default)]
pub(crate) enum End {
    /// With an image of all that came.
    #[default]
    Image,
    /// With an archive that is none.
    Rubbish,
    /// The daemon dies in the middle of the second step.
    Dies,
    /// Nothing is heard any more, but the connections stay.
    Hushes,
    /// With an error.
    Fails(Code, String),
    /// With an error, after the daemon has stopped to listen: it is about to end.
    Ends(Code, String),
}

/// What a daemon got of one build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Got {
    pub(crate) request: SolveRequest,
    pub(crate) dockerfile: BTreeMap<String, Vec<u8>>,
    pub(crate) context: BTreeMap<String, Vec<u8>>,
    pub(crate) secrets: BTreeMap<String, Vec<u8>>,
    pub(crate) logins: BTreeMap<String, (String, String)>,
}

/// A running daemon; ends when it is dropped.
pub(crate) struct Fake {
    address: Address,
    got: Arc<Mutex<Vec<Got>>>,
    death: mpsc::Sender<()>,
    _dir: TempDir,
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Unix,
    Tcp,
}

impl Fake {
    pub(crate) fn start(at: At, script: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (death, dies) = mpsc::channel();
        let got = Arc::new(Mutex::new(Vec::new()));
        let daemon = Daemon {
            script,
            got: got.clone(),
            news: Mutex::default(),
            sessions: watch::Sender::default(),
            death: Mutex::new(death.clone()),
            gate: Arc::default(),
        };
        let place = runtime.block_on(listen(at, dir.path(), daemon));
        // A runtime cannot be ended by its own tasks.
        thread::spawn(move || {
            let _ = dies.recv();
            runtime.shutdown_background();
        });
        Self { address: place.parse().unwrap(), got, death, _dir: dir }
    }

    pub(crate) fn address(&self) -> Address {
        self.address.clone()
    }

    /// Returns what it got of each build so far.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // It may have died by its script.
        let _ = self.death.send(());
    }
}

/// Lets a daemon stop to listen while it goes on to serve those that are connected.
#[derive(Default)]
struct Gate {
    shuts: Notify,
    is_shut: Notify,
}

impl Gate {
    async fn shut(&self) {
        self.shuts.notify_one();
        self.is_shut.notified().await;
    }

    /// Waits for the next connection; none once the gate is shut.
    async fn next<L, S>(
        &self,
        listener: L,
        accept: impl AsyncFnOnce(&L) -> io::Result<S>,
    ) -> Option<(io::Result<S>, L)> {
        tokio::select! {
            accepted = accept(&listener) => Some((accepted, listener)),
            () = self.shuts.notified() => {
                drop(listener);
                self.is_shut.notify_one();
                None
            }
        }
    }
}

/// Starts to serve; returns the address.
async fn listen(at: At, dir: &Path, daemon: Daemon) -> String {
    let gate = Arc::clone(&daemon.gate);
    let server = Server::builder().add_service(ControlServer::new(daemon));
    match at {
        At::Unix => {
            let path = dir.join("buildkitd.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let incoming = stream::unfold((listener, gate), |(listener, gate)| async {
                let accept = async |l: &UnixListener| l.accept().await.map(|(stream, _)| stream);
                gate.next(listener, accept)
                    .await
                    .map(|(stream, listener)| (stream, (listener, gate)))
            });
            tokio::spawn(server.serve_with_incoming(Box::pin(incoming)));
            format!("unix://{}", path.display())
        }
        At::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let incoming = stream::unfold((listener, gate), |(listener, gate)| async {
                let accept = async |l: &TcpListener| l.accept().await.map(|(stream, _)| stream);
                gate.next(listener, accept)
                    .await
                    .map(|(stream, listener)| (stream, (listener, gate)))
            });
            tokio::spawn(server.serve_with_incoming(Box::pin(incoming)));
            format!("tcp://{address}")
        }
    }
}

/// The two ends of a build's progress, until each is taken by its call.
type Way = (Option<UnboundedSender<News>>, Option<UnboundedReceiver<News>>);

struct Daemon {
    script: Script,
    got: Arc<Mutex<Vec<Got>>>,
    news: Mutex<HashMap<String, Way>>,
    sessions: watch::Sender<HashMap<String, Channel>>,
    death: Mutex<mpsc::Sender<()>>,
    gate: Arc<Gate>,
}

impl Daemon {
    fn way<T>(&self, reference: &str, take: impl FnOnce(&mut Way) -> T) -> T {
        let mut news = self.news.lock().unwrap();
        take(news.entry(reference.to_owned()).or_insert_with(|| {
            let (sender, receiver) = unbounded_channel();
            (Some(sender), Some(receiver))
        }))
    }

    async fn channel(&self, session: &str) -> Channel {
        let mut sessions = self.sessions.subscribe();
        sessions.wait_for(|known| known.contains_key(session)).await.unwrap()[session].clone()
    }

    async fn run(
        &self,
        request: SolveRequest,
        tell: &UnboundedSender<News>,
    ) -> Result<SolveResponse, Status> {
        let channel = self.channel(&request.session).await;
        let mut got = Got { request, ..Got::default() };
        let steps = ["[1/2] FROM standalone", "[2/2] RUN everything"];
        let name = got.request.frontend_attrs["filename"].clone();
        got.dockerfile = session::files(&channel, "dockerfile", &[&name]).await?;
        say(tell, vertex("a", steps[0], &[], false), "");
        say(tell, vertex("b", steps[1], &["a"], false), "");
        say(tell, vertex("a", steps[0], &[], true), "");
        say(tell, begun("b", steps[1], &["a"]), "up\n");
        got.context = session::files(&channel, "context", &[]).await?;
        for id in &self.script.secrets {
            got.secrets.insert(id.clone(), session::secret(&channel, id).await?);
        }
        for host in &self.script.registries {
            got.logins.insert(host.clone(), session::login(&channel, host).await?);
        }
        self.got.lock().unwrap().push(got.clone());
        let (archive, config) = match &self.script.end {
            End::Image => image::archive(&got),
            End::Rubbish => (image::rubbish(), String::new()),
            End::Dies => {
                self.death.lock().unwrap().send(()).unwrap();
                return std::future::pending().await;
            }
            End::Hushes => return std::future::pending().await,
            End::Fails(code, text) => return Err(Status::new(*code, text.clone())),
            End::Ends(code, text) => {
                self.gate.shut().await;
                return Err(Status::new(*code, text.clone()));
            }
        };
        say(tell, vertex("b", steps[1], &["a"], true), "");
        session::send(&channel, archive).await?;
        let digest = ("containerimage.config.digest".to_owned(), config);
        Ok(SolveResponse { exporter_response: HashMap::from([digest]) })
    }
}

fn vertex(digest: &str, name: &str, inputs: &[&str], done: bool) -> Vertex {
    let now = done.then(Timestamp::default);
    Vertex {
        digest: digest.into(),
        name: name.into(),
        inputs: inputs.iter().map(|i| (*i).to_owned()).collect(),
        started: now,
        completed: now,
        ..Vertex::default()
    }
}

fn begun(digest: &str, name: &str, inputs: &[&str]) -> Vertex {
    Vertex { started: Some(Timestamp::default()), ..vertex(digest, name, inputs, false) }
}

/// Tells of a step and of what it wrote.
fn say(tell: &UnboundedSender<News>, vertex: Vertex, text: &str) {
    let log = VertexLog {
        vertex: vertex.digest.clone(),
        stream: 1,
        msg: text.as_bytes().to_vec(),
        ..VertexLog::default()
    };
    let logs = if text.is_empty() { Vec::new() } else { vec![log] };
    // Nobody has to listen.
    let _ = tell.send(Ok(StatusResponse { vertexes: vec![vertex], logs, ..Default::default() }));
}

#[tonic::async_trait]
impl Control for Daemon {
    type PruneStream = Out<UsageRecord>;
    type StatusStream = Out<StatusResponse>;
    type SessionStream = Out<BytesMessage>;
    type ListenBuildHistoryStream = Out<BuildHistoryEvent>;

    async fn solve(
        &self,
        request: Request<SolveRequest>,
    ) -> Result<Response<SolveResponse>, Status> {
        let request = request.into_inner();
        let tell = self.way(&request.r#ref, |way| way.0.take());
        let tell = tell.ok_or_else(|| Status::already_exists("a build of this name"))?;
        self.run(request, &tell).await.map(Response::new)
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<Self::StatusStream>, Status> {
        let news = self.way(&request.into_inner().r#ref, |way| way.1.take());
        let news = news.ok_or_else(|| Status::not_found("no such build"))?;
        let next =
            |mut news: UnboundedReceiver<News>| async { news.recv().await.map(|n| (n, news)) };
        Ok(Response::new(Box::pin(stream::unfold(news, next))))
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let header = |name: &str| {
            let value = request.metadata().get(name).and_then(|v| v.to_str().ok());
            value.map(str::to_owned).ok_or_else(|| Status::invalid_argument(name.to_owned()))
        };
        let id = header("x-docker-expose-session-uuid")?;
        header("x-docker-expose-session-sharedkey")?;
        let methods = request.metadata().get_all("x-docker-expose-session-grpc-method");
        if !methods.iter().any(|m| m == "/grpc.health.v1.Health/check") {
            return Err(Status::invalid_argument("a session without health checks"));
        }
        let (out, channel) = session::open(request.into_inner());
        let (sessions, hushes) = (self.sessions.clone(), matches!(self.script.end, End::Hushes));
        tokio::spawn(async move {
            let channel = channel.await;
            sessions.send_modify(|known| drop(known.insert(id, channel.clone())));
            while !hushes && session::is_well(&channel).await {
                tokio::time::sleep(PROBE_EVERY).await;
            }
        });
        Ok(Response::new(out))
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(ListWorkersResponse::default()))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse::default()))
    }

    async fn disk_usage(
        &self,
        _: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        Ok(Response::new(DiskUsageResponse::default()))
    }

    async fn prune(&self, _: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        Ok(Response::new(Box::pin(stream::empty())))
    }

    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Ok(Response::new(Box::pin(stream::empty())))
    }

    async fn update_build_history(
        &self,
        _: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        Ok(Response::new(UpdateBuildHistoryResponse::default()))
    }
}
