//! From a create body to an accepted build.

use ashlar_core::Digest;
use ashlar_service::frontends::dockerfile::{NoCache, Request, Source};
use ashlar_service::{
    ContextManifest, Definition, Limits, Mode, NewAlias, NewDocument, Recipe, SubmitRequest,
};
use axum::http::StatusCode;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::body::{Fields, NAME_MAX};
use crate::dispatch::Context;
use crate::dockerfile::{self, Code};
use crate::error::{Answer, Refusal, reply};
use crate::model::{
    BUILD_NUMBERS, Build, Commit, Details, FoundProject, LISTED, NUMBERS, Shown, StatusNumbers,
    build_names, listed_in,
};
use crate::path::slug;
use crate::spec::{Base, Specification, read_text};
use crate::{DIALECT, builds};

/// The largest list of files of one commit, in bytes.
pub(crate) const TREE_BYTES_MAX: u64 = 128 << 20;
/// The largest Dockerfile, in bytes.
const DOCKERFILE_BYTES_MAX: u64 = 1 << 20;
/// The name of the build context in the definition.
const CONTEXT: &str = "context";
/// The branch that uploads go to.
pub(crate) const BRANCH: &str = "master";

/// What somebody sent, read.
struct Sent {
    content: Option<String>,
    config: Option<Value>,
    spec: Option<Specification>,
    is_managed: bool,
}

/// What is built, and from what.
struct Made {
    definition: Definition,
    details: Details,
    commit: Option<String>,
}

pub(crate) async fn create(context: &Context, project: &FoundProject, fields: &Fields) -> Answer {
    context.may_change()?;
    let sent = sent(fields)?;
    let name = name(fields, sent.spec.as_ref())?;
    let (description, tags) = (fields.text("description")?, fields.tags()?);
    check_ttl(fields)?;
    let spec = sent.spec.as_ref();
    let backend = backend(fields, spec)?;
    let made = made(context, project, &sent).await?;
    // What retention and people take for the same thing built again: builds that were meant to
    // have one name, or the project's unnamed ones.
    let series = match &name {
        Some(name) => name.clone(),
        None => format!("{}.{}", project.owner, project.project.name),
    };
    let name = match name {
        Some(name) => Some(free_name(context, project, &name).await?),
        None => None,
    };
    let build = Build {
        number: context.store.next_number(None, NUMBERS).await?,
        project: project.id,
        user: context.actor.principal.name.clone(),
        name,
        description: description.or_else(|| spec.and_then(|s| s.description.clone())),
        tags: tags.or_else(|| spec.and_then(|s| s.tags.clone())),
        is_managed: sent.is_managed,
        backend,
        commit: made.commit.clone(),
        shown: Shown::Yes,
        valid: true,
        patched_at: None,
        outside: None,
    };
    let request = request(context, project, (&build, &series), made)?;
    let accepted = context.service.submit(&context.actor, request).await?;
    let found = builds::by_id(context, accepted.record.submission.build).await?;
    let body = builds::page(context, project, &found).await?;
    Ok(reply(StatusCode::CREATED, &body))
}

/// Reads the specification, whichever generation's key it came in.
fn sent(fields: &Fields) -> Result<Sent, Refusal> {
    let is_managed = fields.flag("is_managed")?.unwrap_or(true);
    let none = Sent { content: None, config: None, spec: None, is_managed };
    if let Some(content) = fields.get("content") {
        let Value::String(content) = content else {
            return Err(Refusal::Field("content", "Not a valid string.".into()));
        };
        let refuse = |e: crate::spec::SpecError| Refusal::Text(e.to_string());
        let config = read_text(content).map_err(refuse)?;
        let spec = Specification::parse(&config).map_err(refuse)?;
        let (content, config) = (Some(content.clone()), Some(Value::Object(config)));
        return Ok(Sent { content, config, spec: Some(spec), ..none });
    }
    if let Some(config) = fields.get("config") {
        let refuse = |e: crate::spec::SpecError| Refusal::Field("config", e.to_string());
        let map: Map<String, Value> = match config {
            Value::Object(map) => map.clone(),
            Value::String(text) => read_text(text).map_err(refuse)?,
            _ => read_text("").map_err(refuse)?,
        };
        let spec = Specification::parse(&map).map_err(refuse)?;
        let config = Value::Object(map);
        return Ok(Sent {
            content: Some(config.to_string()),
            config: Some(config),
            spec: Some(spec),
            ..none
        });
    }
    match is_managed {
        false => Ok(none),
        true if fields.has("config") && !fields.has("content") => Err(Refusal::required("config")),
        true => Err(Refusal::general("Build expects a `content`.")),
    }
}

