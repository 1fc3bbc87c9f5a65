//! Accepts builds.

use std::collections::{BTreeMap, BTreeSet};

use ashlar_core::identity::Role;
use ashlar_core::journal::{BuildKind, Mode, OnLost, Record, Submission};
use ashlar_core::{BuildId, Digest, Hasher};
use ashlar_oci::Reference;
use ashlar_records::{
    Idempotency, NewAlias, NewDocument, NewObject, NumberedAlias, Sealed, Secret, Submit,
    Submitted, new_build_id, now,
};
use serde_json::json;

use crate::edit::{check_labels, check_name};
use crate::tenants::audit_entry;
use crate::{Actor, Definition, Error, Recipe, RegistryCredential, Service, credentials, hidden};

/// The longest name of a scope, in bytes.
const SCOPE_MAX: usize = 255;
/// Secrets that one build may have.
const SECRETS_MAX: usize = 100;
/// Registries that one build may bring credentials for.
const CREDENTIALS_MAX: usize = 20;
/// The longest id of a secret, in bytes.
const SECRET_ID_MAX: usize = 255;
/// The largest and the smallest priority that a tenant may give.
const PRIORITY_MAX: i32 = 1000;
/// How often a build whose worker is lost runs, unless its submission says otherwise.
pub const ATTEMPTS_DEFAULT: u32 = 3;

/// What a client asks for. Make one with [`SubmitRequest::new`] and change what differs.
#[derive(Debug, Clone)]
pub struct SubmitRequest {
    /// The build's id; drawn when absent. Set it when documents have to name the build.
    pub build: Option<BuildId>,
    /// Through which door it comes: `native` or the dialect's name.
    pub dialect: String,
    /// Within the tenant, what shares a queue, caches and a history (a project, a template).
    pub scope: String,
    /// A name for people.
    pub name: String,
    /// The word for what it is made from; the recipe's own when absent.
    pub source: Option<String>,
    /// What it is made from.
    pub definition: Definition,
    /// The backend that was asked for: `native`, `buildkit` or none.
    pub backend: Option<String>,
    /// A build, or a run of builds.
    pub kind: BuildKind,
    /// Who drives it.
    pub mode: Mode,
    /// The run that it belongs to.
    pub parent: Option<BuildId>,
    /// The build that it repeats.
    pub retry_of: Option<BuildId>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Larger goes first.
    pub priority: i32,
    /// What happens when its worker is lost.
    pub on_lost: OnLost,
    /// Whether the build that the definition stands on may be another tenant's: the caller has found
    /// out that its owner shares it.
    pub base_is_shared: bool,
    /// Values of secrets by id, kept sealed until the build ends.
    pub secrets: Vec<(String, Secret)>,
    /// Credentials of registries by host, for this build's pulls; kept and erased as secrets are.
    pub credentials: Vec<(String, RegistryCredential)>,
    /// Values of build variables whose place in the definition a keyed hash has taken already.
    pub(crate) hidden: Option<Secret>,
    /// Makes a repetition of the request safe.
    pub idempotency_key: Option<String>,
    /// Names that lead to the build from now on.
    pub aliases: Vec<NewAlias>,
    /// Names that are the next number of a counter.
    pub numbered: Vec<NumberedAlias>,
    /// The dialect's own objects that come and go with the build.
    pub documents: Vec<NewDocument>,
    /// The dialect's own objects that are made with the build and stay when it goes.
    pub objects: Vec<NewObject>,
}

impl SubmitRequest {
    /// Returns a request with all else as usual.
    pub fn new(dialect: &str, scope: &str, name: &str, definition: Definition) -> Self {
        Self {
            build: None,
            dialect: dialect.to_owned(),
            scope: scope.to_owned(),
            name: name.to_owned(),
            source: None,
            definition,
            backend: None,
            kind: BuildKind::Build,
            mode: Mode::Managed,
            parent: None,
            retry_of: None,
            labels: BTreeMap::new(),
            priority: 0,
            on_lost: OnLost::Requeue { attempts_max: ATTEMPTS_DEFAULT },
            base_is_shared: false,
            secrets: Vec::new(),
            credentials: Vec::new(),
            hidden: None,
            idempotency_key: None,
            aliases: Vec::new(),
            numbered: Vec::new(),
            documents: Vec::new(),
            objects: Vec::new(),
        }
    }
}

/// An accepted build.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// Its row, with the definition.
    pub record: Record,
    /// Whether an earlier request with the same key made it.
    pub repeated: bool,
    /// The numbers drawn, in the order of [`SubmitRequest::numbered`].
    pub numbers: Vec<u64>,
    /// Builds that were cancelled, or asked to stop, by the scope's policy.
    pub replaced: Vec<BuildId>,
}

