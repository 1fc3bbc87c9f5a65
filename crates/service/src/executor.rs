//! What runs builds.
//!
//! [`Executor::build`] is called on a thread of its own, many times at once. It sends what happens
//! to the request's sink, from [`State::Running`](ashlar_core::state::State) on; the states before
//! and the end are the worker's to write. When `cancel` is called it returns soon, with any
//! failure: the worker knows that it was stopped. It must not keep a build's secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use ashlar_core::Digest;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{ArtifactRecord, Event, Sink};
use ashlar_core::state::State;
use ashlar_native::export::Image;
use ashlar_native::{BuildRequest, Built, Engine};
use ashlar_oci::Reference;
use ashlar_sandbox::Cancel;

use crate::recipe::image_name;
use crate::{Definition, Recipe};

/// The executor that is always there.
const NATIVE: &str = "native";

/// One build, in the two forms that executors take.
pub struct Work<'a> {
    /// What the build is made from: for executors with a frontend of their own.
    pub definition: &'a Definition,
    /// The same for the native engine, with contexts as directories, secrets and limits.
    pub request: BuildRequest,
}

/// Runs builds.
pub trait Executor: Send + Sync {
    /// The word in records, for example `native`.
    fn name(&self) -> &'static str;

    /// Says why it does not run a build, when it does not.
    fn refusal(&self, definition: &Definition) -> Option<String> {
        let _ = definition;
        None
    }

    /// Runs one build to its end.
    ///
    /// # Errors
    /// With the reason, when the build fails or is stopped.
    fn build(&self, work: Work<'_>, cancel: &Cancel) -> Result<Finished, Failure>;
}

/// What a build came to.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// What it made.
    pub artifacts: Vec<ArtifactRecord>,
    /// Files that it handed back as data, by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// The executors of a process.
#[derive(Clone)]
pub(crate) struct Executors {
    native: Arc<dyn Executor>,
    /// Taken before the native one for what they serve, in this order.
    preferred: Vec<Arc<dyn Executor>>,
}

impl Executors {
    pub(crate) fn new(native: Arc<dyn Executor>, preferred: Vec<Arc<dyn Executor>>) -> Self {
        Self { native, preferred }
    }

    /// Returns who runs a build: the one that was asked for when it is there and can, else the
    /// first that can.
    pub(crate) fn choose(
        &self,
        requested: Option<&str>,
        definition: &Definition,
    ) -> &Arc<dyn Executor> {
        let wanted = |e: &&Arc<dyn Executor>| requested.is_none_or(|name| name == e.name());
        let able = || self.preferred.iter().filter(|e| e.refusal(definition).is_none());
        match requested {
            Some(NATIVE) => &self.native,
            _ => able().find(wanted).unwrap_or(&self.native),
        }
    }

    /// Says why a build is not run by the executor that was asked for, or by one that is taken
    /// before the native one.
    pub(crate) fn why_not(
        &self,
        requested: Option<&str>,
        ran: &str,
        definition: &Definition,
    ) -> Option<String> {
        let Some(requested) = requested else {
            // Other kinds are native ones by themselves: there is nothing to tell.
            let told = ran == NATIVE && matches!(definition.recipe, Recipe::Dockerfile(_));
            return self.preferred.iter().filter(|_| told).find_map(|e| e.refusal(definition));
        };
        let asked = self.preferred.iter().find(|e| e.name() == requested);
        let why = || asked.and_then(|e| e.refusal(definition));
        (requested != ran).then(|| why().unwrap_or_else(|| "no other backend is configured".into()))
    }
}

/// The embedded executor.
pub(crate) struct Native(pub(crate) Engine);

impl Executor for Native {
    fn name(&self) -> &'static str {
        NATIVE
    }

    fn build(&self, work: Work<'_>, cancel: &Cancel) -> Result<Finished, Failure> {
        let request = work.request;
        let internal = |e: crate::Error| Failure::new(FailureKind::Internal, e.internal_text());
        let name = image_name(&request.tenant, &request.build).map_err(internal)?;
        let (sink, epoch) = (request.sink.clone(), request.epoch);
        // A collection of garbage by another process must not take what nothing refers to yet.
        let _lease = self.0.work_lease()?;
        let built = self.0.build(request, cancel)?;
        keep(&self.0, built, name, epoch, &*sink)
    }
}

/// Keeps what the native engine made among the local images.
pub(crate) fn keep(
    engine: &Engine,
    built: Built,
    name: Reference,
    epoch: Option<i64>,
    sink: &dyn Sink,
) -> Result<Finished, Failure> {
    sink.event(Event::State { to: State::Exporting });
    let image = Image::of(&built, vec![name], epoch)?;
    let not_stored = |failure| Failure { kind: FailureKind::Export, ..failure };
    let digest = engine.keep_image(&image, None).map_err(not_stored)?;
    let artifact = ArtifactRecord { bytes: own_bytes(engine, &image), ..image_artifact(digest) };
    Ok(Finished { artifacts: vec![artifact], files: built.returned })
}

/// Returns the bytes of the files in an image's layers that no registry gave: its own, and those of
/// a base that was built or imported here. Unknown when a layer is not on the disk.
fn own_bytes(engine: &Engine, image: &Image) -> Option<u64> {
    let own = image.layers.iter().filter(|layer| layer.blob.is_none());
    let bytes = own.map(|layer| Some(engine.snapshots().layer(&layer.tree?).ok()?.content_bytes));
    bytes.sum()
}

/// Returns the record of an image by its id among the local images.
pub(crate) fn image_artifact(digest: Digest) -> ArtifactRecord {
    ArtifactRecord {
        name: "image".into(),
        kind: "image".into(),
        digest,
        bytes: None,
        references: Vec::new(),
    }
}