fn name(fields: &Fields, spec: Option<&Specification>) -> Result<Option<String>, Refusal> {
    if let Some(name) = fields.slug("name")? {
        return Ok(Some(name));
    }
    let of_spec = spec.and_then(|s| s.name.clone());
    Ok(of_spec.filter(|name| slug(name, NAME_MAX)))
}

fn check_ttl(fields: &Fields) -> Result<(), Refusal> {
    // It bounds how long the original kept a pod; there is none here.
    match fields.get("ttl") {
        None => Ok(()),
        Some(ttl) if ttl.as_i64().is_some() => Ok(()),
        Some(Value::String(text)) if text.parse::<i64>().is_ok() => Ok(()),
        Some(_) => Err(Refusal::Text("ttl must be an integer.".into())),
    }
}

fn backend(fields: &Fields, spec: Option<&Specification>) -> Result<Option<String>, Refusal> {
    if let Some(backend) = spec.and_then(|s| s.backend.clone()) {
        return Ok(Some(backend));
    }
    let backend = fields.text("backend")?;
    match backend.as_deref() {
        None | Some("native" | "kaniko" | "other") => Ok(backend),
        Some(other) => {
            let shown: String = other.chars().take(100).collect();
            Err(Refusal::Field("backend", format!("\"{shown}\" is not a valid choice.")))
        }
    }
}

/// Returns a name that no other build of the project has: taken ones get `-N`, N being a number
/// from 2 on that is free. It is searched by doubling and halving, since names may be many.
pub(crate) async fn free_name(
    context: &Context,
    project: &FoundProject,
    name: &str,
) -> Result<String, Refusal> {
    let kind = build_names(project.id);
    let resolve = async |name: &str| context.store.resolve(context.tenant(), &kind, name).await;
    if resolve(name).await?.is_none() {
        return Ok(name.to_owned());
    }
    let (mut taken, mut free) = (1_u64, 2_u64);
    while resolve(&numbered(name, free)).await?.is_some() {
        (taken, free) = (free, free.saturating_mul(2));
    }
    while free - taken > 1 {
        let between = taken + (free - taken) / 2;
        match resolve(&numbered(name, between)).await? {
            Some(_) => taken = between,
            None => free = between,
        }
    }
    Ok(numbered(name, free))
}

fn numbered(name: &str, number: u64) -> String {
    let suffix = format!("-{number}");
    let kept: String = name.chars().take(NAME_MAX - suffix.len()).collect();
    format!("{kept}{suffix}")
}

/// Returns the commit that a build takes: the specification's own, which has to be known, or the
/// newest one.
async fn commit(
    context: &Context,
    project: &FoundProject,
    spec: &Specification,
) -> Result<Option<Commit>, Refusal> {
    let sha = match (&spec.commit, &spec.branch) {
        (Some(commit), _) => Some(commit.clone()),
        (None, Some(branch)) if branch != BRANCH => None,
        _ => project.project.head.clone(),
    };
    let Some(sha) = sha else { return Ok(None) };
    find_commit(context, project, &sha).await
}

/// Returns a commit of a project.
pub(crate) async fn find_commit(
    context: &Context,
    project: &FoundProject,
    sha: &str,
) -> Result<Option<Commit>, Refusal> {
    let id = Commit::id(project.id, sha);
    Ok(context.store.document::<Commit>(context.tenant(), id).await?.map(|d| d.value))
}

/// Returns the files of a commit; no code is an empty tree.
pub(crate) async fn tree(
    context: &Context,
    commit: Option<&Commit>,
) -> Result<ContextManifest, Refusal> {
    let Some(commit) = commit else { return Ok(ContextManifest::default()) };
    let bytes = context.service.read_blob(&context.actor, commit.tree, TREE_BYTES_MAX).await?;
    let tree = serde_json::from_slice(&bytes);
    Ok(tree.map_err(|e| ashlar_service::Error::Internal(Box::new(e)))?)
}

