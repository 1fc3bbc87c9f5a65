//! From a request to a definition: base, context and source are found and checked, nothing is kept.

use ashlar_core::graph::{Network, Probe};
use ashlar_core::{BuildId, Digest, Hasher};
use ashlar_service::frontends::declarative::{self, Base, CacheUse, Step};
use ashlar_service::frontends::dockerfile::{self, NoCache};
use ashlar_service::{Actor, Definition, Recipe, RegistryCredential, StartCommand, registry_of};
use serde_json::{Value, json};

use crate::app::App;
use crate::context::Context;
use crate::credentials::by_registry;
use crate::documents::Inherited;
use crate::errors::{Answer, ApiError, code};
use crate::ids::{BUILD_PREFIX, TEMPLATE_PREFIX};
use crate::plan::{dockerfile_base, joined};
use crate::refs::{SYSTEM_NAMESPACE, TAG_LATEST, TemplateRef, is_image, slug_id, slug_of};
use crate::request::{BuildRequest, DOCKERFILE_BYTES_MAX, Source, check_dockerfile};

/// What runs while a probe is tried that no start command goes with.
pub(crate) const NOTHING: &str = "exec sleep 2147483647";

/// A request that may be accepted.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) request: BuildRequest,
    pub(crate) base: Option<BaseOf>,
    pub(crate) source_type: &'static str,
    pub(crate) context: Option<Context>,
    pub(crate) context_digest: Option<String>,
    pub(crate) source_digest: String,
    pub(crate) dockerfile_digest: Option<String>,
    /// The registry of the base image, when it can be told.
    pub(crate) base_host: Option<String>,
    /// Credentials by registry.
    pub(crate) credentials: Vec<(String, RegistryCredential)>,
}

/// What steps stand on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BaseOf {
    Image(String),
    Build {
        build: BuildId,
        /// Whether it is another tenant's, of a template that is public.
        shared: bool,
        /// How it is started.
        inherited: Inherited,
    },
}

impl App {
    /// Reads and checks a request.
    pub(crate) async fn prepare(&self, actor: &Actor, body: &Value) -> Answer<Prepared> {
        let mut request = BuildRequest::read(body)?;
        let context = request.context.take().map(|files| Context::read(&files)).transpose()?;
        if let Some(context) = &context {
            self.check_content(actor, context).await?;
        }
        self.load_dockerfile(actor, &mut request, context.as_ref()).await?;
        let base = match &request.source {
            Source::Steps { base, steps, .. } => {
                Context::check_sources(context.as_ref(), steps)?;
                Some(self.base(actor, base).await?)
            }
            Source::Dockerfile { .. } => None,
        };
        let (source_digest, dockerfile_digest) = digests(&request);
        let base_host = match &base {
            Some(BaseOf::Image(image)) => registry_of(image),
            Some(BaseOf::Build { .. }) => None,
            None => dockerfile_base(&request)?.as_deref().and_then(registry_of),
        };
        let auth = (request.base_auth.as_ref(), request.registry_auth.as_slice());
        let is_template = matches!(&base, Some(BaseOf::Build { .. }));
        let credentials = by_registry(auth, base_host.as_deref(), is_template)?;
        Ok(Prepared {
            base_host,
            credentials,
            source_type: source_type(&request, base.as_ref()),
            context_digest: context.as_ref().map(Context::digest),
            request,
            base,
            context,
            source_digest,
            dockerfile_digest,
        })
    }

    /// Reads a Dockerfile that is a file of the context.
    async fn load_dockerfile(
        &self,
        actor: &Actor,
        request: &mut BuildRequest,
        context: Option<&Context>,
    ) -> Answer<()> {
        let Source::Dockerfile { text: text @ None, path } = &mut request.source else {
            return Ok(());
        };
        let shown: String = path.chars().take(200).collect();
        let missing = || ApiError::invalid(format!("dockerfile_path: there is no file '{shown}'"));
        let bytes = match context.and_then(|c| c.file_named(path)) {
            None => return Err(missing()),
            Some(Ok(bytes)) => bytes.to_vec(),
            Some(Err(digest)) => {
                self.service.read_blob(actor, digest, DOCKERFILE_BYTES_MAX as u64).await?
            }
        };
        let read = String::from_utf8(bytes)
            .map_err(|_| ApiError::invalid("dockerfile_path: the file is not UTF-8"))?;
        *text = Some(read);
        check_dockerfile(&request.source, request.target.as_deref(), &mut request.warnings)
    }

