//! Drives one build: picks daemons, tries again where that can help, takes the image in.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ashlar_core::Hasher;
use ashlar_core::cache::Bypass;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{Event, Level, LogLine};
use ashlar_core::state::State;
use ashlar_frontend_dockerfile::{NoCache, Request};
use ashlar_layers::Stop;
use ashlar_native::BuildRequest;
use ashlar_native::log::Masker;
use ashlar_oci::{Images, LocalImage};
use ashlar_sandbox::Cancel;
use bollard_buildkit_proto::moby::buildkit::v1::{SolveRequest, StatusRequest};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tonic::Status;

use crate::Address;
use crate::attrs::{Choices, Solve, Way, mirror_rules};
use crate::connect::{ConnectError, Kind};
use crate::daemon::Daemon;
use crate::dockerfile::Inputs;
use crate::failure;
use crate::image::take_in;
use crate::pool::{Pool, Turn};
use crate::progress::Tracker;
use crate::session::{Agents, Files, Logins, Receiver, Secrets, Session, archive, forward};
use crate::sync::{Counts, Sent};

/// Threads that carry what daemons say; files are read on others.
const THREADS: usize = 2;
/// How long the last of a build's progress may take once the build is over.
const LAST_NEWS: Duration = Duration::from_secs(10);
/// How long it may take to tidy up in a daemon's store.
const TIDY: Duration = Duration::from_secs(10);
/// Where images lie in a daemon's store until they are here.
const STORE_NAME: &str = "ashlar-build";
/// The response's keys that name what was made.
const CONFIG_DIGEST: &str = "containerimage.config.digest";

/// BuildKit daemons. Shared by all builds of a process.
pub struct Buildkit {
    pool: Pool,
    runtime: Runtime,
}

/// One build.
pub struct Job<'a> {
    /// The Dockerfile and its options.
    pub dockerfile: &'a Request,
    /// Contexts, secrets, logins, and where events go; its frontend is not asked.
    pub build: &'a BuildRequest,
    /// Where the image goes, and the mirrors of registries.
    pub images: &'a Images,
    /// Whether registries are asked for newer base images.
    pub pull: bool,
}

/// What a build came to.
#[derive(Debug, Clone)]
pub struct Made {
    /// The image, whose blobs are in the store. It is in no list yet.
    pub image: LocalImage,
    /// What was sent of contexts.
    pub sent: Sent,
    /// Where it was built.
    pub daemon: Address,
}

/// Why an attempt came to nothing.
enum Trouble {
    /// The daemon is gone, or was never there.
    Lost(String),
    /// It cannot send archives.
    NoArchives,
    /// It says why.
    Said(Status),
    /// Something here failed.
    Failed(Failure),
}

impl From<ConnectError> for Trouble {
    fn from(error: ConnectError) -> Self {
        Self::Lost(chain(&error))
    }
}

/// A build at work.
struct Work<'a> {
    job: &'a Job<'a>,
    inputs: Inputs,
    masker: &'a Masker,
    counts: Arc<Counts>,
    stop: Stop,
    identity: String,
    /// Names in stores of daemons that have to go.
    leftovers: Mutex<Vec<(Address, String)>>,
}

