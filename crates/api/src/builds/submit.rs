//! `POST /api/v1/builds`: JSON, or a form with the JSON and the context as a tar archive.

use std::collections::BTreeMap;

use ashlar_core::graph::{ExtraHost, Network, Ulimit};
use ashlar_core::{BuildId, Digest, Platform};
use ashlar_http::Origin;
use ashlar_service::frontends::declarative::{self, Base, CacheUse};
use ashlar_service::frontends::dockerfile::{self, NamedContext, NoCache, Source};
use ashlar_service::{
    ATTEMPTS_DEFAULT, Actor, BuildOutput, Definition, Limits, OnLost, Recipe, RegistryCredential,
    SubmitRequest,
};
use axum::Json;
use axum::extract::{FromRequest, Multipart, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;

use super::secret::{self, SecretValue};
use super::start::StartAsk;
use crate::app::{BODY_BYTES_MAX, Shared};
use crate::auth::Caller;
use crate::extract::IdempotencyKey;
use crate::view::BuildView;
use crate::{Problem, contexts, strict};

/// The name of the main context.
const MAIN: &str = "context";

/// The most attempts that one may ask for.
const ATTEMPTS_MAX: u32 = 100;

/// What happens when the build's worker is lost.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LostAsk {
    r#do: LostWord,
    attempts_max: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LostWord {
    Requeue,
    Fail,
}

impl LostAsk {
    fn checked(&self) -> Result<OnLost, Problem> {
        match (self.r#do, self.attempts_max) {
            (LostWord::Fail, None) => Ok(OnLost::Fail),
            (LostWord::Fail, Some(_)) => {
                let why = "a build that fails when its worker is lost has one attempt";
                Err(Problem::invalid("on_lost.attempts_max", why))
            }
            (LostWord::Requeue, None) => Ok(OnLost::Requeue { attempts_max: ATTEMPTS_DEFAULT }),
            (LostWord::Requeue, Some(most)) if (1..=ATTEMPTS_MAX).contains(&most) => {
                Ok(OnLost::Requeue { attempts_max: most })
            }
            (LostWord::Requeue, Some(_)) => {
                let why = format!("must lie between 1 and {ATTEMPTS_MAX}");
                Err(Problem::invalid("on_lost.attempts_max", why))
            }
        }
    }
}

/// What is asked for. Exactly one of `dockerfile`, `dockerfile_path`, `steps` and `image` says what
/// is to be done; `steps` need a `base` or `base_build`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    name: Option<String>,
    scope: Option<String>,
    dockerfile: Option<String>,
    dockerfile_path: Option<String>,
    steps: Option<Value>,
    base: Option<String>,
    base_build: Option<BuildId>,
    image: Option<String>,
    /// Digest of the main context.
    context: Option<Digest>,
    #[serde(default)]
    contexts: BTreeMap<String, Digest>,
    /// The context that the Dockerfile is in, when it is not the main one.
    dockerfile_context: Option<String>,
    /// What stands in for stages and images. A context that is in neither this nor
    /// `dockerfile_context` stands in under its own name.
    #[serde(default)]
    named_contexts: BTreeMap<String, NamedContext>,
    target: Option<String>,
    #[serde(default)]
    build_args: BTreeMap<String, String>,
    #[serde(default)]
    build_envs: BTreeMap<String, String>,
    #[serde(default)]
    image_labels: BTreeMap<String, String>,
    #[serde(default)]
    runtime: declarative::Runtime,
    platform: Option<Platform>,
    #[serde(default)]
    no_cache: bool,
    /// Stages whose steps run again.
    #[serde(default)]
    no_cache_stages: Vec<String>,
    /// Registries are asked for newer base images, also where an image of the server has the name.
    #[serde(default)]
    pull: bool,
    #[serde(default)]
    network: Network,
    #[serde(default)]
    extra_hosts: Vec<ExtraHost>,
    shm_bytes: Option<u64>,
    #[serde(default)]
    ulimits: Vec<Ulimit>,
    #[serde(default)]
    limits: Limits,
    start: Option<StartAsk>,
    source_date_epoch: Option<i64>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Registries that the image is pushed to.
    #[serde(default)]
    outputs: Vec<BuildOutput>,
    #[serde(default)]
    secrets: BTreeMap<String, SecretValue>,
    /// Credentials of registries by host, for this build's pulls and pushes.
    #[serde(default)]
    credentials: BTreeMap<String, RegistryCredential>,
    backend: Option<String>,
    #[serde(default)]
    priority: i32,
    on_lost: Option<LostAsk>,
    idempotency_key: Option<String>,
}

