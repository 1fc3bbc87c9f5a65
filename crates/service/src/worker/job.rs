//! One build on its thread: its contexts, its frozen answers, its frontend, its executor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ashlar_blobs::BlobError;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::Answers;
use ashlar_core::graph::Network;
use ashlar_core::journal::{ArtifactRecord, Event, LogText, Record, Sink};
use ashlar_core::{TenantId, Timestamp};
use ashlar_layers::Stop;
use ashlar_native::{BuildRequest, RegistryLogin, while_waiting};
use ashlar_records::JournalWriter;
use ashlar_sandbox::Cancel;
use tokio::runtime::Handle;

use super::stopped::Stopped;
use crate::contexts::Held;
use crate::own_tags::{Renaming, TenantTags};
use crate::push::Pusher;
use crate::recipe::{Adopt, Guarded, decode_answers, encode_answers};
use crate::share::Images;
use crate::{
    Away, Definition, Error, Executor, Finished, Recipe, Service, Work, credentials, hidden,
};

/// The largest blob of answers, in bytes.
const ANSWERS_BYTES_MAX: u64 = 64 << 20;

/// One build on its thread.
pub(super) struct Job {
    pub(super) service: Arc<Service>,
    pub(super) record: Record,
    pub(super) definition: Definition,
    pub(super) secrets: BTreeMap<String, Vec<u8>>,
    pub(super) executor: Arc<dyn Executor>,
    pub(super) writer: JournalWriter,
    pub(super) cancel: Cancel,
}

impl Job {
    pub(super) fn run(self) -> Result<Finished, Stopped> {
        let stop = Stop::default();
        let end = stop.clone();
        while_waiting(&self.cancel, move || end.stop(), || self.run_unless(&stop))
    }

    fn run_unless(&self, stop: &Stop) -> Result<Finished, Stopped> {
        let contexts = self.contexts(stop)?;
        let tenant = self.record.submission.tenant;
        let frozen = self.frozen()?;
        let images = Images::of(&self.service);
        let away = images.as_ref().map(Images::away).unwrap_or_default();
        let own = (!self.definition.pull).then(|| self.own_tags(&away));
        let images = images.map(|i| Box::new(i) as Box<dyn Adopt>);
        if let (Some(images), Recipe::OnBuild { base, owner, .. }) =
            (&images, &self.definition.recipe)
        {
            images.adopt(owner.unwrap_or(tenant), *base).map_err(|text| {
                let away = away.get().copied();
                let failed = || Failure::new(FailureKind::Source, text).into();
                away.map_or_else(failed, Stopped::Away)
            })?;
        }
        let frontend = Guarded::new(&self.definition, tenant, frozen)?;
        let frontend = Arc::new(frontend.with_images(images).with_own(own));
        let sink = Arc::new(AnswersSink {
            job_sink: self.writer.clone(),
            frontend: Arc::clone(&frontend),
            service: Arc::clone(&self.service),
            tenant,
            told: AtomicBool::new(false),
        });
        let mut request = self.request(frontend, sink, &contexts);
        let found = credentials::take(&mut request.secrets)?;
        request.hidden = hidden::take(&mut request.secrets)?;
        let registry = self.service.engine().images().registry();
        request.credentials = credentials::log_in(registry, found, stop)?;
        let logins = request.credentials.clone();
        let work = Work { definition: &self.definition, request };
        let finished = self.executor.build(work, &self.cancel).map_err(|failure| {
            // A frontend has no word for it but that there is no such image.
            let away = away.get().copied();
            away.map_or_else(|| failure.into(), Stopped::Away)
        })?;
        Stopped::check(stop)?;
        self.deliver(finished, &logins, stop)
    }

    fn own_tags(&self, away: &Arc<OnceLock<Away>>) -> Renaming {
        let (service, tenant) = (Arc::clone(&self.service), self.record.submission.tenant);
        let (runtime, away) = (Handle::current(), Arc::clone(away));
        Renaming::new(tenant, Box::new(TenantTags { service, tenant, runtime, away }))
    }

