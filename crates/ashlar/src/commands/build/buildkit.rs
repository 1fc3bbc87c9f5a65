//! Which executor runs a local build, and the way to a BuildKit daemon.

use anyhow::Result;
use ashlar_buildkit::{Address, BUILDKIT_KEY, Buildkit, unfit, unfit_base};
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{Event, Level, LogLine, Sink};
use ashlar_native::{BuildRequest, Built, Engine};
use ashlar_oci::ImageStore;
use ashlar_sandbox::Cancel;

use super::Definition;
use crate::cli::build::Backend;
use crate::cli::buildkit::BuildkitArgs;
use crate::commands::usage;
use crate::settings::Settings;

/// The registry host that stands for what servers built: no daemon knows it.
const INTERNAL_HOST: &str = "build.ashlar.internal";

/// What runs a build.
pub(crate) struct Chosen {
    /// Daemons; the native engine runs the build when there are none.
    daemons: Vec<Address>,
    requested: Backend,
    /// Why another one runs it than was asked for.
    reason: Option<String>,
}

/// What somebody wants to run a build.
pub(crate) struct Wish<'a> {
    /// What `--backend` says.
    pub(crate) asked: Option<Backend>,
    /// What ran, or was to run, the build that is repeated.
    pub(crate) before: Option<Backend>,
    /// The daemons that are named.
    pub(crate) daemons: &'a BuildkitArgs,
}

/// Picks what runs a build: what was asked for, now or when it was first built, else BuildKit where
/// daemons are named.
///
/// # Errors
/// When BuildKit was asked for and there is no daemon, or it cannot run the build.
pub(crate) fn choose(
    settings: &Settings,
    wish: &Wish<'_>,
    definition: &Definition,
) -> Result<Chosen> {
    let daemons = wish.daemons.addresses();
    let buildkit = match wish.asked.or(wish.before) {
        Some(backend) => backend == Backend::Buildkit,
        None => !daemons.is_empty(),
    };
    if !buildkit {
        return Ok(Chosen::native());
    }
    let refused = refusal(settings, definition)?;
    match (refused, wish.asked) {
        (Some(why), Some(_)) => {
            usage(format!("--backend buildkit: {why}; say --backend native to build natively"))
        }
        (Some(why), None) => {
            let reason = Some(format!("{why}; native runs the build"));
            Ok(Chosen { daemons: Vec::new(), requested: Backend::Buildkit, reason })
        }
        (None, _) if daemons.is_empty() => {
            let who = match wish.asked {
                Some(_) => "--backend buildkit",
                None => "the build was BuildKit's",
            };
            usage(format!(
                "{who}: no daemon is named; add --buildkit unix:///var/run/docker.sock (or another \
                 address, or ASHLAR_BUILDKIT), or say --backend native to build natively"
            ))
        }
        (None, _) => Ok(Chosen { daemons, requested: Backend::Buildkit, reason: None }),
    }
}

/// Says why no daemon can run a build, if so.
fn refusal(settings: &Settings, definition: &Definition) -> Result<Option<String>> {
    let unfit = unfit(&definition.request, &definition.limits.engine(), INTERNAL_HOST);
    if unfit.is_some() {
        return Ok(unfit);
    }
    let store = ImageStore::open(settings.dir()?)?;
    Ok(unfit_base(&definition.request, &definition.contexts, &store))
}

impl Chosen {
    /// The executor of this program.
    const fn native() -> Self {
        Self { daemons: Vec::new(), requested: Backend::Native, reason: None }
    }

    /// Says whether the executor of this program runs the build.
    pub(super) const fn is_native(&self) -> bool {
        self.daemons.is_empty()
    }

    /// Returns the word for what was asked for.
    pub(super) const fn requested(&self) -> &'static str {
        self.requested.word()
    }

    /// Tells the history and whoever looks on what runs the build.
    pub(super) fn announce(&self, sink: &dyn Sink) {
        let ran = if self.daemons.is_empty() { Backend::Native } else { Backend::Buildkit };
        if let Some(reason) = &self.reason {
            sink.event(Event::Log(LogLine::service(Level::Info, reason.clone())));
        }
        sink.event(Event::Executor {
            requested: Some(self.requested().to_owned()),
            ran: ran.word().to_owned(),
            reason: self.reason.clone(),
        });
    }

    /// Runs a build. What a daemon made is as if it had been built here.
    pub(super) fn build(
        &self,
        engine: &Engine,
        definition: &Definition,
        request: BuildRequest,
        cancel: &Cancel,
    ) -> Result<Built, Failure> {
        if self.is_native() {
            return engine.build(request, cancel);
        }
        let daemons = Buildkit::new(self.daemons.clone()).map_err(|e| {
            let text = format!("cannot start threads for BuildKit: {e}");
            Failure::new(FailureKind::Internal, text)
        })?;
        let daemons = daemons.naming_files().with_key(engine.key_for(BUILDKIT_KEY));
        let job = ashlar_buildkit::Job {
            dockerfile: &definition.request,
            build: &request,
            images: engine.images(),
            pull: definition.pull,
        };
        let made = daemons.build(&job, cancel)?;
        engine.built_elsewhere(&made.image)
    }
}
