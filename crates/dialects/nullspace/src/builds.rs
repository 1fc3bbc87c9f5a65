//! Builds: accepted, cancelled, repeated, promoted.

use ashlar_core::BuildId;
use ashlar_core::journal::Event;
use ashlar_core::state::State;
use ashlar_service::{
    Actor, Definition, ErrorKind, NewDocument, Recipe, Record, RetryRequest, Role, Secret,
    SubmitRequest,
};
use axum::http::StatusCode;
use serde_json::Value;
use uuid::Uuid;

use crate::DIALECT;
use crate::app::App;
use crate::context::{Bound, Context};
use crate::credentials::by_registry;
use crate::documents::{Attempt, AttemptFiles, FileUse, NamedBlob};
use crate::errors::{Answer, ApiError, code};
use crate::failure::Failed;
use crate::fields::Fields;
use crate::ids;
use crate::logs::{Owned, PIECE};
use crate::names::on_success;
use crate::prepare::Prepared;
use crate::request::{
    Source, check_tags, read_base_auth, read_registries, read_secret_list, read_tags,
};
use crate::templates::Found;
use crate::views;
use crate::wire::{FailureDetail, StatusSnapshot, TemplateBuild, TemplateInfo};

/// How often a submission is tried again because another one has taken the same name, or noted the
/// same files, first.
const NOTE_TRIES_MAX: usize = 8;
/// Events of a build that are read to learn the names of its steps, which come soon.
const EVENTS_MAX: usize = 1000;

impl App {
    /// Accepts a build.
    pub(crate) async fn accept(&self, actor: &Actor, body: &Value) -> Answer<Owned> {
        actor.needs(Role::Developer)?;
        let mut prepared = self.prepare(actor, body).await?;
        let name = match prepared.request.name.clone() {
            Some(name) => name,
            None => format!("template-{}", Uuid::now_v7().simple()),
        };
        self.check_claim(actor, &name, prepared.request.claim_token.as_deref()).await?;
        let context = match (prepared.context.take(), &prepared.request.source) {
            // Copies of a Dockerfile without context find nothing, which is the step's failure.
            (None, Source::Dockerfile { .. }) => Some(Context::default()),
            (context, _) => context,
        };
        let bound = match context {
            Some(context) => self.bind(actor, context).await?,
            None => Bound::default(),
        };
        let owned = self.submit(actor, &name, &prepared, bound).await?;
        self.use_claim(actor, &name).await?;
        Ok(owned)
    }

    /// Submits a build of the template of a name, which is made with it when it is new.
    async fn submit(
        &self,
        actor: &Actor,
        name: &str,
        prepared: &Prepared,
        bound: Bound,
    ) -> Answer<Owned> {
        let mut bound = bound;
        for _ in 0..NOTE_TRIES_MAX {
            let (found, object) = self.place(actor, name).await?;
            let new = object.is_some();
            let build = BuildId::from_uuid(Uuid::now_v7());
            let mut submit = request_of(actor, &found, prepared, &bound, build)?;
            submit.objects.extend(object);
            match self.service.submit(actor, submit).await {
                // Somebody else has taken the name or named the same files meanwhile.
                Err(e) if e.kind() == ErrorKind::Conflict && (new || !bound.named.is_empty()) => {
                    self.look_again(actor, &mut bound).await?;
                }
                other => {
                    other?;
                    return match self.owned(actor, &ids::build(build)).await {
                        Err(e) if e.code == code::BUILD_NOT_FOUND => {
                            Err(self.take_back(actor, build).await)
                        }
                        owned => owned,
                    };
                }
            }
        }
        Err(ApiError::conflict("others use the same name and files; try again"))
    }

    /// Finds out which files another build has named meanwhile.
    async fn look_again(&self, actor: &Actor, bound: &mut Bound) -> Answer<()> {
        let tenant = Some(actor.tenant.id);
        let mut taken = Vec::new();
        for id in bound.named.keys() {
            if self.objects.document::<NamedBlob>(tenant, *id).await?.is_some() {
                taken.push(*id);
            }
        }
        for id in taken {
            let Some(note) = bound.named.remove(&id) else { continue };
            let paths = bound.paths_of(&note);
            for (path, known) in &mut bound.files.files {
                if paths.contains(path) {
                    *known = FileUse::Known;
                }
            }
        }
        Ok(())
    }

    /// Returns a build as its owner sees it.
    pub(crate) async fn view(&self, actor: &Actor, owned: &Owned) -> Answer<TemplateBuild> {
        let record = self.service.row(actor, owned.build).await?;
        self.view_of(actor, owned, &record).await
    }

    /// Returns a build as a record of it says.
    pub(crate) async fn view_of(
        &self,
        actor: &Actor,
        owned: &Owned,
        record: &Record,
    ) -> Answer<TemplateBuild> {
        let attempt = &owned.attempt.value;
        let cache = self.cache(actor, &owned.found, attempt, record).await?;
        let kept = self.kept(record).await?;
        let detail = self.failure(actor, attempt, record).await?;
        Ok(views::build(&owned.found, record, attempt, (cache, kept, detail)))
    }

