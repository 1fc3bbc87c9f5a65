//! Drives one build: history, engine, outputs, end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::graph::Network;
use ashlar_core::journal::{ArtifactRecord, BuildKind, Event, Mode, OnLost, Sink as _, Submission};
use ashlar_core::state::State;
use ashlar_core::{BuildId, Digest};
use ashlar_frontend_dockerfile::DockerfileFrontend;
use ashlar_native::{BuildRequest, Engine};
use ashlar_oci::PullPolicy;
use ashlar_records::blocking::LocalHistory;
use ashlar_sandbox::Cancel;

use super::buildkit::Chosen;
use super::context::Inputs;
use super::recorder::{Hub, Recorder};
use super::report::{self, Subject};
use super::{Definition, outputs};
use crate::commands::{FAILED, needs_root, usage};
use crate::progress::{self, Display, Ended, Made, ProgressKind};
use crate::settings::Settings;
use crate::signals;
use crate::values::SecretSource;

/// The tenant and scope of local builds.
pub(crate) const LOCAL: &str = "local";

/// The longest secret, in bytes, as in BuildKit.
const SECRET_BYTES_MAX: u64 = 500 << 10;

/// One build to be made.
pub(crate) struct Job {
    /// What.
    pub(crate) definition: Definition,
    /// Temporary directories that it reads.
    #[expect(dead_code, reason = "held for their end only")]
    pub(crate) inputs: Inputs,
    /// How it is shown.
    pub(crate) progress: ProgressKind,
    /// Where the image's id is written.
    pub(crate) iidfile: Option<PathBuf>,
    /// Where the metadata are written.
    pub(crate) metadata_file: Option<PathBuf>,
    /// The build that it repeats.
    pub(crate) retry_of: Option<BuildId>,
    /// What runs it.
    pub(crate) executor: Chosen,
}

/// Makes a build and shows it.
///
/// # Errors
/// When it cannot begin; a build that fails has its own exit code.
pub(crate) fn build(settings: &Settings, job: Job) -> Result<ExitCode> {
    if job.executor.is_native() {
        needs_root("building", ", or build at a server with --server URL")?;
    }
    let began = Instant::now();
    let cancel = signals::cancel_on_signals()?;
    let secrets = read_secrets(&job.definition.secrets)?;
    let mut settings = settings.clone();
    settings.plain_http.extend(outputs::insecure_hosts(&job.definition));
    let id = ashlar_records::new_build_id(ashlar_records::now())?;
    let build = id.to_string();
    let display = Display::new(progress::view(job.progress));
    let engine = settings.engine(PullPolicy::Default)?;
    let _lease = engine.work_lease()?;
    let dir = settings.dir()?;
    let _running = super::super::running::Running::register(&dir, &build)?;
    let submission = submission(id, &job)?;
    let recorder = Recorder::begin(
        ashlar_records::records_file(&dir)?,
        submission,
        display.clone(),
        cancel.clone(),
    );
    display.lock().started(&build, &job.definition.name());
    let ticking = display.start_ticking_when(job.progress == ProgressKind::Auto);
    let hub = recorder.sink();
    let work = Work { job: &job, engine: &engine, hub, cancel: &cancel, build: &build };
    let mut made = Made::default();
    let failure = work.run(secrets, &mut made).err();
    let (state, failure) = end_of(failure, &cancel);
    let ended = recorder.finish(state, failure.as_ref());
    let end = Ended {
        build: &build,
        state,
        made: &made,
        failure: failure.as_ref(),
        took: began.elapsed(),
    };
    display.end(&end);
    display.stop(ticking);
    let record = ended.context("the history could not be written")?;
    if state == State::Succeeded {
        let files = (job.iidfile.as_deref(), job.metadata_file.as_deref());
        report::write_files(files, &end, record.steps)?;
    }
    let (definition, progress) = (Some(&job.definition), job.progress);
    report::show(&Subject { definition, progress, server: None, pulls: &[] }, &end);
    Ok(exit_code(state))
}

/// Returns the exit code for how a build ended.
pub(crate) fn exit_code(state: State) -> ExitCode {
    match state {
        State::Succeeded => ExitCode::SUCCESS,
        State::Cancelled => ExitCode::from(signals::INTERRUPTED),
        _ => ExitCode::from(FAILED),
    }
}

fn end_of(failure: Option<Failure>, cancel: &Cancel) -> (State, Option<Failure>) {
    match failure {
        None => (State::Succeeded, None),
        Some(_) if cancel.is_cancelled() => (State::Cancelled, None),
        Some(failure) => (State::Failed, Some(failure)),
    }
}

