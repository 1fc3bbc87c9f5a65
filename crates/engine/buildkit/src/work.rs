//! One build at work on one daemon: the call that runs it, what it tells, its image.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{Event, Level, LogLine};
use ashlar_core::{Digest, Hasher};
use ashlar_layers::Stop;
use ashlar_native::log::Masker;
use ashlar_oci::LocalImage;
use bollard_buildkit_proto::moby::buildkit::v1::{SolveRequest, StatusRequest};
use tokio::time::timeout;
use tonic::Status;

use crate::Address;
use crate::attrs::{Choices, Solve, Way, mirror_rules};
use crate::build::Job;
use crate::chain::chain;
use crate::connect::{ConnectError, Kind};
use crate::daemon::Daemon;
use crate::dockerfile::Inputs;
use crate::failure;
use crate::image::take_in;
use crate::patience::{Patience, Pulse};
use crate::pool::Turn;
use crate::progress::Tracker;
use crate::session::{
    Agents, Files, Logins, REFUSAL, Receiver, Secrets, Session, archive, forward,
};
use crate::sync::Counts;
use crate::trouble::{Loss, Trouble};

/// How long the last of a build's progress may take once the build is over.
const LAST_NEWS: Duration = Duration::from_secs(10);
/// How long it may take to tidy up in a daemon's store.
const TIDY: Duration = Duration::from_secs(10);
/// Where images lie in a daemon's store until they are here.
const STORE_NAME: &str = "ashlar-build";
/// What a Docker daemon answers when it has no image of a name.
const NOT_FOUND: u16 = 404;
/// What a Docker daemon with its classic store says when an image without layers is asked for.
const NO_LAYERS: &str = "empty export";
/// What to do then.
const NO_LAYERS_HINT: &str = "a Docker daemon with its classic store keeps images without layers to \
    itself: build natively, or let the Dockerfile copy something";
/// How often an image is made again that went out of the daemon's store before it was taken from there.
const VANISHED_MAX: u32 = 10;
/// The response's keys that name what was made.
const CONFIG_DIGEST: &str = "containerimage.config.digest";

/// A build at work.
pub(crate) struct Work<'a> {
    pub(crate) job: &'a Job<'a>,
    pub(crate) inputs: Inputs,
    pub(crate) masker: &'a Masker,
    pub(crate) counts: Arc<Counts>,
    pub(crate) stop: Stop,
    pub(crate) identity: String,
    pub(crate) patience: Patience,
    pub(crate) key: &'a Digest,
    /// Names in stores of daemons that have to go.
    pub(crate) leftovers: Mutex<Vec<(Address, String)>>,
}