impl Buildkit {
    /// Takes the daemons; none is connected to yet.
    ///
    /// # Errors
    /// When no threads can be started.
    pub fn new(addresses: Vec<Address>) -> io::Result<Self> {
        for address in addresses.iter().filter(|a| a.is_open()) {
            tracing::warn!(%address, "anybody can use and overhear this BuildKit daemon: it has no TLS");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("ashlar-buildkit")
            .enable_all()
            .build()?;
        Ok(Self { pool: Pool::new(addresses), runtime })
    }

    /// Runs one build to its end. Blocks; not to be called inside an async task.
    ///
    /// # Errors
    /// With the reason, when the build fails or is stopped; with [`FailureKind::Interrupted`] when no
    /// daemon is left to run it.
    pub fn build(&self, job: &Job<'_>, cancel: &Cancel) -> Result<Made, Failure> {
        let (build, request) = (job.build, job.dockerfile);
        let logins = build.credentials.values().map(|l| l.password.as_bytes());
        let hidden = build.hidden.values().map(String::as_bytes);
        let secrets = build.secrets.values().map(Vec::as_slice).chain(logins).chain(hidden);
        let masker = Masker::new(secrets);
        let bypass = (request.no_cache == NoCache::All).then_some(Bypass::WholeBuild);
        let mut tracker = Tracker::new(&*build.sink, &masker, bypass, &request.file_name);
        let work = Work {
            job,
            inputs: Inputs::of(request, build)?,
            masker: &masker,
            counts: Arc::new(Counts::new(Arc::clone(&build.sink))),
            stop: Stop::default(),
            identity: format!("{}\n{}\n{}", build.tenant, build.scope, build.name),
            leftovers: Mutex::default(),
        };
        build.sink.event(Event::State { to: State::Running });
        let result = self.runtime.block_on(async {
            tokio::select! {
                made = self.drive(&work, &mut tracker) => made,
                stopped = cancelled(cancel) => Err(stopped),
            }
        });
        work.stop.stop();
        self.runtime.block_on(work.tidy());
        if result.is_err() {
            tracker.close();
        }
        result
    }

    async fn drive(&self, work: &Work<'_>, tracker: &mut Tracker<'_>) -> Result<Made, Failure> {
        let (mut tried, mut reasons) = (Vec::new(), Vec::new());
        while let Some(turn) = self.pool.pick(&work.identity, &tried, Instant::now()) {
            tried.push(turn.number());
            match work.on(&turn, tracker).await {
                Ok(image) => {
                    turn.remember(&work.identity, Instant::now());
                    let (sent, daemon) = (work.counts.sent(), turn.address().clone());
                    return Ok(Made { image, sent, daemon });
                }
                Err(Trouble::Lost(reason)) => {
                    turn.lost(Instant::now());
                    tracing::warn!(address = %turn.address(), reason, "a BuildKit daemon was lost");
                    let number = turn.number() + 1;
                    work.warn(format!("BuildKit daemon {number} was lost: {reason}"));
                    reasons.push(format!("daemon {number}: {reason}"));
                    tracker.change_daemon();
                }
                Err(Trouble::Failed(failure)) => {
                    turn.remember(&work.identity, Instant::now());
                    return Err(failure);
                }
                Err(Trouble::Said(status)) => {
                    turn.remember(&work.identity, Instant::now());
                    return Err(work.failure(&status, tracker));
                }
                Err(Trouble::NoArchives) => {
                    let text = "the BuildKit daemon has neither of the two known exporters";
                    return Err(Failure::new(FailureKind::Export, text));
                }
            }
        }
        Err(failure::no_daemon(&reasons))
    }
}

impl Work<'_> {
    /// Builds on one daemon, again where another choice may help.
    async fn on(&self, turn: &Turn<'_>, tracker: &mut Tracker<'_>) -> Result<LocalImage, Trouble> {
        let daemon = Daemon::open(turn.address()).await?;
        let known = self.inputs.known_syntax.as_deref();
        let out_of_reach = known.is_some_and(|image| turn.lacks_syntax(image, Instant::now()));
        let mut choices = Choices { built_in_syntax: out_of_reach, mirror: 0 };
        loop {
            let status = match self.attempt(turn, &daemon, choices, tracker).await {
                Err(Trouble::NoArchives)
                    if daemon.kind() == Kind::Dockerd && !turn.lacks_archives() =>
                {
                    turn.learn_archives(true);
                    continue;
                }
                Err(Trouble::Said(status)) => status,
                other => return other,
            };
            let has_mirror = !self.rules(choices).is_empty();
            match known {
                _ if has_mirror && failure::is_unresolved(&status) => {
                    choices.mirror += 1;
                    self.warn("a mirror does not have an image: asking the next one".into());
                }
                Some(image)
                    if !choices.built_in_syntax
                        && failure::is_syntax_unresolved(&status, image) =>
                {
                    turn.learn_no_syntax(image, Instant::now());
                    choices = Choices { built_in_syntax: true, mirror: 0 };
                    self.warn(format!(
                        "the frontend '{image}' of the syntax line cannot be had: the daemon's own \
                         is taken"
                    ));
                }
                // A registry that is out of reach says so in the same words as a daemon.
                _ if failure::is_lost(&status) && !failure::is_unresolved(&status) => {
                    return Err(Trouble::Lost(chain(&status)));
                }
                _ => return Err(Trouble::Said(status)),
            }
        }
    }

