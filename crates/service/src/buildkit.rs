//! Dockerfile builds on BuildKit daemons.
//!
//! The daemon builds the image and it comes back among the local ones, so that everything else (the
//! registry endpoint, export, promotion, builds on top of it) finds it as if it had been built here. A
//! start command is no part of a Dockerfile: it runs in the native sandbox, on the image.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ashlar_buildkit::{Buildkit, Job, unfit};
use ashlar_core::cache::CacheKind;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::frontend::Answers;
use ashlar_core::graph::StepId;
use ashlar_core::image::ImageConfig;
use ashlar_core::journal::{ArtifactRecord, Event, LogText, Progress, Sink};
use ashlar_core::state::State;
use ashlar_core::{Digest, TenantId};
use ashlar_frontend_declarative::Runtime;
use ashlar_frontend_dockerfile::Request;
use ashlar_native::{BuildLimits, BuildRequest, Engine};
use ashlar_oci::{LocalImage, Reference};
use ashlar_sandbox::Cancel;

use crate::executor::{Executor, Finished, Work, image_artifact, keep};
use crate::recipe::{Guarded, INTERNAL_HOST, image_name, set_runtime};
use crate::{Definition, Error, Recipe};

/// The word in records.
const BUILDKIT: &str = "buildkit";

/// Runs Dockerfiles on daemons.
pub(crate) struct OnBuildkit {
    pub(crate) daemons: Buildkit,
    pub(crate) engine: Engine,
    /// The server's own limits, which daemons cannot hold.
    pub(crate) limits: BuildLimits,
}

impl Executor for OnBuildkit {
    fn name(&self) -> &'static str {
        BUILDKIT
    }

    fn refusal(&self, definition: &Definition) -> Option<String> {
        match &definition.recipe {
            Recipe::Dockerfile(request) => {
                let limits = definition.limits.binding().within(&self.limits);
                unfit(request, &limits, INTERNAL_HOST)
            }
            _ => Some("BuildKit runs Dockerfiles only".into()),
        }
    }

    fn build(&self, work: Work<'_>, cancel: &Cancel) -> Result<Finished, Failure> {
        let Recipe::Dockerfile(dockerfile) = &work.definition.recipe else {
            return Err(Failure::new(FailureKind::Internal, "BuildKit runs Dockerfiles only"));
        };
        let mut request = work.request;
        let name = image_name(&request.tenant, &request.build).map_err(internal)?;
        // A collection of garbage by another process must not take what nothing refers to yet.
        let _lease = self.engine.work_lease()?;
        let told = Arc::new(Told { sink: request.sink.clone(), steps: Mutex::default() });
        request.sink = told.clone();
        let images = self.engine.images();
        let job = Job { dockerfile, build: &request, images, pull: work.definition.pull };
        let image = self.daemons.build(&job, cancel)?.image;
        if work.definition.start.is_some() {
            let after = Arc::new(After { sink: told.sink.clone(), before: told.steps() });
            return self.start(work.definition, dockerfile, request, image, name, after, cancel);
        }
        request.sink.event(Event::State { to: State::Exporting });
        let image = with_runtime(image, &work.definition.runtime)?;
        let bytes = archive_bytes(&image);
        let id = self.keep(image, name)?;
        let artifact = ArtifactRecord { bytes, ..image_artifact(id) };
        Ok(Finished { artifacts: vec![artifact], ..Finished::default() })
    }
}

impl OnBuildkit {
    /// Puts an image among the local ones; returns its id.
    fn keep(&self, image: LocalImage, name: Reference) -> Result<Digest, Failure> {
        let store = self.engine.images().store();
        let ids = store.add(&[image], &[name], None).map_err(broken)?;
        ids.first().copied().ok_or_else(|| broken("the image store gave no id"))
    }