    /// Decides what a base is: a template, or else an image.
    async fn base(&self, actor: &Actor, text: &str) -> Answer<BaseOf> {
        let reference = TemplateRef::parse(text);
        let exact = text.split_once(':').is_some_and(|(_, q)| q.starts_with(BUILD_PREFIX));
        let system = text.starts_with(&format!("{SYSTEM_NAMESPACE}/"));
        if text.starts_with(TEMPLATE_PREFIX) || exact || system {
            let reference = reference.map_err(|e| ApiError::invalid(format!("base_image: {e}")))?;
            return self.base_template(actor, &reference).await;
        }
        if let Ok(reference @ TemplateRef::Name { namespace: Some(namespace), .. }) = &reference {
            let own = *namespace == slug_of(&actor.tenant)
                || slug_id(namespace) == Some(actor.tenant.id.uuid());
            if own || self.look_up(actor, reference).await?.is_some() {
                return self.base_template(actor, reference).await;
            }
        }
        if is_image(text) {
            return Ok(BaseOf::Image(text.to_owned()));
        }
        let shown: String = text.chars().take(200).collect();
        Err(ApiError::invalid(format!("base_image: '{shown}' is no image reference")))
    }

    async fn base_template(&self, actor: &Actor, reference: &TemplateRef) -> Answer<BaseOf> {
        let refused = || ApiError {
            // The request is wrong, so 400; the code still says what is missing.
            status: axum::http::StatusCode::BAD_REQUEST,
            message: format!("base_image: there is no template '{reference}' that is ready"),
            ..ApiError::new(axum::http::StatusCode::BAD_REQUEST, code::TEMPLATE_NOT_FOUND, "")
        };
        let found = match self.find(actor, reference).await {
            Err(e) if e.code == code::TEMPLATE_NOT_FOUND => return Err(refused()),
            found => found?,
        };
        let build = self.source_build(&found, reference).await?.ok_or_else(refused)?;
        let record = self.service.row(self.service.admin(), build).await?;
        if !self.is_available(&record) {
            return Err(refused());
        }
        let attempt = self.attempt(found.tenant, build).await?;
        let inherited = attempt.map(|a| a.value.effective()).unwrap_or_default();
        Ok(BaseOf::Build { build, shared: !found.own, inherited })
    }
}

fn source_type(request: &BuildRequest, base: Option<&BaseOf>) -> &'static str {
    match (&request.source, base) {
        (Source::Dockerfile { .. }, _) => "dockerfile",
        (_, Some(BaseOf::Build { .. })) => "template_base",
        (Source::Steps { steps, .. }, _) => {
            let plain =
                steps.is_empty() && request.build_envs.is_empty() && request.start_cmd.is_none();
            if plain { "oci_import" } else { "declarative" }
        }
    }
}

/// Returns digests of the source: equal input, equal digest. Values of build variables are no part
/// of it: a digest must not help to guess them.
fn digests(request: &BuildRequest) -> (String, Option<String>) {
    let mut hasher = Hasher::new();
    let dockerfile = match &request.source {
        Source::Dockerfile { text, .. } => {
            let text = text.as_deref().unwrap_or_default();
            hasher.field("dockerfile").field(text);
            Some(Digest::of(text).to_string())
        }
        Source::Steps { base, raw, .. } => {
            hasher.field("steps").field(base).field(raw.to_string());
            None
        }
    };
    for (name, value) in &request.build_args {
        hasher.field(name).field(value);
    }
    hasher.field(request.target.as_deref().unwrap_or_default());
    hasher.field(request.start_cmd.as_deref().unwrap_or_default());
    (hasher.finish().to_string(), dockerfile)
}

impl Prepared {
    /// Returns what the service is asked to build, with the context that was kept.
    pub(crate) fn definition(&self, context: Option<Digest>) -> Definition {
        let request = &self.request;
        let network = if request.config.internet { Network::Default } else { Network::None };
        let recipe = match (&request.source, &self.base) {
            (Source::Dockerfile { text, path }, _) => {
                let text = text.as_deref().unwrap_or_default();
                Recipe::Dockerfile(self.dockerfile(text, path, network))
            }
            (Source::Steps { steps, .. }, Some(BaseOf::Build { build, .. })) => {
                let steps = self.steps(steps.clone(), Base::Image(String::new()), network);
                Recipe::OnBuild { base: *build, owner: None, steps }
            }
            (Source::Steps { base, steps, .. }, _) => {
                Recipe::Declarative(self.steps(steps.clone(), Base::Image(base.clone()), network))
            }
        };
        let mut definition = Definition::new(recipe);
        definition.network = network;
        definition.limits = request.config.limits();
        definition.runtime = declarative::Runtime {
            user: request.runtime.user.clone(),
            workdir: self.workdir(),
            envs: request.runtime.envs.clone(),
        };
        definition.start = self.start();
        definition.identity = Some(self.identity());
        if let Some(context) = context {
            definition.contexts.insert("context".into(), context);
        }
        definition
    }

