//! What runs builds.
//!
//! [`Executor::build`] is called on a thread of its own, many times at once. It sends what happens
//! to the request's sink, from [`State::Running`](ashlar_core::state::State) on; the states before
//! and the end are the worker's to write. When `cancel` is called it returns soon, with any
//! failure: the worker knows that it was stopped. It must not keep a build's secrets.

use std::collections::BTreeMap;

use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{ArtifactRecord, Event};
use ashlar_core::state::State;
use ashlar_native::export::Image;
use ashlar_native::{BuildRequest, Engine};
use ashlar_sandbox::Cancel;

use crate::recipe::image_name;

/// Runs builds.
pub trait Executor: Send + Sync {
    /// The word in records, for example `native`.
    fn name(&self) -> &'static str;

    /// Runs one build to its end.
    ///
    /// # Errors
    /// With the reason, when the build fails or is stopped.
    fn build(&self, request: BuildRequest, cancel: &Cancel) -> Result<Finished, Failure>;
}

/// What a build came to.
#[derive(Debug, Clone, Default)]
pub struct Finished {
    /// What it made.
    pub artifacts: Vec<ArtifactRecord>,
    /// Files that it handed back as data, by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// The embedded executor.
pub(crate) struct Native(pub(crate) Engine);

impl Executor for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn build(&self, request: BuildRequest, cancel: &Cancel) -> Result<Finished, Failure> {
        let internal = |e: crate::Error| Failure::new(FailureKind::Internal, e.internal_text());
        let name = image_name(&request.tenant, &request.build).map_err(internal)?;
        let (sink, epoch) = (request.sink.clone(), request.epoch);
        // A collection of garbage by another process must not take what nothing refers to yet.
        let _lease = self.0.work_lease()?;
        let built = self.0.build(request, cancel)?;
        sink.event(Event::State { to: State::Exporting });
        let image = Image::of(&built, vec![name], epoch)?;
        let digest = self.0.keep_image(&image, None)?;
        let artifact = ArtifactRecord {
            name: "image".into(),
            kind: "image".into(),
            digest,
            bytes: None,
            references: Vec::new(),
        };
        Ok(Finished { artifacts: vec![artifact], files: built.returned })
    }
}