    /// Solves once and takes the image in.
    async fn attempt(
        &self,
        turn: &Turn<'_>,
        daemon: &Daemon,
        choices: Choices,
        tracker: &mut Tracker<'_>,
    ) -> Result<LocalImage, Trouble> {
        let (receiver, archive) = archive();
        let session = self.session(receiver);
        let reference = uuid::Uuid::now_v7().simple().to_string();
        let way = if daemon.kind() == Kind::Dockerd && turn.lacks_archives() {
            Way::Store(format!("{STORE_NAME}/{reference}:latest"))
        } else {
            Way::Archive
        };
        let request = Solve {
            reference: &reference,
            session: &session.id,
            job: self.job,
            inputs: &self.inputs,
            way: &way,
            rules: self.rules(choices),
            choices,
        }
        .request();
        let attached = daemon.attach(session).await?;
        let images = self.job.images.clone();
        if let Way::Store(name) = &way {
            self.leftovers().push((turn.address().clone(), name.clone()));
            let response = self.solve(daemon, request, tracker).await?;
            drop(attached);
            let image = self.fetch(daemon, name).await?;
            daemon.untag(name).await?;
            self.leftovers().retain(|(_, n)| n != name);
            return checked(image, &response);
        }
        let importing = tokio::task::spawn_blocking(move || take_in(&images, archive));
        let response = self.solve(daemon, request, tracker).await?;
        // Nothing more can come: an archive that was never begun is none.
        drop(attached);
        let image = importing.await.map_err(|_| Trouble::Failed(broke()))?;
        checked(image.map_err(Trouble::Failed)?, &response)
    }

    /// Calls the daemon and follows what it tells until it is done.
    async fn solve(
        &self,
        daemon: &Daemon,
        request: SolveRequest,
        tracker: &mut Tracker<'_>,
    ) -> Result<Response, Trouble> {
        let reference = request.r#ref.clone();
        let (mut control, mut news) = (daemon.control.clone(), daemon.control.clone());
        let mut following = Box::pin(async {
            let stream = news.status(StatusRequest { r#ref: reference }).await;
            let Ok(stream) = stream else { return };
            let mut stream = stream.into_inner();
            // An end of another kind is the call's to tell.
            while let Ok(Some(status)) = stream.message().await {
                tracker.take(status);
            }
        });
        let mut solving = Box::pin(control.solve(request));
        let mut followed = false;
        let solved = loop {
            tokio::select! {
                solved = &mut solving => break solved,
                () = &mut following, if !followed => followed = true,
            }
        };
        if let Err(status) = &solved
            && failure::lacks_exporter(status)
        {
            return Err(Trouble::NoArchives);
        }
        if !followed {
            // What is missing is the end of a log, not of the build.
            let last = timeout(LAST_NEWS, &mut following).await;
            if last.is_err() {
                tracing::warn!("a daemon's progress did not end with its build");
            }
        }
        drop(following);
        match solved {
            Ok(response) => Ok(response.into_inner().exporter_response),
            Err(status) => Err(Trouble::Said(status)),
        }
    }

    /// Takes an image out of a Docker daemon's store.
    async fn fetch(&self, daemon: &Daemon, name: &str) -> Result<Option<LocalImage>, Trouble> {
        let (receiver, archive) = archive();
        let pieces = Box::pin(daemon.save(name).await?);
        let images = self.job.images.clone();
        let importing = tokio::task::spawn_blocking(move || take_in(&images, archive));
        if let Some(sender) = receiver.take() {
            forward(pieces, sender).await;
        }
        let image = importing.await.map_err(|_| Trouble::Failed(broke()))?;
        image.map_err(Trouble::Failed)
    }

    fn session(&self, receiver: Receiver) -> Session {
        let build = self.job.build;
        let mut key = Hasher::new();
        key.field("buildkit session").field(&self.identity);
        Session {
            id: uuid::Uuid::now_v7().simple().to_string(),
            shared_key: key.finish().hex().to_owned(),
            files: Files {
                directories: self.inputs.directories.clone(),
                counts: Arc::clone(&self.counts),
                stop: self.stop.clone(),
            },
            receiver,
            secrets: Secrets(build.secrets.clone()),
            logins: Logins {
                own: build.credentials.clone(),
                settings: self.job.images.registry().settings().clone(),
            },
            agents: Agents(build.ssh.clone()),
        }
    }

    fn rules(
        &self,
        choices: Choices,
    ) -> Vec<bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::Rule> {
        mirror_rules(&self.job.images.registry().settings().mirrors, choices.mirror)
    }

    fn failure(&self, status: &Status, tracker: &mut Tracker<'_>) -> Failure {
        let file = &self.job.dockerfile.file_name;
        let failed = tracker.failed(failure::vertex_of(status).as_deref());
        failure::of_status(status, failed, file, self.masker)
    }

    fn warn(&self, text: String) {
        self.job.build.sink.event(Event::Log(LogLine::service(Level::Warn, text)));
    }

    fn leftovers(&self) -> std::sync::MutexGuard<'_, Vec<(Address, String)>> {
        self.leftovers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes names out of the stores of daemons that a build left there when it was stopped.
    async fn tidy(&self) {
        let leftovers = std::mem::take(&mut *self.leftovers());
        for (address, name) in leftovers {
            let untag = async { Daemon::open(&address).await?.untag(&name).await };
            match timeout(TIDY, untag).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%address, error = chain(&error), "a name was left there");
                }
                Err(_) => tracing::debug!(%address, "a name was left there"),
            }
        }
    }
}

