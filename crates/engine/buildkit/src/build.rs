//! Drives builds: picks a daemon for each, and another one when that is lost.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ashlar_core::Digest;
use ashlar_core::cache::Bypass;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::Event;
use ashlar_core::state::State;
use ashlar_frontend_dockerfile::{NoCache, Request};
use ashlar_layers::Stop;
use ashlar_native::BuildRequest;
use ashlar_oci::{Images, LocalImage};
use ashlar_sandbox::Cancel;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::runtime::Runtime;

use crate::Address;
use crate::bases;
use crate::dockerfile::Inputs;
use crate::failure;
use crate::patience::Patience;
use crate::pool::Pool;
use crate::progress::Tracker;
use crate::stop::cancelled;
use crate::sync::{Counts, Sent};
use crate::trouble::Trouble;
use crate::work::Work;

/// Threads that carry what daemons say; files are read on others.
const THREADS: usize = 2;

/// The purpose of [`Buildkit::with_key`]'s key, for whoever makes keys.
pub const BUILDKIT_KEY: &str = "names on BuildKit daemons";

/// BuildKit daemons. Shared by all builds of a process.
pub struct Buildkit {
    pool: Pool,
    runtime: Runtime,
    patience: Patience,
    names_files: bool,
    key: Digest,
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
        let key = own_key()?;
        let (pool, patience) = (Pool::new(addresses), Patience::default());
        Ok(Self { pool, runtime, patience, names_files: false, key })
    }

    /// Sets a secret key of this service, by which it names what it leaves on daemons: cache mounts, and
    /// copies of contexts. Without one they are found again only within this process.
    #[must_use]
    pub fn with_key(self, key: Digest) -> Self {
        Self { key, ..self }
    }

    /// Lets failures name files of this machine, such as certificates that cannot be read: for a user
    /// whose own machine it is.
    #[must_use]
    pub fn naming_files(self) -> Self {
        Self { names_files: true, ..self }
    }

    /// Sets how long daemons are waited for.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Runs one build to its end. Blocks; not to be called inside an async task.
    ///
    /// # Errors
    /// With the reason, when the build fails or is stopped; with [`FailureKind::Interrupted`] when no
    /// daemon is left to run it.
    pub fn build(&self, job: &Job<'_>, cancel: &Cancel) -> Result<Made, Failure> {
        let (build, request) = (job.build, job.dockerfile);
        bases::check(request, build, job.images)?;
        let masker = build.masker();
        let bypass = (request.no_cache == NoCache::All).then_some(Bypass::WholeBuild);
        let mut tracker = Tracker::new(&*build.sink, &masker, bypass, &request.file_name);
        let work = Work {
            job,
            inputs: Inputs::of(request, build)?,
            masker: &masker,
            counts: Arc::new(Counts::new(Arc::clone(&build.sink))),
            stop: Stop::default(),
            identity: format!("{}\n{}\n{}", build.tenant, build.scope, build.name),
            patience: self.patience,
            key: &self.key,
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
        tracker.close();
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
                Err(Trouble::Lost(loss)) => {
                    turn.lost(Instant::now());
                    let whole = failure::reason(&loss.whole(), work.masker);
                    tracing::warn!(address = %turn.address(), reason = whole, "a BuildKit daemon was lost");
                    let public = || failure::reason(&loss.without_files(), work.masker);
                    let reason = if self.names_files { whole } else { public() };
                    let number = turn.number() + 1;
                    work.warn(format!("BuildKit daemon {number} was lost: {reason}"));
                    reasons.push(format!("daemon {number}: {reason}"));
                    tracker.begin_again();
                }
                Err(Trouble::Failed(failure)) => {
                    turn.remember(&work.identity, Instant::now());
                    return Err(failure);
                }
                Err(Trouble::Said(status)) => {
                    turn.remember(&work.identity, Instant::now());
                    return Err(work.failure(&status, tracker));
                }
                Err(Trouble::Vanished) => {
                    let text = "other builds of the same image take it out of the daemon's store";
                    return Err(Failure::new(FailureKind::Export, text).hint("build again"));
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

/// Makes a key that nobody knows.
fn own_key() -> io::Result<Digest> {
    let mut key = [0; 32];
    getrandom(&mut key, GetRandomFlags::empty())?;
    Ok(Digest::from_bytes(key))
}