/// Returns what the history shall hold of a job, but for whose it is.
fn submission(
    build: BuildId,
    job: &Job,
) -> Result<impl FnOnce(&LocalHistory) -> Submission + Send + 'static> {
    let definition = serde_json::to_value(&job.definition)?;
    let (retry_of, name) = (job.retry_of, job.definition.name());
    let backend = Some(job.executor.requested().to_owned());
    let labels = job.definition.request.labels.clone();
    Ok(move |history: &LocalHistory| Submission {
        build,
        tenant: history.tenant(),
        scope: LOCAL.into(),
        principal: history.principal(),
        dialect: LOCAL.into(),
        kind: BuildKind::Build,
        parent: None,
        retry_of,
        name,
        source: "dockerfile".into(),
        definition_digest: Digest::of(definition.to_string()),
        definition,
        backend,
        on_lost: OnLost::Fail,
        mode: Mode::Managed,
        priority: 0,
        labels,
    })
}

/// Reads the values of secrets, which are kept nowhere.
///
/// # Errors
/// When one is not there or too long.
pub(crate) fn read_secrets(
    sources: &BTreeMap<String, SecretSource>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut secrets = Vec::new();
    for (id, source) in sources {
        let value = match source {
            SecretSource::Env(name) => match std::env::var_os(name) {
                Some(value) => std::os::unix::ffi::OsStringExt::into_vec(value),
                None => return usage(format!("--secret id={id}: ${name} is not set")),
            },
            SecretSource::File(path) => match std::fs::metadata(path) {
                Ok(about) if about.len() > SECRET_BYTES_MAX => {
                    return usage(format!(
                        "--secret id={id}: {} is longer than 500 KiB",
                        path.display()
                    ));
                }
                _ => match std::fs::read(path) {
                    Ok(value) => value,
                    Err(e) => return usage(format!("--secret id={id}: {}: {e}", path.display())),
                },
            },
        };
        secrets.push((id.clone(), value));
    }
    Ok(secrets)
}

struct Work<'a> {
    job: &'a Job,
    engine: &'a Engine,
    hub: Arc<Hub>,
    cancel: &'a Cancel,
    build: &'a str,
}

impl Work<'_> {
    /// Builds and writes all outputs.
    fn run(&self, secrets: Vec<(String, Vec<u8>)>, made: &mut Made) -> Result<(), Failure> {
        let definition = &self.job.definition;
        self.job.executor.announce(&*self.hub);
        let mut contexts = definition.contexts.clone();
        let checkout = match &definition.git {
            Some(git) => {
                Some(self.engine.checkout(&git.remote, &git.reference, &git.subdir, self.cancel)?)
            }
            None => None,
        };
        if let Some(checkout) = &checkout {
            contexts.insert(definition.request.context.clone(), checkout.path().to_owned());
        }
        let request = BuildRequest {
            frontend: Arc::new(DockerfileFrontend::new(definition.request.clone())),
            tenant: LOCAL.into(),
            scope: LOCAL.into(),
            name: definition.identity(),
            build: self.build.to_owned(),
            contexts,
            secrets: secrets.into_iter().collect(),
            hidden: BTreeMap::new(),
            credentials: BTreeMap::new(),
            pull: definition.pull,
            ssh: definition.ssh.clone(),
            limits: definition.limits.engine(),
            network: match definition.request.network {
                Network::Default => Network::Isolated,
                said => said,
            },
            entitlements: definition.allow.iter().map(|e| e.name().to_owned()).collect(),
            asked: std::time::Instant::now(),
            identity: None,
            epoch: definition.request.source_date_epoch,
            sink: self.hub.clone(),
        };
        let executor = &self.job.executor;
        let built = executor.build(self.engine, definition, request, self.cancel)?;
        made.from_cache = built.from_cache;
        self.hub.event(Event::State { to: State::Exporting });
        let sink = &*self.hub;
        outputs::write(self.engine, definition, &built, sink, self.cancel, made)?;
        self.record_artifact(made)
    }

    fn record_artifact(&self, made: &Made) -> Result<(), Failure> {
        let named = made.manifest.as_ref().or(made.image.as_ref());
        if let Some(digest) = named {
            let digest = digest.parse().map_err(|_| {
                Failure::new(FailureKind::Internal, "the image's digest cannot be read")
            })?;
            self.hub.event(Event::Artifact(ArtifactRecord {
                name: "image".into(),
                kind: "image".into(),
                digest,
                bytes: None,
                references: made.names.clone(),
            }));
        }
        Ok(())
    }
}
