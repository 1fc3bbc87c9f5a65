//! From a [`Definition`] to what the API takes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use ashlar_client::{NamedContext, RegistryAccess, RegistryOutput, SecretValue, Submission};
use ashlar_core::graph::Network;
use ashlar_frontend_dockerfile as dockerfile;
use ashlar_frontend_dockerfile::{NoCache, Source};
use ashlar_oci::{Reference, RegistrySettings};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::bases;
use super::context::{self, IGNORE_FILE, Local};
use crate::cli::build::BuildArgs;
use crate::commands::build::Definition;
use crate::commands::usage;
use crate::output::note;
use crate::settings::Settings;
use crate::values::{CompressionKind, OutputSpec, OutputType};

/// What shares a queue and a history when nobody says.
const SCOPE: &str = "default";
/// The longest name of a build, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Refuses what a server cannot do.
///
/// # Errors
/// Names the flag.
pub(super) fn check(args: &BuildArgs) -> Result<()> {
    let allow = args.steps.allow.first();
    let refused = match () {
        () if !args.ssh.is_empty() => {
            "--ssh: an agent of this machine cannot be used by a server; use --secret"
        }
        () if allow.is_some() => "--allow: a server grants no privileges",
        () if args.steps.network == Some(Network::Host) => {
            "--network host: a server's steps do not see its own network; use isolated or none"
        }
        () if args.result.load => {
            "--load: the image stays at the server; take it home with -o type=oci,dest=FILE and \
             `ashlar images import`"
        }
        () if args.result.outputs.iter().any(keeps_for_docker) => {
            "--output type=docker: without dest the image would stay at the server; add dest=FILE, or \
             push with type=registry,name=REF"
        }
        () if args.result.outputs.iter().any(|o| o.insecure) => {
            "--output: insecure=true is the server's to say (its --plain-http)"
        }
        () => return Ok(()),
    };
    usage(format!("{refused}, or build here without --server"))
}

/// Says what was set for builds on this machine and has no meaning for a server's.
pub(super) fn tell_what_stays_here(settings: &Settings, args: &BuildArgs) {
    if !args.show.buildkit.buildkit.is_empty() {
        note("note: --buildkit names daemons for builds on this machine; the server has its own");
    }
    if !settings.mirrors.is_empty() {
        note("note: --registry-mirror holds for pulls of this machine; the server has its own");
    }
}

/// Says whether an output is an image that is kept on this machine, and nothing else.
fn keeps_for_docker(output: &OutputSpec) -> bool {
    output.kind == OutputType::Docker && output.dest.is_none()
}

/// Returns the contexts of a definition that lie on disk, by the names that the server gets.
///
/// # Errors
/// When an ignore file cannot be read.
pub(super) fn contexts(definition: &Definition) -> Result<BTreeMap<String, Local>> {
    let main = &definition.request.context;
    let mut all = BTreeMap::new();
    for (name, dir) in &definition.contexts {
        let dir = dir.clone();
        let local = match &definition.request.source {
            Source::Context { context, path } if context == name && name != main => Local {
                dir,
                exclude: Vec::new(),
                keep: vec![path.clone(), own_ignore(path)],
                only_kept: true,
            },
            source if name == main => main_context(definition, source, dir)?,
            _ => Local {
                exclude: context::ignored(&[dir.join(IGNORE_FILE)])?,
                dir,
                keep: vec![IGNORE_FILE.into()],
                only_kept: false,
            },
        };
        all.insert(name.clone(), local);
    }
    Ok(all)
}

/// The ignore file that belongs to one Dockerfile.
fn own_ignore(path: &str) -> String {
    format!("{path}{IGNORE_FILE}")
}