    /// Runs the start command on an image that a daemon has built.
    #[expect(clippy::too_many_arguments, reason = "all that is left of a build")]
    fn start(
        &self,
        definition: &Definition,
        dockerfile: &Request,
        request: BuildRequest,
        image: LocalImage,
        name: Reference,
        sink: Arc<After>,
        cancel: &Cancel,
    ) -> Result<Finished, Failure> {
        let platform = dockerfile.platform.clone().unwrap_or_else(|| image.platform.clone());
        let below = archive_bytes(&image);
        self.keep(image, name.clone())?;
        let recipe = Recipe::Image { reference: name.to_string(), platform };
        let rest = Definition { recipe, ..definition.clone() };
        let tenant = request.tenant.parse::<TenantId>().map_err(broken)?;
        let frontend = Guarded::new(&rest, tenant, Answers::new()).map_err(internal)?;
        let epoch = request.epoch;
        let request = BuildRequest {
            frontend: Arc::new(frontend),
            contexts: BTreeMap::new(),
            sink: sink.clone(),
            ..request
        };
        let built = self.engine.build(request, cancel).map_err(|failure| sink.placed(failure))?;
        let mut finished = keep(&self.engine, built, name, epoch, &*sink.sink)?;
        for artifact in &mut finished.artifacts {
            // What the command wrote lies in a layer of its own.
            artifact.bytes = artifact.bytes.zip(below).map(|(own, below)| own + below);
        }
        Ok(finished)
    }
}

/// Returns the bytes of an image's layers as they lie in the blob store: all came from the daemon, and
/// nothing says which of them it had from a registry.
fn archive_bytes(image: &LocalImage) -> Option<u64> {
    image.layers.iter().map(|layer| Some(layer.blob.as_ref()?.size)).sum()
}

fn internal(error: Error) -> Failure {
    Failure::new(FailureKind::Internal, error.internal_text())
}

fn broken(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    internal(Error::internal(source))
}

/// Changes how an image runs.
fn with_runtime(mut image: LocalImage, runtime: &Runtime) -> Result<LocalImage, Failure> {
    if *runtime == Runtime::default() {
        return Ok(image);
    }
    let mut config: ImageConfig = serde_json::from_value(image.config).map_err(broken)?;
    set_runtime(&mut config.config, runtime);
    image.config = serde_json::to_value(config).map_err(broken)?;
    // It is another image now, whose manifest is made when somebody wants it.
    (image.config_digest, image.manifest) = (None, None);
    Ok(image)
}

/// Passes on what a daemon does, and remembers the steps.
struct Told {
    sink: Arc<dyn Sink>,
    steps: Mutex<Vec<String>>,
}

impl Told {
    fn steps(&self) -> Vec<String> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Sink for Told {
    fn event(&self, event: Event) {
        if let Event::Steps { names } = &event {
            self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone_from(names);
        }
        self.sink.event(event);
    }

    fn text(&self, text: LogText) {
        self.sink.text(text);
    }

    fn progress(&self, progress: Progress) {
        self.sink.progress(progress);
    }
}

/// Passes on what the native engine does after a daemon: its steps come after the daemon's.
struct After {
    sink: Arc<dyn Sink>,
    before: Vec<String>,
}

impl After {
    fn moved(&self, step: StepId) -> StepId {
        StepId(step.0.saturating_add(u32::try_from(self.before.len()).unwrap_or(u32::MAX)))
    }

    /// Lets a failure name the step by its number in the whole build.
    fn placed(&self, failure: Failure) -> Failure {
        Failure { step: failure.step.map(|s| self.moved(s)), ..failure }
    }
}

impl Sink for After {
    fn event(&self, event: Event) {
        self.sink.event(match event {
            // The build runs already, and no final artifact is looked for half-way.
            Event::State { .. } => return,
            Event::Cache(entry) if entry.cache == CacheKind::FinalArtifact => return,
            Event::Steps { names } => {
                Event::Steps { names: self.before.iter().cloned().chain(names).collect() }
            }
            Event::StepStarted { step } => Event::StepStarted { step: self.moved(step) },
            Event::StepEnded { step, outcome, peak_memory_bytes, cpu_nanos } => {
                let step = self.moved(step);
                Event::StepEnded { step, outcome, peak_memory_bytes, cpu_nanos }
            }
            Event::EffectBegan { step } => Event::EffectBegan { step: self.moved(step) },
            Event::Cache(mut entry) => {
                entry.step = entry.step.map(|s| self.moved(s));
                Event::Cache(entry)
            }
            Event::Log(mut line) => {
                line.step = line.step.map(|s| self.moved(s));
                Event::Log(line)
            }
            other => other,
        });
    }

    fn text(&self, mut text: LogText) {
        text.step = text.step.map(|s| self.moved(s));
        self.sink.text(text);
    }

    fn progress(&self, progress: Progress) {
        self.sink.progress(progress);
    }
}