impl Work<'_> {
    /// Builds on one daemon. The failure that one which is about to end tells is taken for its loss:
    /// whatever it says then may come of its end.
    pub(crate) async fn on(
        &self,
        turn: &Turn<'_>,
        tracker: &mut Tracker<'_>,
    ) -> Result<LocalImage, Trouble> {
        let daemon = Daemon::open(turn.address(), self.patience.connect).await?;
        let trouble = match self.choosing(turn, &daemon, tracker).await {
            Ok(image) => return Ok(image),
            Err(trouble) => trouble,
        };
        let said = match &trouble {
            Trouble::Said(status) => status.message().to_owned(),
            Trouble::Failed(failure) => failure.message.clone(),
            Trouble::Lost(_) | Trouble::NoArchives | Trouble::Vanished => return Err(trouble),
        };
        if daemon.stays().await { Err(trouble) } else { Err(Trouble::Lost(Loss::Ending(said))) }
    }

    /// Builds on a daemon, again where another choice may help.
    async fn choosing(
        &self,
        turn: &Turn<'_>,
        daemon: &Daemon,
        tracker: &mut Tracker<'_>,
    ) -> Result<LocalImage, Trouble> {
        let known = self.inputs.known_syntax.as_deref();
        let out_of_reach = known.is_some_and(|image| turn.lacks_syntax(image, Instant::now()));
        let mut choices = Choices { built_in_syntax: out_of_reach, mirror: 0 };
        let mut vanished = 0;
        loop {
            let status = match self.attempt(turn, daemon, choices, tracker).await {
                Err(Trouble::NoArchives)
                    if daemon.kind() == Kind::Dockerd && !turn.lacks_archives() =>
                {
                    turn.learn_archives(true);
                    tracker.begin_again();
                    continue;
                }
                // Another build has made the same image, and took its own name off it just then: the
                // daemon removes what it thinks is the last one. The steps are in its cache.
                Err(Trouble::Vanished) if vanished < VANISHED_MAX => {
                    vanished += 1;
                    tracker.begin_again();
                    continue;
                }
                Err(Trouble::Said(status)) if failure::is_lost(&status) => {
                    return Err(Trouble::Lost(Loss::Call(status)));
                }
                Err(Trouble::Said(status)) => status,
                other => return other,
            };
            let has_mirror = !self.rules(choices).is_empty();
            match known {
                _ if has_mirror && failure::is_unresolved(&status) => {
                    choices.mirror += 1;
                    tracker.begin_again();
                    self.warn("a mirror does not have an image: asking the next one".into());
                }
                Some(image)
                    if !choices.built_in_syntax
                        && failure::is_syntax_unresolved(&status, image) =>
                {
                    turn.learn_no_syntax(image, Instant::now());
                    choices = Choices { built_in_syntax: true, mirror: 0 };
                    tracker.begin_again();
                    self.warn(format!(
                        "the frontend '{image}' of the syntax line cannot be had: the daemon's own \
                         is taken"
                    ));
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
        let pulse = Arc::new(Pulse::new());
        let session = self.session(receiver, Arc::clone(&pulse));
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
            key: self.key,
            way: &way,
            rules: self.rules(choices),
            choices,
        }
        .request();
        let attached = daemon.attach(session).await?;
        let images = self.job.images.clone();
        if let Way::Store(name) = &way {
            self.leftovers().push((turn.address().clone(), name.clone()));
            let solving = self.solve(daemon, request, tracker, &pulse);
            let response = match self.while_it_lives(&pulse, solving).await {
                Err(Trouble::Said(status)) if failure::is_vanished(&status) => {
                    return Err(Trouble::Vanished);
                }
                solved => solved?,
            };
            let image = self.while_it_lives(&pulse, self.fetch(daemon, name)).await?;
            // Until here the session shows whether the daemon lives.
            drop(attached);
            // A name that stays is none of the build's troubles, and tried again at its end.
            if daemon.untag(name).await.is_ok() {
                self.leftovers().retain(|(_, n)| n != name);
            }
            return checked(image, &response);
        }
        let importing = tokio::task::spawn_blocking(move || take_in(&images, archive));
        let solving = self.solve(daemon, request, tracker, &pulse);
        let solved = self.while_it_lives(&pulse, solving).await;
        // Nothing more can come: an archive that was never begun is none.
        drop(attached);
        let image = importing.await.map_err(|_| Trouble::Failed(broke()))?;
        match (solved, image) {
            (Ok(response), image) => checked(image.map_err(Trouble::Failed)?, &response),
            // The daemon says only what it was told; the reason lies here.
            (Err(Trouble::Said(status)), Err(failure)) if status.message().contains(REFUSAL) => {
                Err(Trouble::Failed(failure))
            }
            (Err(trouble), _) => Err(trouble),
        }
    }

    /// Waits for what a daemon does as long as anything is heard of it.
    async fn while_it_lives<T>(
        &self,
        pulse: &Pulse,
        doing: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let silence = self.patience.silence;
        tokio::select! {
            done = doing => done,
            () = pulse.stopped(silence) => Err(Trouble::Lost(Loss::Silence(silence))),
        }
    }

    /// Calls the daemon and follows what it tells until it is done.
    async fn solve(
        &self,
        daemon: &Daemon,
        request: SolveRequest,
        tracker: &mut Tracker<'_>,
        pulse: &Pulse,
    ) -> Result<Response, Trouble> {
        let reference = request.r#ref.clone();
        let (mut control, mut news) = (daemon.control.clone(), daemon.control.clone());
        let mut following = Box::pin(async {
            let stream = news.status(StatusRequest { r#ref: reference }).await;
            let Ok(stream) = stream else { return };
            let mut stream = stream.into_inner();
            // An end of another kind is the call's to tell.
            while let Ok(Some(status)) = stream.message().await {
                pulse.beat();
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
        let saved = daemon.save(name).await.map_err(|error| match error {
            ConnectError::Refused { status: NOT_FOUND, .. } => Trouble::Vanished,
            // It lives, and says no.
            ConnectError::Refused { status, text, .. } => {
                let text = format!("the daemon does not hand out its image ({status}): {text}");
                let text = failure::clean(&text, self.masker);
                let mut failure = Failure::new(FailureKind::Export, text);
                failure.hint = failure.message.contains(NO_LAYERS).then(|| NO_LAYERS_HINT.into());
                Trouble::Failed(failure)
            }
            other => other.into(),
        });
        let pieces = Box::pin(saved?);
        let images = self.job.images.clone();
        let importing = tokio::task::spawn_blocking(move || take_in(&images, archive));
        if let Some(sender) = receiver.take() {
            forward(pieces, sender).await;
        }
        let image = importing.await.map_err(|_| Trouble::Failed(broke()))?;
        image.map_err(Trouble::Failed)
    }

    fn session(&self, receiver: Receiver, pulse: Arc<Pulse>) -> Session {
        let build = self.job.build;
        let mut key = Hasher::new();
        key.field("buildkit session").field(self.key.as_bytes()).field(&self.identity);
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
            pulse,
        }
    }

    fn rules(
        &self,
        choices: Choices,
    ) -> Vec<bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::Rule> {
        mirror_rules(&self.job.images.registry().settings().mirrors, choices.mirror)
    }

    pub(crate) fn failure(&self, status: &Status, tracker: &mut Tracker<'_>) -> Failure {
        let file = &self.job.dockerfile.file_name;
        let failed = tracker.failed(failure::vertex_of(status).as_deref());
        failure::of_status(status, failed, file, self.masker)
    }

    pub(crate) fn warn(&self, text: String) {
        self.job.build.sink.event(Event::Log(LogLine::service(Level::Warn, text)));
    }

    fn leftovers(&self) -> std::sync::MutexGuard<'_, Vec<(Address, String)>> {
        self.leftovers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes names out of the stores of daemons that a build left there when it was stopped.
    pub(crate) async fn tidy(&self) {
        let leftovers = std::mem::take(&mut *self.leftovers());
        for (address, name) in leftovers {
            let untag = async { Daemon::open(&address, TIDY).await?.untag(&name).await };
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