fn main_context(definition: &Definition, source: &Source, dir: PathBuf) -> Result<Local> {
    let mut keep = vec![IGNORE_FILE.to_owned()];
    let own = match source {
        Source::Context { context, path } if *context == definition.request.context => {
            keep.extend([path.clone(), own_ignore(path)]);
            Some(dir.join(own_ignore(path)))
        }
        Source::Context { context, path } => {
            definition.contexts.get(context).map(|d| d.join(own_ignore(path)))
        }
        Source::Text(_) => {
            let own = own_ignore(&definition.request.file_name);
            keep.push(own.clone());
            Some(dir.join(own))
        }
    };
    let places: Vec<PathBuf> = own.into_iter().chain([dir.join(IGNORE_FILE)]).collect();
    Ok(Local { exclude: context::ignored(&places)?, dir, keep, only_kept: false })
}

/// Returns what the server is asked for, but for the contexts' digests.
///
/// # Errors
/// When the name of an output is none.
pub(super) fn submission(definition: &Definition, args: &BuildArgs) -> Result<Submission> {
    let request = &definition.request;
    let (dockerfile, path, place) = match &request.source {
        Source::Text(text) => (Some(text.clone()), request.file_name.clone(), None),
        Source::Context { context, path } => {
            let other = (*context != request.context).then(|| context.clone());
            (None, path.clone(), other)
        }
    };
    let stages = match &request.no_cache {
        NoCache::Stages(stages) => stages.iter().cloned().collect(),
        NoCache::All | NoCache::None => Vec::new(),
    };
    let outputs = definition.outputs.iter().filter(|o| pushes(o));
    Ok(Submission {
        name: cut(&definition.name()),
        scope: SCOPE.into(),
        dockerfile,
        dockerfile_path: Some(path),
        dockerfile_context: place,
        named_contexts: named(&request.named_contexts),
        target: request.target.clone(),
        build_args: request.build_args.clone(),
        image_labels: request.labels.clone(),
        platform: request.platform.clone(),
        no_cache: request.no_cache == NoCache::All,
        no_cache_stages: stages,
        pull: definition.pull,
        network: request.network,
        extra_hosts: request.extra_hosts.clone(),
        shm_bytes: request.shm_bytes,
        ulimits: request.ulimits.clone(),
        limits: definition.limits.for_api(),
        source_date_epoch: request.source_date_epoch,
        tags: tags(definition)?,
        labels: request.labels.clone(),
        outputs: outputs.map(|o| push(o, definition)).collect(),
        backend: args.show.backend.map(|b| b.word().to_owned()),
        ..Submission::default()
    })
}

/// Returns the names that lead to the build at the server: the image's own, and those of outputs
/// that keep it there.
pub(super) fn tags(definition: &Definition) -> Result<Vec<String>> {
    let mut tags: Vec<String> = definition.names.iter().map(tag).collect();
    for output in definition.outputs.iter().filter(|o| o.kind == OutputType::Image) {
        for name in &output.names {
            tags.push(tag(&parsed(name)?));
        }
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags)
}

fn parsed(name: &str) -> Result<Reference> {
    name.parse().or_else(|e| usage(format!("--output: name={name}: {e}")))
}

/// Cuts a name where the server would refuse it.
fn cut(name: &str) -> String {
    let clean: String = name.chars().filter(|c| !c.is_control()).collect();
    let mut end = clean.len().min(NAME_BYTES_MAX);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    clean[..end].to_owned()
}

fn named(contexts: &BTreeMap<String, dockerfile::NamedContext>) -> BTreeMap<String, NamedContext> {
    let of = |context: &dockerfile::NamedContext| match context {
        dockerfile::NamedContext::Image(reference) => NamedContext::Image(reference.clone()),
        dockerfile::NamedContext::Git(address) => NamedContext::Git(address.clone()),
        dockerfile::NamedContext::Directory(name) => NamedContext::Directory(name.clone()),
    };
    contexts.iter().map(|(name, context)| (name.clone(), of(context))).collect()
}