impl Service {
    /// Accepts a build. From then on it is never lost.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::TooLarge`]; [`Error::Conflict`] when the scope's policy forbids
    /// it or a name or key is in use; [`Error::Forbidden`]; [`Error::Unavailable`] while draining.
    pub async fn submit(
        &self,
        actor: &Actor,
        mut request: SubmitRequest,
    ) -> Result<Accepted, Error> {
        actor.needs(Role::Developer)?;
        if self.workers().is_draining() {
            return Err(Error::Unavailable("the server is shutting down; try again".into()));
        }
        check(&request)?;
        crate::workflow::check(&mut request)?;
        self.check_definition(actor, &request.definition).await?;
        self.freeze_base(actor, &mut request).await?;
        if let Recipe::Workflow(workflow) = &request.definition.recipe {
            for definition in workflow.definitions() {
                self.check_definition(actor, definition).await?;
            }
        }
        if let Some(parent) = request.parent {
            self.own(actor, parent).await?;
        }
        let submit = self.sealed(actor, request)?;
        let build = submit.submission.build;
        let submitted =
            self.counters().timed("submit", self.store().submit(&submit, now())).await?;
        let Submitted { record, repeated, numbers, replaced } = submitted;
        if !repeated {
            replaced.iter().for_each(|b| self.workers().cancel(*b));
            self.wake(record.submission.kind);
            self.stop_replaced_runs(actor, &replaced).await?;
            self.note_trace(build).await?;
        }
        Ok(Accepted { record, repeated, numbers, replaced })
    }

    fn wake(&self, kind: BuildKind) {
        match kind {
            BuildKind::Build => self.workers().wake(),
            BuildKind::Workflow => self.runs().wake(),
        }
    }

    /// A run that waited to go on when its scope's policy ended it has builds that go on still.
    async fn stop_replaced_runs(&self, actor: &Actor, replaced: &[BuildId]) -> Result<(), Error> {
        for build in replaced {
            let row = self.store().row(*build).await?;
            if row.submission.kind == BuildKind::Workflow && row.state.is_terminal() {
                self.cancel_children(actor, *build).await?;
            }
        }
        Ok(())
    }

    /// Makes what the store takes: secrets sealed, the definition frozen.
    fn sealed(&self, actor: &Actor, request: SubmitRequest) -> Result<Submit, Error> {
        let build = match request.build {
            Some(build) => build,
            None => new_build_id(now())?,
        };
        let seal =
            |(id, value): &(String, Secret)| Sealed::for_build(self.keys(), build, id, value);
        let logins = credentials::to_secrets(&request.credentials)?;
        let mut definition = request.definition;
        let hidden = match request.hidden {
            None => hidden::hide(self.engine(), actor.tenant.id, &mut definition)?,
            known => known,
        };
        let hidden: Vec<_> = hidden.into_iter().map(|values| (hidden::id(), values)).collect();
        let all = request.secrets.iter().chain(&logins).chain(&hidden);
        let secrets = all.map(seal).collect::<Result<Vec<_>, _>>()?;
        definition.secrets = request.secrets.iter().map(|(id, _)| id.clone()).collect();
        let mut contexts: Vec<Digest> = definition.contexts.values().copied().collect();
        if let Recipe::Workflow(workflow) = &definition.recipe {
            contexts.extend(workflow.contexts());
        }
        let needs = definition.recipe.bases();
        let blobs = definition.answers.into_iter().collect();
        definition.credentials = credentials::hosts(&logins);
        let source = request.source.unwrap_or_else(|| definition.recipe.source().to_owned());
        let definition = serde_json::to_value(&definition).map_err(Error::internal)?;
        let definition_digest = Digest::of(definition.to_string());
        let submission = Submission {
            build,
            tenant: actor.tenant.id,
            scope: request.scope,
            principal: actor.principal.id,
            dialect: request.dialect,
            kind: request.kind,
            parent: request.parent,
            retry_of: request.retry_of,
            name: request.name,
            source,
            definition,
            definition_digest,
            backend: request.backend,
            on_lost: request.on_lost,
            mode: request.mode,
            priority: request.priority,
            labels: request.labels,
        };
        let idempotency = request
            .idempotency_key
            .map(|key| Idempotency { key, request: request_digest(&submission) });
        let (aliases, numbered) = (request.aliases, request.numbered);
        let (documents, objects) = (request.documents, request.objects);
        let detail = json!({ "name": submission.name, "dialect": submission.dialect });
        let audit = Some(audit_entry(actor, "build.submit", build, detail));
        Ok(Submit {
            submission,
            idempotency,
            aliases,
            numbered,
            documents,
            objects,
            secrets,
            blobs,
            contexts,
            audit,
            needs,
        })
    }