    /// Stores what was made where all machines find it, and pushes it.
    fn deliver(
        &self,
        mut finished: Finished,
        logins: &BTreeMap<String, RegistryLogin>,
        stop: &Stop,
    ) -> Result<Finished, Stopped> {
        let (tenant, epoch) = (self.record.submission.tenant, self.definition.epoch);
        for (name, bytes) in std::mem::take(&mut finished.files) {
            let digest = self.service.keep_blob(tenant, &bytes)?;
            let (kind, bytes) = ("file".to_owned(), Some(bytes.len() as u64));
            let references = Vec::new();
            finished.artifacts.push(ArtifactRecord { name, kind, digest, bytes, references });
        }
        self.service.publish(tenant, &mut finished.artifacts, epoch, stop)?;
        match self.pusher(logins, stop).push(&self.definition.outputs, &finished.artifacts) {
            Ok(pushed) => finished.artifacts.extend(pushed),
            Err(Stopped::Failed(failure)) => {
                // What was built is kept, and can be fetched and pushed by hand.
                let made = finished.artifacts.into_iter().map(Event::Artifact);
                made.for_each(|event| self.writer.event(event));
                return Err(failure.into());
            }
            Err(away) => return Err(away),
        }
        Ok(finished)
    }

    fn pusher<'a>(
        &'a self,
        logins: &'a BTreeMap<String, RegistryLogin>,
        stop: &'a Stop,
    ) -> Pusher<'a> {
        Pusher {
            service: &self.service,
            tenant: self.record.submission.tenant,
            epoch: self.definition.epoch,
            logins,
            sink: &self.writer,
            stop,
        }
    }

    fn contexts(&self, stop: &Stop) -> Result<BTreeMap<String, Held>, Error> {
        let blobs = self.service.engine().images().blobs();
        let hold = |(name, digest): (&String, &ashlar_core::Digest)| {
            Ok((name.clone(), self.service.contexts().hold(blobs, *digest, stop)?))
        };
        self.definition.contexts.iter().map(hold).collect()
    }

    fn frozen(&self) -> Result<Answers, Error> {
        let Some(digest) = &self.definition.answers else { return Ok(Answers::new()) };
        let blobs = self.service.engine().images().blobs();
        match blobs.read(digest, ANSWERS_BYTES_MAX) {
            // Of a build from before answers were held: they are asked for again.
            Err(BlobError::Missing(_)) => Ok(Answers::new()),
            read => decode_answers(&read?),
        }
    }

    fn request(
        &self,
        frontend: Arc<Guarded>,
        sink: Arc<AnswersSink>,
        contexts: &BTreeMap<String, Held>,
    ) -> BuildRequest {
        let (s, config) = (&self.record.submission, self.service.config());
        let network = match self.definition.network {
            Network::Default => config.network,
            // A tenant gets the host's network only when the operator made it the default.
            Network::Host => config.network,
            said => said,
        };
        BuildRequest {
            frontend,
            tenant: s.tenant.to_string(),
            scope: s.scope.clone(),
            name: s.name.clone(),
            build: s.build.to_string(),
            contexts: contexts.iter().map(|(n, held)| (n.clone(), held.path.clone())).collect(),
            secrets: self.secrets.clone(),
            hidden: BTreeMap::new(),
            credentials: BTreeMap::new(),
            pull: self.definition.pull,
            asked: began(self.record.created_at),
            ssh: BTreeMap::new(),
            limits: self.definition.limits.within(&config.limits),
            network,
            entitlements: BTreeSet::new(),
            identity: self.definition.final_identity(),
            epoch: self.definition.epoch,
            sink,
        }
    }
}

/// Returns when something was, by the clock that only goes on. What another server says was later
/// than now is now.
fn began(then: Timestamp) -> Instant {
    let nanos = ashlar_records::now().nanos().saturating_sub(then.nanos());
    let age = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    let now = Instant::now();
    now.checked_sub(age).unwrap_or(now)
}

/// Passes events on to the journal, and once the plan is known notes what its questions came to.
struct AnswersSink {
    job_sink: JournalWriter,
    frontend: Arc<Guarded>,
    service: Arc<Service>,
    tenant: TenantId,
    told: AtomicBool,
}

impl AnswersSink {
    fn note(&self) {
        let Some(answers) = self.frontend.answers() else { return };
        if self.told.swap(true, Ordering::AcqRel) || answers.iter().next().is_none() {
            return;
        }
        let kept = encode_answers(&answers);
        match kept.and_then(|bytes| self.service.keep_blob(self.tenant, &bytes)) {
            // Granted for a while, and held by the build as soon as that is written.
            Ok(blob) => self.job_sink.event(Event::AnswersKept { blob }),
            // A retry then asks again, as if for the newest.
            Err(error) => tracing::warn!(error = error.internal_text(), "answers were not kept"),
        }
    }
}

impl Sink for AnswersSink {
    fn event(&self, event: Event) {
        // The steps are the first thing that is said once there is a plan.
        let planned = matches!(event, Event::Steps { .. });
        self.service.counters().said(&event);
        self.job_sink.event(event);
        if planned {
            self.note();
        }
    }

    fn text(&self, text: LogText) {
        self.service.counters().wrote(text.bytes.len());
        self.job_sink.text(text);
    }
}