    /// Returns why a build failed, unless it did not.
    async fn failure(
        &self,
        actor: &Actor,
        attempt: &Attempt,
        record: &Record,
    ) -> Answer<Option<FailureDetail>> {
        let build = record.submission.build;
        let Some(failed) = Failed::of(record, attempt) else { return Ok(None) };
        if !failed.lacks_step() {
            return Ok(Some(failed.detail(&ids::build(build))));
        }
        let events = self.service.events(actor, build, 0, EVENTS_MAX).await?;
        let steps = events.iter().rev().find_map(|e| match &e.event {
            Event::Steps { names } => Some(names.as_slice()),
            _ => None,
        });
        let failed = Failed::among(failed.failure(), steps.unwrap_or_default());
        Ok(Some(failed.detail(&ids::build(build))))
    }

    /// Accepts a build and waits for its end.
    pub(crate) async fn create(&self, actor: &Actor, body: &Value) -> Answer<TemplateInfo> {
        let owned = self.accept(actor, body).await?;
        let id = ids::build(owned.build);
        if let Err(error) = self.wait_for_end(actor, owned.build).await {
            return Err(ApiError { build_id: Some(id), ..error });
        }
        let record = self.service.row(actor, owned.build).await?;
        let owned = self.fresh(owned).await?;
        if record.state == State::Succeeded {
            return self.info(&owned.found).await;
        }
        let refused = match self.failure(actor, &owned.attempt.value, &record).await? {
            Some(detail) => {
                let failed = Failed::of(&record, &owned.attempt.value);
                let code = failed.map_or(code::BUILD_ERROR, |f| f.code());
                let refused = ApiError::new(StatusCode::BAD_REQUEST, code, detail.message.clone());
                ApiError { detail: Some(Box::new(detail)), ..refused }
            }
            None => ApiError::new(StatusCode::BAD_REQUEST, code::BUILD_ERROR, "build cancelled"),
        };
        Err(ApiError { build_id: Some(id), ..refused })
    }

    /// Waits until a build has ended; fails when the server stops before.
    pub(crate) async fn wait_for_end(&self, actor: &Actor, build: BuildId) -> Answer<()> {
        let record = self.service.row(actor, build).await?;
        let mut follower = self.service.follow(actor, build, record.next_number).await?;
        let ended = async {
            while !follower.next(PIECE).await.map_err(ApiError::internal)?.is_empty() {}
            Ok::<(), ApiError>(())
        };
        tokio::select! {
            ended = ended => ended,
            () = self.service.stopped() => {
                let message = "the server stops, and the build goes on later; ask for its status";
                let unavailable = StatusCode::SERVICE_UNAVAILABLE;
                Err(ApiError::new(unavailable, code::FEATURE_UNAVAILABLE, message))
            }
        }
    }

    /// Asks a build to stop.
    pub(crate) async fn cancel(
        &self,
        actor: &Actor,
        id: &str,
        body: &Value,
    ) -> Answer<StatusSnapshot> {
        let reason = Fields::new("", body)?.text("reason")?;
        let owned = self.owned(actor, id).await?;
        self.service.cancel(actor, owned.build, reason.as_deref()).await?;
        // Whoever stops a build has seen its log, or asks for it: a long one is not sent along.
        self.end_of_log(actor, id).await
    }

    /// Builds again from the stored definition.
    pub(crate) async fn retry(&self, actor: &Actor, id: &str, body: &Value) -> Answer<Owned> {
        let f = Fields::new("", body)?;
        let (tags, secrets) = (read_tags(&f)?, read_secret_list(&f)?);
        let (base_auth, registries) = (read_base_auth(&f)?, read_registries(&f)?);
        let Owned { found, attempt, build } = self.owned(actor, id).await?;
        let attempt = attempt.value;
        let record = self.service.row(actor, build).await?;
        if !record.state.is_terminal() {
            return Err(ApiError::invalid("the build has not ended; cancel it or wait for it"));
        }
        if let Some(kind) = &attempt.base_auth
            && base_auth.is_none()
            && registries.is_empty()
        {
            let what = format!("base_image_auth: the build needs its '{kind}' credentials again");
            return Err(ApiError::invalid(what));
        }
        self.check_base(actor, build).await?;
        let auth = (base_auth.as_ref(), registries.as_slice());
        let credentials = by_registry(auth, attempt.base_host.as_deref(), true)?;
        let new = BuildId::from_uuid(Uuid::now_v7());
        let files = self.objects.document::<AttemptFiles>(Some(found.tenant), build.uuid()).await?;
        let mut bound =
            Bound { files: files.map(|d| d.value).unwrap_or_default(), ..Bound::default() };
        bound.files.files.iter_mut().for_each(|(_, known)| *known = FileUse::Known);
        let attempt = Attempt {
            tags: tags.unwrap_or_else(|| attempt.tags.clone()),
            original: Some(attempt.original.unwrap_or(build)),
            triggered_by: actor.principal.name.clone(),
            files: bound.files.counts(),
            settled: false,
            runtime_defaults: None,
            oci_metadata: None,
            ..attempt
        };
        let retry = RetryRequest {
            build: Some(new),
            names: Some(on_success(found.id, &attempt.tags)),
            secrets: secrets_of(&secrets),
            credentials,
            documents: documents(actor, new, &attempt, &bound)?,
            ..RetryRequest::default()
        };
        self.service.retry(actor, build, retry).await.map_err(|e| match e.kind() {
            ErrorKind::Conflict => ApiError::invalid(e.public()),
            _ => e.into(),
        })?;
        self.owned(actor, &ids::build(new)).await
    }