/// Returns the name of an image at the server: the registry is the server itself.
pub(super) fn tag(name: &Reference) -> String {
    let path = name.repository().path();
    let path = path.strip_prefix("library/").unwrap_or(path);
    format!("{path}:{}", name.tag().unwrap_or("latest"))
}

/// Says whether an output is a push, which the server does.
pub(super) fn pushes(output: &OutputSpec) -> bool {
    output.kind == OutputType::Registry || output.push
}

fn push(output: &OutputSpec, definition: &Definition) -> RegistryOutput {
    let mut annotations = definition.annotations.clone();
    annotations.extend(output.annotations.iter().cloned());
    RegistryOutput {
        kind: "registry",
        names: push_names(output, definition),
        compression: compression(output),
        level: output.level,
        annotations,
    }
}

fn push_names(output: &OutputSpec, definition: &Definition) -> Vec<String> {
    match output.names.as_slice() {
        [] => definition.names.iter().map(Reference::to_string).collect(),
        names => names.to_vec(),
    }
}

/// Returns the API's word for how an output's layers are compressed.
pub(super) fn compression(output: &OutputSpec) -> &'static str {
    match output.compression {
        // What Docker loads it unpacks at once.
        None if output.kind == OutputType::Docker && output.dest.is_some() => "uncompressed",
        None | Some(CompressionKind::Gzip) => "gzip",
        Some(CompressionKind::Zstd) => "zstd",
        Some(CompressionKind::Uncompressed) => "uncompressed",
    }
}

/// Returns the values of secrets as the API takes them.
pub(in crate::commands) fn secrets(
    values: Vec<(String, Vec<u8>)>,
) -> BTreeMap<String, SecretValue> {
    let value = |bytes: Vec<u8>| match String::from_utf8(bytes) {
        Ok(text) => SecretValue::Text(text),
        Err(e) => SecretValue::Bytes { base64: STANDARD.encode(e.as_bytes()) },
    };
    values.into_iter().map(|(id, bytes)| (id, value(bytes))).collect()
}

/// Returns this user's logins for the registries that a build pulls from and pushes to.
///
/// # Errors
/// When a name to push to is none.
pub(super) fn logins(definition: &Definition) -> Result<BTreeMap<String, RegistryAccess>> {
    let bases = bases::of(definition).into_iter();
    let mut hosts: Vec<String> = bases.map(|b| b.repository().host().to_owned()).collect();
    for output in definition.outputs.iter().filter(|o| pushes(o)) {
        for name in push_names(output, definition) {
            hosts.push(parsed(&name)?.repository().host().to_owned());
        }
    }
    hosts.sort_unstable();
    hosts.dedup();
    Ok(logins_of(hosts.iter().map(String::as_str)))
}

/// Returns this user's logins, out of Docker's config, for those of some hosts that have one.
pub(super) fn logins_of<'a>(
    hosts: impl Iterator<Item = &'a str>,
) -> BTreeMap<String, RegistryAccess> {
    let settings = RegistrySettings::of_user();
    let login = |host: &str| {
        // A token that goes to its registry as it is lasts for minutes: no server can use it later.
        let (username, password) = settings.credential(host)?.into_login()?;
        Some((host.to_owned(), RegistryAccess::Basic { username, password }))
    };
    hosts.filter_map(login).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_without_their_registry() {
        let tag = |text: &str| tag(&text.parse().unwrap());
        assert_eq!(tag("app"), "app:latest");
        assert_eq!(tag("team/app:1.0"), "team/app:1.0");
        assert_eq!(tag("127.0.0.1:5000/team/app:1"), "team/app:1");
        assert_eq!(cut(&"ü".repeat(200)).len(), 254);
    }

    #[test]
    fn secrets_that_are_no_text_are_encoded() {
        let made = secrets(vec![("t".into(), b"x".to_vec()), ("b".into(), vec![0xff])]);
        let json = serde_json::to_value(&made).unwrap();
        assert_eq!(json, serde_json::json!({ "b": { "base64": "/w==" }, "t": "x" }));
    }
}
