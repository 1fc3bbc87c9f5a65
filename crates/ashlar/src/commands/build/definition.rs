//! A build as the history keeps it: all that is needed to do it again, and no secret's value.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ashlar_core::graph::Network;
use ashlar_frontend_dockerfile::{Entitlement, NamedContext, NoCache, Request};
use ashlar_native::BuildLimits;
use ashlar_oci::Reference;
use serde::{Deserialize, Serialize};

use super::context::{self, Inputs};
use crate::cli::build::{BuildArgs, StepArgs};
use crate::commands::usage;
use crate::settings::Settings;
use crate::values::{ContextSpec, GitAddress, OutputSpec, OutputType, SecretSource};

/// Version of the form in which definitions are kept.
const VERSION: u32 = 1;

/// A local build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// Version of this form.
    pub(crate) version: u32,
    /// What is asked of the Dockerfile frontend.
    pub(crate) request: Request,
    /// Directories by context name.
    pub(crate) contexts: BTreeMap<String, PathBuf>,
    /// The repository that the main context is a checkout of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) git: Option<GitAddress>,
    /// Whether a context came from standard input, so that it cannot be read again.
    #[serde(default)]
    pub(crate) once: bool,
    /// Where the values of secrets are.
    pub(crate) secrets: BTreeMap<String, SecretSource>,
    /// Sockets of ssh agents.
    pub(crate) ssh: BTreeMap<String, PathBuf>,
    /// Limits of each step.
    pub(crate) limits: Limits,
    /// Privileges.
    pub(crate) allow: BTreeSet<Entitlement>,
    /// Names of the image.
    pub(crate) names: Vec<Reference>,
    /// Where the result goes besides the local images.
    pub(crate) outputs: Vec<OutputSpec>,
    /// Whether the image is kept among the local ones.
    pub(crate) keep: bool,
    /// Annotations of manifests.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Whether registries are asked for newer base images.
    pub(crate) pull: bool,
}

/// Limits of each step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Limits {
    memory_bytes: Option<u64>,
    cpus: Option<f64>,
    pids: Option<u64>,
    disk_bytes: Option<u64>,
    timeout: Option<Duration>,
}

impl Limits {
    fn of(args: &StepArgs) -> Self {
        Self {
            memory_bytes: args.memory,
            cpus: args.cpus,
            pids: args.pids,
            disk_bytes: args.disk,
            timeout: args.timeout,
        }
    }