    /// Refuses a retry on another tenant's template that is not public any more.
    async fn check_base(&self, actor: &Actor, build: BuildId) -> Answer<()> {
        let record = self.service.show(actor, build).await?;
        let Recipe::OnBuild { base, owner: Some(owner), .. } = Definition::of(&record)?.recipe
        else {
            return Ok(());
        };
        let template = self.attempt(owner, base).await?.map(|a| a.value.template);
        let shared = match template {
            Some(template) => self.by_id(actor, template).await?.is_some(),
            None => false,
        };
        if shared {
            return Ok(());
        }
        let message = "base_image: the template that the build stands on is not there any more";
        Err(ApiError::new(StatusCode::BAD_REQUEST, code::TEMPLATE_NOT_FOUND, message))
    }

    /// Moves tags to a build.
    pub(crate) async fn promote(
        &self,
        actor: &Actor,
        id: &str,
        body: &Value,
    ) -> Answer<TemplateInfo> {
        let f = Fields::new("", body)?;
        let mut tags = read_tags(&f)?.unwrap_or_default();
        tags.extend(f.text("tag")?);
        if tags.is_empty() {
            return Err(ApiError::invalid("tag: give a tag, or tags"));
        }
        let tags = check_tags(tags)?;
        let owned = self.owned(actor, id).await?;
        actor.needs(Role::Developer)?;
        let owned = self.fresh(owned).await?;
        let record = self.service.row(actor, owned.build).await?;
        let found = self.move_tags(&owned.found, &record, &tags).await?;
        self.info(&found).await
    }
}

impl Bound {
    /// Returns the paths of the files that a note speaks of.
    fn paths_of(&self, note: &NamedBlob) -> Vec<String> {
        let blobs = &self.blobs;
        blobs.iter().filter(|(_, b)| *b == note.blob_id).map(|(p, _)| p.clone()).collect()
    }
}

fn secrets_of(secrets: &[(String, String)]) -> Vec<(String, Secret)> {
    let sealed =
        |(id, value): &(String, String)| (id.clone(), Secret::new(value.clone().into_bytes()));
    secrets.iter().map(sealed).collect()
}

/// Returns what the service is asked for.
fn request_of(
    actor: &Actor,
    found: &Found,
    prepared: &Prepared,
    bound: &Bound,
    build: BuildId,
) -> Answer<SubmitRequest> {
    let request = &prepared.request;
    let mut definition = prepared.definition(bound.manifest);
    definition.names = on_success(found.id, &request.tags);
    let scope = ids::template(found.id);
    let mut submit = SubmitRequest::new(DIALECT, &scope, &found.template.name, definition);
    submit.build = Some(build);
    submit.source = Some(prepared.source_type.to_owned());
    submit.backend = Some(request.backend.as_str().to_owned());
    submit.secrets = secrets_of(&request.secrets);
    submit.credentials.clone_from(&prepared.credentials);
    submit.base_is_shared = prepared.base_is_shared();
    let attempt = Attempt {
        template: found.id,
        tags: request.tags.clone(),
        original: None,
        triggered_by: actor.principal.name.clone(),
        build_config: request.config.wire.clone(),
        source_digest: prepared.source_digest.clone(),
        context_digest: prepared.context_digest.clone(),
        dockerfile_digest: prepared.dockerfile_digest.clone(),
        files: bound.files.counts(),
        start_cmd: request.start_cmd.clone(),
        readiness: request.runtime.readiness.as_ref().map(|r| r.wire.clone()),
        inherited: prepared.inherited(),
        base_host: prepared.base_host.clone(),
        base_auth: request.base_auth.as_ref().map(|a| a.kind().to_owned()),
        settled: false,
        runtime_defaults: None,
        oci_metadata: None,
    };
    submit.documents = documents(actor, build, &attempt, bound)?;
    Ok(submit)
}

/// Returns what is written with a build.
fn documents(
    actor: &Actor,
    build: BuildId,
    attempt: &Attempt,
    bound: &Bound,
) -> Answer<Vec<NewDocument>> {
    let tenant = Some(actor.tenant.id);
    let mut all =
        vec![NewDocument::new(tenant, build.uuid(), attempt).map_err(ApiError::internal)?];
    if !bound.files.files.is_empty() {
        let files = NewDocument::new(tenant, build.uuid(), &bound.files);
        all.push(files.map_err(ApiError::internal)?);
    }
    for (id, note) in &bound.named {
        all.push(NewDocument::new(tenant, *id, note).map_err(ApiError::internal)?);
    }
    Ok(all)
}