async fn made(context: &Context, project: &FoundProject, sent: &Sent) -> Result<Made, Refusal> {
    let details = Details {
        content: sent.content.clone(),
        config: sent.config.clone(),
        ..Details::default()
    };
    let Some(spec) = &sent.spec else {
        let definition = Definition::new(Recipe::Other { value: Value::Null });
        return Ok(Made { definition, details, commit: None });
    };
    let details = Details { resources: spec.resources.echo.clone(), ..details };
    let commit = commit(context, project, spec).await?;
    let sha = commit.as_ref().map(|c| c.sha.clone());
    if !sent.is_managed {
        let value = sent.config.clone().unwrap_or_default();
        let definition = Definition::new(Recipe::Other { value });
        return Ok(Made { definition, details, commit: sha });
    }
    let tree = tree(context, commit.as_ref()).await?;
    let own = match spec.own_dockerfile() {
        Some(path) => own_dockerfile(context, &tree, path).await?,
        None => None,
    };
    let code = Code::new(tree, spec.context.as_deref());
    let text = match (&spec.base, &own) {
        (Base::Image(image), _) => Some(dockerfile::text(spec, image, |name| code.has(name))),
        (Base::Dockerfile(_), Some((_, text))) => Some(text.clone()),
        (Base::Dockerfile(_), None) => None,
    };
    let files = code.into_context(own.map(|(digest, _)| digest));
    let files = context.service.put_context(&context.actor, files).await?;
    let definition = definition(spec, text.as_deref(), files);
    let dockerfile_missing = text.is_none();
    let generated = spec.own_dockerfile().is_none();
    let details = Details { dockerfile: text, dockerfile_missing, generated, ..details };
    Ok(Made { definition, details, commit: sha })
}

/// Returns the user's own Dockerfile, if it is there and text.
async fn own_dockerfile(
    context: &Context,
    tree: &ContextManifest,
    path: &str,
) -> Result<Option<(Digest, String)>, Refusal> {
    let Some(digest) = dockerfile::find(tree, path) else { return Ok(None) };
    let bytes = context.service.read_blob(&context.actor, digest, DOCKERFILE_BYTES_MAX).await?;
    Ok(String::from_utf8(bytes).ok().map(|text| (digest, text)))
}

fn definition(spec: &Specification, text: Option<&str>, files: Digest) -> Definition {
    let source = match text {
        Some(text) => Source::Text(text.to_owned()),
        // It is not there, which fails the build; the original fails it too, not the request.
        None => Source::Context { context: CONTEXT.into(), path: "Dockerfile".into() },
    };
    let mut request = Request::new(source);
    request.context = CONTEXT.into();
    request.no_cache = if spec.no_cache { NoCache::All } else { NoCache::None };
    let mut definition = Definition::new(Recipe::Dockerfile(request));
    definition.contexts.insert(CONTEXT.into(), files);
    definition.limits = Limits {
        cpus: spec.resources.cpus,
        memory_bytes: spec.resources.memory_bytes,
        ..Limits::default()
    };
    definition
}

fn request(
    context: &Context,
    project: &FoundProject,
    (build, series): (&Build, &str),
    made: Made,
) -> Result<SubmitRequest, Refusal> {
    let (tenant, id) = (context.tenant(), Uuid::now_v7());
    let mut definition = made.definition;
    if build.is_managed {
        definition.own_tags = vec![image_tag(project, id)];
    }
    let mut request = SubmitRequest::new(DIALECT, &project.project.scope, series, definition);
    request.build = Some(ashlar_core::BuildId::from_uuid(id));
    request.mode = if build.is_managed { Mode::Managed } else { Mode::External };
    request.backend = build.backend.clone().filter(|b| b == "native");
    request.labels.insert("project".into(), project.project.name.clone());
    request.labels.insert("number".into(), build.number.to_string());
    request.labels.insert(LISTED.into(), listed_in(project.id));
    let alias = |kind: &str, alias: &str| {
        NewAlias::own(context.store.namespace(tenant, kind), alias.to_owned())
    };
    request.aliases.push(alias(BUILD_NUMBERS, &build.number.to_string()));
    if let Some(name) = &build.name {
        request.aliases.push(alias(&build_names(project.id), name));
    }
    let document = |made: Result<NewDocument, _>| -> Result<NewDocument, Refusal> {
        Ok(made.map_err(ashlar_service::Error::from)?)
    };
    request.documents = vec![
        document(NewDocument::new(tenant, id, build))?,
        document(NewDocument::new(tenant, id, &made.details))?,
        document(NewDocument::new(tenant, id, &StatusNumbers::default()))?,
    ];
    Ok(request)
}

/// Returns the name of the build's image, as the original has it: project and number, build uuid.
fn image_tag(project: &FoundProject, build: Uuid) -> String {
    let name = project.project.name.to_lowercase();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let name = if name.is_empty() { "project" } else { name };
    format!("{name}_{}:{}", project.project.number, build.simple())
}