    /// Returns them by the names that a server's API has for them.
    pub(crate) fn for_api(&self) -> BTreeMap<&'static str, serde_json::Value> {
        // The API counts whole seconds, and no time at all is no limit.
        let seconds = |t: Duration| t.as_secs() + u64::from(t.subsec_nanos() > 0);
        [
            ("memory_bytes", self.memory_bytes.map(Into::into)),
            ("cpus", self.cpus.map(Into::into)),
            ("pids", self.pids.map(Into::into)),
            ("disk_bytes", self.disk_bytes.map(Into::into)),
            ("step_seconds", self.timeout.map(seconds).map(Into::into)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    /// Returns them as the engine's.
    pub(crate) fn engine(&self) -> BuildLimits {
        BuildLimits {
            memory_bytes: self.memory_bytes,
            cpus: self.cpus,
            pids: self.pids,
            disk_bytes: self.disk_bytes,
            timeout: self.timeout,
            output_bytes: None,
        }
    }
}

impl Definition {
    /// Returns a name for people: the image's, else the context's.
    pub(crate) fn name(&self) -> String {
        if let Some(name) = self.names.first() {
            return name.familiar();
        }
        if let Some(git) = &self.git {
            return git.remote.clone();
        }
        let main = self.contexts.get(&self.request.context);
        let dir = main.and_then(|d| d.file_name()).filter(|_| !self.once);
        dir.map_or_else(|| "stdin".to_owned(), |n| n.to_string_lossy().into_owned())
    }

    /// Returns what the definition is known by to the cache: its steps are compared with those of
    /// the last build of the same file.
    pub(crate) fn identity(&self) -> String {
        let place = match (&self.git, self.contexts.get(&self.request.context)) {
            (Some(git), _) => git.remote.clone(),
            (None, Some(dir)) if !self.once => dir.to_string_lossy().into_owned(),
            _ => "-".to_owned(),
        };
        format!("{place}\n{}", self.request.file_name)
    }
}

/// Reads the arguments of `ashlar build`.
///
/// # Errors
/// When a flag does not fit; when the context cannot be found.
pub(crate) fn read(settings: &Settings, args: &BuildArgs) -> Result<(Definition, Inputs)> {
    check_network(&args.steps)?;
    let names = names(&args.tags)?;
    let found = context::find(settings, args)?;
    let mut request = Request::new(found.source);
    if let Some(name) = found.file_name {
        request.file_name = name;
    }
    let mut contexts = found.contexts;
    add_named(&mut request, &mut contexts, &args.steps.build_contexts)?;
    fill(&mut request, args)?;
    let outputs = outputs(args, &names)?;
    let image = |o: &OutputSpec| o.kind == OutputType::Image;
    let docker_store = |o: &OutputSpec| o.kind == OutputType::Docker && o.dest.is_none();
    let elsewhere = !args.result.outputs.is_empty() || args.result.push;
    let keep = !elsewhere
        || args.result.load
        || !names.is_empty()
        || outputs.iter().any(|o| image(o) || docker_store(o));
    let definition = Definition {
        version: VERSION,
        request,
        contexts,
        git: found.git,
        once: found.once,
        secrets: args.secrets.iter().cloned().collect(),
        ssh: args.ssh.iter().cloned().collect(),
        limits: Limits::of(&args.steps),
        allow: args.steps.allow.iter().copied().collect(),
        names,
        outputs,
        keep,
        annotations: args.result.annotations.iter().cloned().collect(),
        pull: args.pull,
    };
    Ok((definition, found.inputs))
}

fn check_network(steps: &StepArgs) -> Result<()> {
    let host = steps.network == Some(Network::Host);
    if host && !steps.allow.contains(&Entitlement::NetworkHost) {
        return usage("--network host lets steps reach this machine; add --allow network.host");
    }
    Ok(())
}

fn names(tags: &[String]) -> Result<Vec<Reference>> {
    let mut names = Vec::new();
    for tag in tags {
        match tag.parse::<Reference>() {
            Ok(name) if name.digest().is_none() => names.push(name),
            Ok(_) => return usage(format!("--tag {tag}: a name for an image has no digest")),
            Err(e) => return usage(format!("--tag {tag}: {e}")),
        }
    }
    Ok(names)
}

fn add_named(
    request: &mut Request,
    contexts: &mut BTreeMap<String, PathBuf>,
    named: &[(String, ContextSpec)],
) -> Result<()> {
    for (name, spec) in named {
        let context = match spec {
            ContextSpec::Image(reference) => NamedContext::Image(reference.clone()),
            ContextSpec::Git(address) => NamedContext::Git(address.clone()),
            ContextSpec::Directory(dir) => {
                let Ok(path) = dir.canonicalize() else {
                    return usage(format!(
                        "--build-context {name}: no directory {}",
                        dir.display()
                    ));
                };
                // A name of its own, so that it cannot be taken for the main context.
                let key = format!("named:{name}");
                contexts.insert(key.clone(), path);
                NamedContext::Directory(key)
            }
        };
        request.named_contexts.insert(name.clone(), context);
    }
    Ok(())
}

fn fill(request: &mut Request, args: &BuildArgs) -> Result<()> {
    request.target.clone_from(&args.target);
    for (name, value) in &args.build_args {
        let value = value.clone().or_else(|| std::env::var(name).ok());
        request.build_args.extend(value.map(|v| (name.clone(), v)));
    }
    request.platform.clone_from(&args.result.platform);
    request.labels = args.result.labels.iter().cloned().collect();
    request.no_cache = match (args.no_cache, args.no_cache_filter.as_slice()) {
        (true, _) => NoCache::All,
        (false, []) => NoCache::None,
        (false, stages) => NoCache::Stages(stages.iter().cloned().collect()),
    };
    request.network = args.steps.network.unwrap_or_default();
    request.extra_hosts.clone_from(&args.steps.add_hosts);
    request.shm_bytes = args.steps.shm_size;
    request.ulimits.clone_from(&args.steps.ulimits);
    request.allow = args.steps.allow.iter().copied().collect();
    request.source_date_epoch = epoch(request, args.result.reproducible)?;
    Ok(())
}

/// Returns the time that later times become: the build argument, the variable, or 0.
fn epoch(request: &Request, reproducible: bool) -> Result<Option<i64>> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let said = request.build_args.get(NAME).cloned();
    let said = said.or_else(|| std::env::var(NAME).ok()).filter(|v| !v.is_empty());
    match said {
        Some(text) => match text.parse::<i64>() {
            Ok(seconds) if seconds >= 0 => Ok(Some(seconds)),
            _ => usage(format!("{NAME}={text}: give seconds since 1970, e.g. {NAME}=0")),
        },
        None => Ok(reproducible.then_some(0)),
    }
}

fn outputs(args: &BuildArgs, names: &[Reference]) -> Result<Vec<OutputSpec>> {
    let mut outputs = args.result.outputs.clone();
    if args.result.push {
        outputs.push(OutputSpec::new(OutputType::Registry));
    }
    for output in &mut outputs {
        let pushes = output.kind == OutputType::Registry || output.push;
        if pushes && output.names.is_empty() && names.is_empty() {
            return usage("nothing to push: name the image with --tag NAME, or name=REF");
        }
        let archive = matches!(output.kind, OutputType::Oci) && output.tar;
        if archive && output.dest.is_none() {
            output.dest = Some("-".into());
        }
        let shown = output.is_stdout() && std::io::stdout().is_terminal();
        if shown {
            return usage("--output: an archive would fill the terminal; add dest=FILE");
        }
        if let Some(dest) = output.dest.clone().filter(|_| !output.is_stdout()) {
            output.dest = Some(std::path::absolute(dest).context("--output: bad dest")?);
        }
    }
    if outputs.iter().filter(|o| o.is_stdout()).count() > 1 {
        return usage("--output: only one output can go to standard output");
    }
    Ok(outputs)
}