    /// Checks that all that a definition names is there and the actor's.
    async fn check_definition(&self, actor: &Actor, definition: &Definition) -> Result<(), Error> {
        for (name, manifest) in &definition.contexts {
            if !self.has_context(actor.tenant.id, *manifest).await? {
                let why = format!("there is no context {manifest}; upload it first");
                return Err(Error::invalid(format!("contexts.{name}"), why));
            }
        }
        crate::push::check(&definition.outputs)?;
        for tag in definition.tags.iter().chain(&definition.own_tags) {
            crate::promote::check_tag(tag)?;
        }
        if let Recipe::Image { reference, .. } = &definition.recipe {
            reference.parse::<Reference>().map_err(|e| Error::invalid("image", e))?;
        }
        Ok(())
    }

    /// Checks the build that a definition stands on, and writes down whose it is.
    async fn freeze_base(&self, actor: &Actor, request: &mut SubmitRequest) -> Result<(), Error> {
        let Recipe::OnBuild { base, owner, .. } = &mut request.definition.recipe else {
            return Ok(());
        };
        let record = self.store().row(*base).await.map_err(|_| no_base(base))?;
        let tenant = record.submission.tenant;
        *owner = (tenant != actor.tenant.id).then_some(tenant);
        let allowed = owner.is_none() || request.base_is_shared;
        if !allowed || crate::artifacts::image_of(&record).is_none() {
            return Err(no_base(base));
        }
        Ok(())
    }
}

fn no_base(base: &BuildId) -> Error {
    Error::invalid("base", format!("there is no build {base} with an image"))
}

/// Two requests with the same key must ask for the same.
fn request_digest(s: &Submission) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field(s.principal.uuid().as_bytes()).field(&s.dialect).field(&s.scope).field(&s.name);
    hasher.field(&s.source).field(s.definition_digest.as_bytes());
    hasher.field(s.backend.as_deref().unwrap_or(""));
    for (name, value) in &s.labels {
        hasher.field(name).field(value);
    }
    hasher.finish()
}

/// Checks a scope's name.
pub(crate) fn check_scope(scope: &str) -> Result<(), Error> {
    if scope.is_empty() || scope.len() > SCOPE_MAX || scope.chars().any(char::is_control) {
        let why = format!("must be 1 to {SCOPE_MAX} bytes without control characters");
        return Err(Error::invalid("scope", why));
    }
    Ok(())
}

fn check(request: &SubmitRequest) -> Result<(), Error> {
    check_scope(&request.scope)?;
    check_name("name", &request.name)?;
    if let Some(backend) = &request.backend
        && !matches!(backend.as_str(), "native" | "buildkit")
        && request.mode == Mode::Managed
    {
        return Err(Error::invalid("backend", "must be 'native' or 'buildkit'"));
    }
    if !(-PRIORITY_MAX..=PRIORITY_MAX).contains(&request.priority) {
        let why = format!("must lie between -{PRIORITY_MAX} and {PRIORITY_MAX}");
        return Err(Error::invalid("priority", why));
    }
    check_labels(request.labels.iter(), 0)?;
    if request.credentials.len() > CREDENTIALS_MAX {
        let why = format!("a build has at most {CREDENTIALS_MAX}");
        return Err(Error::invalid("credentials", why));
    }
    check_secrets(&request.secrets)?;
    check_unique(&credentials::to_secrets(&request.credentials)?)
}

/// Two credentials of one registry could only be a mistake.
fn check_unique(logins: &[(String, Secret)]) -> Result<(), Error> {
    let mut hosts = credentials::hosts(logins);
    hosts.sort_unstable();
    match hosts.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::invalid("credentials", format!("'{}' is there twice", pair[0]))),
        None => Ok(()),
    }
}

fn check_secrets(secrets: &[(String, Secret)]) -> Result<(), Error> {
    if secrets.len() > SECRETS_MAX {
        return Err(Error::invalid("secrets", format!("a build has at most {SECRETS_MAX}")));
    }
    let mut seen = BTreeSet::new();
    for (id, _) in secrets {
        if id.starts_with(credentials::PREFIX) || hidden::is_reserved(id) {
            let shown: String = id.chars().take(60).collect();
            let why = format!("the id '{shown}' is one of the server's own; choose another");
            return Err(Error::invalid("secrets", why));
        }
        let fits = !id.is_empty() && id.len() <= SECRET_ID_MAX && !id.chars().any(char::is_control);
        if !fits {
            return Err(Error::invalid("secrets", "an id has 1 to 255 bytes"));
        }
        if !seen.insert(id) {
            return Err(Error::invalid("secrets", format!("'{id}' is there twice")));
        }
    }
    Ok(())
}