    /// Returns the digest of all that makes another final artifact, whether a step uses it or not.
    /// The base image and build variables are missing: what the one resolves to is in the graph, and
    /// a plain digest of the others would help to guess them.
    fn identity(&self) -> Digest {
        let (request, runtime) = (&self.request, &self.request.runtime);
        let source = match &request.source {
            Source::Dockerfile { text, .. } => json!({ "dockerfile": text }),
            Source::Steps { steps, .. } => json!({ "steps": steps }),
        };
        let base = match &self.base {
            Some(BaseOf::Build { build, .. }) => Some(build),
            Some(BaseOf::Image(_)) | None => None,
        };
        let mut secrets: Vec<&str> = request.secrets.iter().map(|(id, _)| id.as_str()).collect();
        secrets.sort_unstable();
        let all = json!({
            "backend": request.backend.as_str(),
            "source": source,
            "base_build": base,
            "context": self.context_digest,
            "build_args": request.build_args,
            "build_target": request.target,
            "start_cmd": request.start_cmd,
            "user": runtime.user,
            "workdir": self.workdir(),
            "envs": runtime.envs,
            "readiness": runtime.readiness.as_ref().map(|r| &r.probe),
            "secrets": secrets,
        });
        Digest::of(format!("nullspace.final.v1 {all}"))
    }

    fn steps(
        &self,
        steps: Vec<declarative::Step>,
        base: Base,
        network: Network,
    ) -> declarative::Definition {
        let (request, mut definition) = (&self.request, declarative::Definition::new(base, steps));
        definition.build_envs.clone_from(&request.build_envs);
        if request.skip_cache {
            definition.cache = CacheUse::Skip;
        }
        definition.network = network;
        definition
    }

    fn dockerfile(&self, text: &str, path: &str, network: Network) -> dockerfile::Request {
        let (request, mut made) = (&self.request, dockerfile::Request::text(text));
        path.clone_into(&mut made.file_name);
        made.target.clone_from(&request.target);
        made.build_args.clone_from(&request.build_args);
        made.build_envs = request.build_envs.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
        made.network = network;
        // Clients leave out what their rules say; what they send is the context.
        made.no_ignore_files = true;
        if request.skip_cache {
            made.no_cache = NoCache::All;
        }
        made
    }

    /// Returns the directory that the result runs in, as the request says. The SDK names the
    /// directory of the last step once more, as that step has it: relative to the one before.
    pub(crate) fn workdir(&self) -> Option<String> {
        let said = self.request.runtime.workdir.as_deref()?;
        let steps = match &self.request.source {
            Source::Steps { steps, .. } => steps.as_slice(),
            Source::Dockerfile { .. } => &[],
        };
        let paths = steps.iter().filter_map(|step| match step {
            Step::Workdir { path } => Some(path.as_str()),
            _ => None,
        });
        let last = paths.clone().next_back();
        let at = paths.fold("/".to_owned(), |at, path| joined(&at, path));
        Some(if last == Some(said) { at } else { joined("/", said) })
    }

    fn start(&self) -> Option<StartCommand> {
        let (request, runtime) = (&self.request, &self.request.runtime);
        let probe: Option<Probe> = runtime.readiness.as_ref().map(|r| r.probe.clone());
        let command = match (&request.start_cmd, &probe) {
            (Some(command), _) => command.clone(),
            (None, Some(_)) => NOTHING.to_owned(),
            (None, None) => return None,
        };
        // User, directory and variables are those of the result, which have the request's.
        let envs = std::collections::BTreeMap::new();
        Some(StartCommand { command, user: None, workdir: None, envs, readiness: probe })
    }

    /// Says whether the base is another tenant's.
    pub(crate) const fn base_is_shared(&self) -> bool {
        matches!(&self.base, Some(BaseOf::Build { shared: true, .. }))
    }

    /// Returns how the base is started.
    pub(crate) fn inherited(&self) -> Inherited {
        match &self.base {
            Some(BaseOf::Build { inherited, .. }) => inherited.clone(),
            _ => Inherited::default(),
        }
    }

    /// Returns the name that the base has in plans.
    pub(crate) fn base_name(&self) -> String {
        match &self.request.source {
            Source::Steps { base, .. } => {
                let own = base.strip_prefix(&format!("{SYSTEM_NAMESPACE}/"));
                let own = own.and_then(|n| n.strip_suffix(&format!(":{TAG_LATEST}")));
                own.map_or_else(|| base.clone(), str::to_owned)
            }
            Source::Dockerfile { .. } => String::new(),
        }
    }
}