pub(crate) async fn submit(
    State(shared): State<Shared>,
    Caller(actor): Caller,
    origin: Origin,
    key: IdempotencyKey,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Problem> {
    let mut ask = read(&shared, &actor, &headers, request).await?;
    ask.idempotency_key = key.or(ask.idempotency_key);
    let accepted = shared.service.submit(&actor, ask.request()?).await?;
    let status = if accepted.repeated { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = (status, Json(BuildView::whole(&accepted.record))).into_response();
    let place = origin.path(&format!("/api/v1/builds/{}", accepted.record.submission.build));
    if let Ok(place) = HeaderValue::from_str(&place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

async fn read(
    shared: &Shared,
    actor: &Actor,
    headers: &HeaderMap,
    request: Request,
) -> Result<Ask, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    if !kind.starts_with("multipart/form-data") {
        let body = contexts::whole(request.into_body(), "the body", BODY_BYTES_MAX).await?;
        return strict::from_slice(&body).map_err(|e| Problem::invalid("body", e));
    }
    actor.needs(ashlar_service::Role::Developer)?;
    let form = Multipart::from_request(request, shared).await;
    form_of(shared, actor, form.map_err(|e| Problem::invalid("body", e.body_text()))?).await
}

fn too_large() -> Problem {
    let max = BODY_BYTES_MAX as u64;
    ashlar_service::Error::TooLarge { what: "the body".into(), max, unit: "bytes" }.into()
}

/// Reads a form: a field `request` with the JSON, a field `context` with a tar archive.
async fn form_of(shared: &Shared, actor: &Actor, mut form: Multipart) -> Result<Ask, Problem> {
    let bad = |e: axum::extract::multipart::MultipartError| Problem::invalid("body", e.body_text());
    let (mut ask, mut context) = (None, None);
    while let Some(mut field) = form.next_field().await.map_err(bad)? {
        match field.name() {
            Some("request") => {
                let mut bytes = Vec::new();
                while let Some(chunk) = field.chunk().await.map_err(bad)? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > BODY_BYTES_MAX {
                        return Err(too_large());
                    }
                }
                let read = strict::from_slice::<Ask>(&bytes);
                ask = Some(read.map_err(|e| Problem::invalid("request", e))?);
            }
            Some("context") => {
                context = Some(contexts::take_tar(shared, actor, field).await?);
            }
            _ => return Err(Problem::invalid("body", "fields are 'request' and 'context'")),
        }
    }
    let mut ask = ask.ok_or_else(|| Problem::invalid("request", "the field is missing"))?;
    ask.context = context.or(ask.context);
    Ok(ask)
}

impl Ask {
    pub(crate) fn scope(&self) -> Option<&String> {
        self.scope.as_ref()
    }

    pub(crate) fn name(&self) -> Option<&String> {
        self.name.as_ref()
    }

    /// Makes it the build of a run's node; its base, if another node makes that, is filled in when
    /// that node has ended.
    pub(crate) fn for_node(mut self, on_another: bool) -> Self {
        if on_another && self.base.is_none() {
            self.base_build = Some(BuildId::from_parts(0, [0; 10]));
        }
        self
    }

    pub(crate) fn request(self) -> Result<SubmitRequest, Problem> {
        let recipe = self.recipe()?;
        let mut definition = Definition::new(recipe);
        definition.contexts = self.contexts;
        definition.contexts.extend(self.context.map(|digest| (MAIN.to_owned(), digest)));
        self.limits.check()?;
        definition.limits = self.limits;
        definition.network = self.network;
        definition.start = self.start.map(StartAsk::checked).transpose()?;
        if self.steps.is_none() {
            // Steps have it in their own definition.
            definition.runtime = self.runtime;
        }
        definition.epoch = self.source_date_epoch;
        definition.pull = self.pull;
        definition.outputs = self.outputs;
        definition.tags = self.tags;
        let scope = self.scope.unwrap_or_else(|| "default".into());
        let name = self.name.unwrap_or_else(|| scope.clone());
        let mut request = SubmitRequest::new("native", &scope, &name, definition);
        request.labels = self.labels;
        request.backend = self.backend;
        request.priority = self.priority;
        if let Some(on_lost) = self.on_lost {
            request.on_lost = on_lost.checked()?;
        }
        request.idempotency_key = self.idempotency_key;
        request.secrets = secret::values(self.secrets)?;
        request.credentials = self.credentials.into_iter().collect();
        Ok(request)
    }

    fn recipe(&self) -> Result<Recipe, Problem> {
        let one = "give exactly one of 'dockerfile', 'dockerfile_path', 'steps' and 'image'";
        match (&self.dockerfile, &self.dockerfile_path, &self.steps, &self.image) {
            (Some(text), path, None, None) => {
                let mut request = dockerfile::Request::text(text.clone());
                request.file_name = path.clone().unwrap_or(request.file_name);
                Ok(Recipe::Dockerfile(self.dockerfile(request)?))
            }
            (None, Some(path), None, None) => {
                let context = self.dockerfile_context.as_deref().unwrap_or(MAIN);
                self.has_context("dockerfile_context", context)?;
                let source = Source::Context { context: context.into(), path: path.clone() };
                Ok(Recipe::Dockerfile(self.dockerfile(dockerfile::Request::new(source))?))
            }
            (None, None, Some(steps), None) => self.steps(steps),
            (None, None, None, Some(reference)) => Ok(Recipe::Image {
                reference: reference.clone(),
                platform: self.platform.clone().unwrap_or_else(Platform::host),
            }),
            _ => Err(Problem::invalid("dockerfile", one)),
        }
    }

    /// Refuses a name of a context that did not come with the request.
    fn has_context(&self, field: &str, name: &str) -> Result<(), Problem> {
        let main = name == MAIN && self.context.is_some();
        if main || self.contexts.contains_key(name) {
            return Ok(());
        }
        Err(Problem::invalid(field, format!("there is no context '{name}' in the request")))
    }

    fn dockerfile(&self, mut request: dockerfile::Request) -> Result<dockerfile::Request, Problem> {
        request.target.clone_from(&self.target);
        request.build_args.clone_from(&self.build_args);
        request.build_envs = self.build_envs.clone().into_iter().collect();
        request.labels.clone_from(&self.image_labels);
        request.platform.clone_from(&self.platform);
        request.network = self.network;
        request.source_date_epoch = self.source_date_epoch;
        request.extra_hosts.clone_from(&self.extra_hosts);
        request.shm_bytes = self.shm_bytes;
        request.ulimits.clone_from(&self.ulimits);
        request.no_cache = match (self.no_cache, self.no_cache_stages.as_slice()) {
            (true, _) => NoCache::All,
            (false, []) => NoCache::None,
            (false, stages) => NoCache::Stages(stages.iter().cloned().collect()),
        };
        request.named_contexts = self.named_contexts()?;
        Ok(request)
    }

    fn named_contexts(&self) -> Result<BTreeMap<String, NamedContext>, Problem> {
        let mut used = vec![MAIN];
        used.extend(self.dockerfile_context.as_deref());
        for context in self.named_contexts.values() {
            if let NamedContext::Directory(name) = context {
                self.has_context("named_contexts", name)?;
                used.push(name);
            }
        }
        let own = self.contexts.keys().filter(|n| !used.contains(&n.as_str()));
        let own = own.map(|n| (n.clone(), NamedContext::Directory(n.clone())));
        Ok(own.chain(self.named_contexts.clone()).collect())
    }

    fn steps(&self, steps: &Value) -> Result<Recipe, Problem> {
        let parsed = declarative::parse_steps(steps).map_err(|errors| {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Problem::invalid("steps", texts.join("; "))
        })?;
        let base = Base::Image(self.base.clone().unwrap_or_else(|| "scratch".into()));
        let mut definition = declarative::Definition::new(base, parsed.steps);
        definition.build_envs.clone_from(&self.build_envs);
        definition.runtime.clone_from(&self.runtime);
        definition.network = self.network;
        definition.platform = self.platform.clone().unwrap_or_else(Platform::host);
        if self.no_cache {
            definition.cache = CacheUse::Skip;
        }
        match (&self.base, self.base_build) {
            (Some(_), None) => Ok(Recipe::Declarative(definition)),
            (None, Some(base)) => Ok(Recipe::OnBuild { base, owner: None, steps: definition }),
            _ => Err(Problem::invalid("base", "steps need exactly one of 'base' and 'base_build'")),
        }
    }
}