/// What exporters say of what they made.
type Response = std::collections::HashMap<String, String>;

/// Holds the image that came against what the daemon says it sent.
fn checked(image: Option<LocalImage>, response: &Response) -> Result<LocalImage, Trouble> {
    let failed = |text: String| Trouble::Failed(Failure::new(FailureKind::Export, text));
    let image = image.ok_or_else(|| failed("the daemon sent no image".into()))?;
    let came = image.config_digest.map(|d| d.to_string());
    match response.get(CONFIG_DIGEST) {
        Some(said) if came.as_deref() != Some(said) => {
            Err(failed(format!("the daemon sent another image than {said}")))
        }
        _ => Ok(image),
    }
}

fn broke() -> Failure {
    Failure::new(FailureKind::Internal, "the thread that takes images in broke")
}

/// Waits until the build is to stop.
async fn cancelled(cancel: &Cancel) -> Failure {
    let broken = |e: &dyn std::error::Error| {
        let text = format!("cannot watch for a stop: {}", chain(e));
        Failure::new(FailureKind::Internal, text)
    };
    let ended = match Cancel::new() {
        Ok(ended) => ended,
        Err(error) => return broken(&error),
    };
    let (cancel, watched) = (cancel.clone(), ended.clone());
    let _ends_the_thread = EndOf(ended);
    let waited = tokio::task::spawn_blocking(move || wait_for_either(&cancel, &watched)).await;
    match waited {
        Ok(()) => Failure::new(FailureKind::Step, "the build was cancelled"),
        Err(error) => broken(&error),
    }
}

/// Calls a token when it is dropped.
struct EndOf(Cancel);

impl Drop for EndOf {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Waits until one of two tokens is cancelled.
fn wait_for_either(first: &Cancel, second: &Cancel) {
    while !first.is_cancelled() && !second.is_cancelled() {
        let mut fds = [
            PollFd::from_borrowed_fd(first.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(second.as_fd(), PollFlags::IN),
        ];
        // An interrupted wait is simply begun again.
        let _ = poll(&mut fds, None);
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    match error.source() {
        Some(cause) => format!("{text}: {}", chain(cause)),
        None => text,
    }
}
