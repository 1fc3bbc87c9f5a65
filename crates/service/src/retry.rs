//! Builds again from the same definition.

use ashlar_core::BuildId;
use ashlar_core::journal::Event;
use ashlar_records::{NewAlias, NewDocument, NumberedAlias, Secret};

use crate::recipe::{ANSWERS_KEY, NOTE_DIALECT};
use crate::{
    Accepted, Actor, Definition, Error, Mode, Recipe, RegistryCredential, Service, SubmitRequest,
    credentials, hidden,
};

/// How a build is repeated. What is absent stays as it was.
#[derive(Debug, Clone, Default)]
pub struct RetryRequest {
    /// Resolve images, branches and addresses anew; else what they led to then is taken again.
    pub newest: bool,
    /// Run every step again; results are still kept.
    pub no_cache: bool,
    /// The new build's id.
    pub build: Option<BuildId>,
    /// Another definition of success: tags.
    pub tags: Option<Vec<String>>,
    /// Another definition of success: a dialect's names.
    pub names: Option<Vec<crate::definition::NameOnSuccess>>,
    /// Values of the secrets that the build had; all of them, they were erased when it ended.
    pub secrets: Vec<(String, Secret)>,
    /// Credentials of the registries that the build had some for; they were erased with it too.
    pub credentials: Vec<(String, RegistryCredential)>,
    /// Makes a repetition of the request safe.
    pub idempotency_key: Option<String>,
    /// As in [`SubmitRequest`].
    pub aliases: Vec<NewAlias>,
    /// As in [`SubmitRequest`].
    pub numbered: Vec<NumberedAlias>,
    /// As in [`SubmitRequest`].
    pub documents: Vec<NewDocument>,
}

impl Service {
    /// Submits a build again that has ended.
    ///
    /// # Errors
    /// [`Error::Conflict`] while it runs; [`Error::Invalid`] when secrets are missing; else as
    /// [`Service::submit`].
    pub async fn retry(
        &self,
        actor: &Actor,
        build: BuildId,
        retry: RetryRequest,
    ) -> Result<Accepted, Error> {
        let record = self.show(actor, build).await?;
        if !record.state.is_terminal() {
            return Err(Error::Conflict("the build has not ended; cancel it first".into()));
        }
        let s = &record.submission;
        if s.mode == Mode::External {
            return Err(Error::Conflict("the build was driven from outside".into()));
        }
        let mut definition = Definition::of(&record)?;
        let given = |id: &String| retry.secrets.iter().any(|(name, _)| name == id);
        if let Some(missing) = definition.secrets.iter().find(|id| !given(id)) {
            let why = format!("the build needs the secret '{missing}' again");
            return Err(Error::invalid("secrets", why));
        }
        let logins = credentials::hosts(&credentials::to_secrets(&retry.credentials)?);
        if let Some(missing) = definition.credentials.iter().find(|h| !logins.contains(h)) {
            let why = format!("the build needs the credentials of '{missing}' again");
            return Err(Error::invalid("credentials", why));
        }
        definition.tags = retry.tags.unwrap_or(definition.tags);
        definition.own_tags.clear();
        definition.names = retry.names.unwrap_or(definition.names);
        if retry.no_cache {
            definition.recipe.skip_cache();
        }
        definition.answers = match retry.newest {
            true => None,
            false => match record.answers {
                Some(answers) => Some(answers),
                None => self.noted_answers(build).await?.or(definition.answers),
            },
        };
        // It was looked at when the first of these builds was submitted.
        let shared = matches!(definition.recipe, Recipe::OnBuild { owner: Some(_), .. });
        let mut request = SubmitRequest::new(&s.dialect, &s.scope, &record.name, definition);
        (request.build, request.base_is_shared) = (retry.build, shared);
        request.source = Some(s.source.clone());
        request.backend.clone_from(&s.backend);
        (request.kind, request.parent) = (s.kind, s.parent);
        request.retry_of = Some(build);
        request.labels.clone_from(&record.labels);
        // By these a dialect finds its own builds; one that it repeats itself gets them from it.
        let own = format!("{}.", s.dialect);
        request.labels.retain(|name, _| !name.starts_with(&own));
        (request.priority, request.on_lost) = (s.priority, s.on_lost);
        (request.secrets, request.credentials) = (retry.secrets, retry.credentials);
        request.hidden = self.store().kept_secret(self.keys(), build, &hidden::id()).await?;
        request.idempotency_key = retry.idempotency_key;
        (request.aliases, request.numbered) = (retry.aliases, retry.numbered);
        request.documents = retry.documents;
        self.submit(actor, request).await
    }

    /// Returns where the answers to the questions of a build are kept whose record does not say so:
    /// an older server wrote a note, near the journal's beginning.
    async fn noted_answers(&self, build: BuildId) -> Result<Option<ashlar_core::Digest>, Error> {
        const LOOKED_AT: usize = 256;
        let entries = self.store().events(build, 0, LOOKED_AT).await?;
        Ok(entries.iter().rev().find_map(|entry| match &entry.event {
            Event::Note { dialect, value } if dialect == NOTE_DIALECT => {
                value.get(ANSWERS_KEY)?.as_str()?.parse().ok()
            }
            _ => None,
        }))
    }
}
