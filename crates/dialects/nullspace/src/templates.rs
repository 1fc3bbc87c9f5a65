//! Logical templates: found by reference, made, changed, shown.

use ashlar_core::{BuildId, TenantId, Timestamp};
use ashlar_service::{Actor, Document, ErrorKind, NewAlias, NewDocument, NewObject, Record, Role};
use uuid::Uuid;

use crate::app::{App, CHANGE_TRIES_MAX, now};
use crate::documents::{Attempt, BY_NAME, PublicTemplate, Template};
use crate::errors::{Answer, ApiError, code};
use crate::ids;
use crate::names::NAME;
use crate::refs::{
    Qualifier, SYSTEM_NAMESPACE, TAG_DEFAULT, TAG_LATEST, TemplateRef, slug_id, slug_of,
};
use crate::wire::TemplateInfo;

/// Rows of one name that are looked at in one go: more than one are left behind by others.
const PIECE: u32 = 100;
/// What a change says that never came to its turn.
pub(crate) const CHANGED_BY_OTHERS: &str = "the template is being changed by others; try again";

/// A template that somebody may see.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) tenant: TenantId,
    pub(crate) namespace: String,
    pub(crate) id: Uuid,
    pub(crate) version: u64,
    pub(crate) template: Template,
    /// Whether it is the caller's.
    pub(crate) own: bool,
}

impl Found {
    pub(crate) fn canonical_ref(&self) -> String {
        format!("{}/{}", self.namespace, self.template.name)
    }

    pub(crate) const fn visibility(&self) -> &'static str {
        if self.template.public { "public" } else { "private" }
    }

    /// Returns what clients see of it; `newest` is what is known of its default build.
    pub(crate) fn info(&self, newest: Option<&Attempt>) -> TemplateInfo {
        let tags: Vec<String> =
            self.template.active_tags().map(|(tag, ..)| tag.to_owned()).collect();
        let default = tags.iter().any(|t| t == TAG_DEFAULT);
        TemplateInfo {
            id: ids::template(self.id),
            name: self.template.name.clone(),
            description: String::new(),
            builtin: false,
            tags,
            default_tag: default.then(|| TAG_DEFAULT.to_owned()),
            canonical_ref: self.canonical_ref(),
            namespace_slug: self.namespace.clone(),
            visibility: self.visibility(),
            runtime_defaults: newest.and_then(|a| a.runtime_defaults.clone()),
        }
    }

    /// Returns the build that a bare reference means as a source: that of the tag `default`.
    pub(crate) fn default_build(&self) -> Option<BuildId> {
        self.template.tag(TAG_DEFAULT).or_else(|| self.template.newest.map(|(build, _)| build))
    }
}

impl App {
    /// Finds a template by reference, with the ends of its builds taken into account.
    pub(crate) async fn find(&self, actor: &Actor, reference: &TemplateRef) -> Answer<Found> {
        let found = self.look_up(actor, reference).await?;
        self.current(reference, found).await
    }

    /// Takes the ends of its builds into account in what was looked up by a reference.
    pub(crate) async fn current(
        &self,
        reference: &TemplateRef,
        found: Option<Found>,
    ) -> Answer<Found> {
        let missing = || ApiError::no_template(&reference.to_string());
        let found = found.ok_or_else(missing)?;
        let found = self.settled(found).await?;
        if let Some(qualifier) = reference.qualifier() {
            let system = is_system(reference);
            self.qualified(&found, qualifier, system).await?.ok_or_else(missing)?;
        }
        Ok(found)
    }

    /// Does the same for a template that the caller wants to change. What the system's namespace
    /// names is nobody's to change: only where it is read does it stand for the caller's own.
    pub(crate) async fn current_own(
        &self,
        actor: &Actor,
        reference: &TemplateRef,
        found: Option<Found>,
    ) -> Answer<Found> {
        refuse_system(reference)?;
        let found = self.current(reference, found).await?;
        actor.needs(Role::Developer)?;
        if found.own {
            return Ok(found);
        }
        let message = "the template belongs to another namespace";
        Err(ApiError::new(axum::http::StatusCode::FORBIDDEN, code::PERMISSION_DENIED, message))
    }

    /// Returns the build that a reference means as a source of another build or of tags.
    pub(crate) async fn source_build(
        &self,
        found: &Found,
        reference: &TemplateRef,
    ) -> Answer<Option<BuildId>> {
        match reference.qualifier() {
            None => Ok(found.template.tag(TAG_DEFAULT)),
            Some(qualifier) => self.qualified(found, qualifier, is_system(reference)).await,
        }
    }

    async fn qualified(
        &self,
        found: &Found,
        qualifier: &Qualifier,
        system: bool,
    ) -> Answer<Option<BuildId>> {
        match qualifier {
            Qualifier::Tag(tag) => {
                let by_tag = found.template.tag(tag);
                let latest = system && tag == TAG_LATEST;
                Ok(by_tag.or_else(|| found.template.tag(TAG_DEFAULT).filter(|_| latest)))
            }
            Qualifier::Build(None) => Ok(None),
            Qualifier::Build(Some(build)) => {
                let attempt = self.attempt(found.tenant, *build).await?;
                Ok(attempt.filter(|a| a.value.template == found.id).map(|_| *build))
            }
        }
    }

    /// Finds a template by reference as it is stored.
    pub(crate) async fn look_up(
        &self,
        actor: &Actor,
        reference: &TemplateRef,
    ) -> Answer<Option<Found>> {
        match reference {
            TemplateRef::Id(id) => match ids::read_template(id) {
                Some(id) => self.by_id(actor, id).await,
                None => Ok(None),
            },
            TemplateRef::Name { namespace: None, name, qualifier } => {
                if let Some(found) = self.own_named(actor, name).await? {
                    return Ok(Some(found));
                }
                match ids::read_artifact(name).filter(|_| qualifier.is_none()) {
                    Some(build) => self.of_artifact(actor, build).await,
                    None => Ok(None),
                }
            }
            TemplateRef::Name { namespace: Some(namespace), name, .. } => {
                let own = *namespace == slug_of(&actor.tenant)
                    || slug_id(namespace) == Some(actor.tenant.id.uuid())
                    // There are no builtin templates: the name means the caller's own.
                    || namespace == SYSTEM_NAMESPACE;
                if own {
                    return self.own_named(actor, name).await;
                }
                self.public_named(actor, namespace, name).await
            }
        }
    }

    async fn own_named(&self, actor: &Actor, name: &str) -> Answer<Option<Found>> {
        let tenant = Some(actor.tenant.id);
        match self.objects.resolve(tenant, NAME, name).await? {
            Some(id) => self.by_id(actor, id).await,
            None => Ok(None),
        }
    }

    async fn of_artifact(&self, actor: &Actor, build: BuildId) -> Answer<Option<Found>> {
        match self.attempt(actor.tenant.id, build).await? {
            Some(attempt) => self.by_id(actor, attempt.value.template).await,
            None => Ok(None),
        }
    }

    async fn public_named(
        &self,
        actor: &Actor,
        namespace: &str,
        name: &str,
    ) -> Answer<Option<Found>> {
        let canonical = format!("{namespace}/{name}");
        let (index, mut after) = ((BY_NAME, canonical.as_str()), 0);
        loop {
            let public =
                self.objects.documents_by::<PublicTemplate>(None, index, after, PIECE).await?;
            let Some(last) = public.last() else { return Ok(None) };
            after = last.position;
            for row in &public {
                // A row that its template has left behind is passed over.
                let found = self.by_id(actor, row.id).await?;
                if let Some(found) = found.filter(|f| f.template.is_called(name)) {
                    return Ok(Some(found));
                }
            }
        }
    }

    /// Finds a template by id: the caller's own, or a public one. Whether it is public is what the
    /// template says itself: the row that makes it known to others is written after it.
    pub(crate) async fn by_id(&self, actor: &Actor, id: Uuid) -> Answer<Option<Found>> {
        let own = actor.tenant.id;
        if let Some(found) = self.objects.document::<Template>(Some(own), id).await? {
            let found = found_of(own, slug_of(&actor.tenant), found, true);
            return Ok(Some(found).filter(|f| !f.template.deleted));
        }
        let public = self.objects.document::<PublicTemplate>(None, id).await?;
        let Some(public) = public else { return Ok(None) };
        let PublicTemplate { owner, namespace, .. } = public.value;
        let found = self.objects.document::<Template>(Some(owner), id).await?;
        let found = found.filter(|found| found.value.public);
        Ok(found.map(|found| found_of(owner, namespace, found, false)))
    }

    /// Returns what the dialect knows of a build.
    pub(crate) async fn attempt(
        &self,
        tenant: TenantId,
        build: BuildId,
    ) -> Answer<Option<Document<Attempt>>> {
        Ok(self.objects.document::<Attempt>(Some(tenant), build.uuid()).await?)
    }

    /// Changes a template and moves the names of its tags with it; the change may run several
    /// times.
    pub(crate) async fn change(
        &self,
        found: &Found,
        change: impl Fn(&mut Template) + Send + Sync,
    ) -> Answer<Found> {
        self.change_after_build(found, &[], change).await
    }

    /// Changes a template as above. The names of some tags are written even where the change leaves
    /// the tags: a build that ended has let these names lead to itself, and a tag that was moved
    /// later than it ended is elsewhere.
    pub(crate) async fn change_after_build(
        &self,
        found: &Found,
        tags: &[String],
        change: impl Fn(&mut Template) + Send + Sync,
    ) -> Answer<Found> {
        let mut found = found.clone();
        for _ in 0..CHANGE_TRIES_MAX {
            match self.try_change(&found, tags, &change).await? {
                Some(changed) => return Ok(changed),
                None => found = self.again(&found).await?,
            }
        }
        Err(ApiError::conflict(CHANGED_BY_OTHERS))
    }

    /// Changes a template that is still as it was found; returns nothing when it is not.
    pub(crate) async fn try_change(
        &self,
        found: &Found,
        tags: &[String],
        change: impl Fn(&mut Template) + Send + Sync,
    ) -> Answer<Option<Found>> {
        let mut changed = found.clone();
        change(&mut changed.template);
        if changed.template == found.template && tags.is_empty() {
            return Ok(Some(changed));
        }
        let names = self.moved_names(found, &changed.template, tags);
        let (tenant, id, version) = (Some(found.tenant), found.id, found.version);
        let new = &changed.template;
        match self.objects.replace_document_with_names(tenant, id, version, new, &names).await {
            Err(e) if e.kind() == ErrorKind::Conflict => Ok(None),
            replaced => {
                replaced?;
                changed.version += 1;
                Ok(Some(changed))
            }
        }
    }

    /// Looks at a template once more.
    pub(crate) async fn again(&self, found: &Found) -> Answer<Found> {
        let again = self.objects.document::<Template>(Some(found.tenant), found.id).await?;
        let again = again.filter(|again| !again.value.deleted);
        let again = again.ok_or_else(|| ApiError::no_template(&ids::template(found.id)))?;
        Ok(Found { template: again.value, version: again.version, ..found.clone() })
    }

    /// Returns the template of a name. A new one is not there yet: it comes with what is to be
    /// written with its first build, so that no name is taken by a build that was refused.
    pub(crate) async fn place(
        &self,
        actor: &Actor,
        name: &str,
    ) -> Answer<(Found, Option<NewObject>)> {
        if let Some(found) = self.own_named(actor, name).await? {
            return Ok((found, None));
        }
        let (tenant, namespace) = (actor.tenant.id, slug_of(&actor.tenant));
        let (id, template) = (Uuid::now_v7(), Template::new(name));
        let document = NewDocument::new(Some(tenant), id, &template).map_err(ApiError::internal)?;
        let alias = NewAlias::own(self.objects.namespace(Some(tenant), NAME), name.to_owned());
        let object = NewObject { document, names: vec![alias] };
        Ok((Found { tenant, namespace, id, version: 1, template, own: true }, Some(object)))
    }

    /// Makes a template known to all tenants, or to its own only, under its names of now: those
    /// that it has when this is done, whatever it had when it was found.
    pub(crate) async fn publish(&self, found: &Found) -> Answer<()> {
        for _ in 0..CHANGE_TRIES_MAX {
            let template = self.objects.document::<Template>(Some(found.tenant), found.id).await?;
            let wanted = template.filter(|t| t.value.public).map(|t| PublicTemplate {
                owner: found.tenant,
                namespace: found.namespace.clone(),
                names: t.value.names().map(str::to_owned).collect(),
            });
            let stored = self.objects.document::<PublicTemplate>(None, found.id).await?;
            let written = match (stored, wanted) {
                (None, None) => return Ok(()),
                (Some(stored), Some(wanted)) if stored.value == wanted => return Ok(()),
                (Some(stored), Some(wanted)) => {
                    self.objects.replace_document(None, found.id, stored.version, &wanted).await
                }
                (None, Some(wanted)) => self.objects.add_document(None, found.id, &wanted).await,
                (Some(_), None) => {
                    let removed = self.objects.remove_document::<PublicTemplate>(None, found.id);
                    removed.await.map(drop)
                }
            };
            // The template may have changed meanwhile, and others may do the same: another look
            // says whether all is well.
            if let Err(e) = written
                && e.kind() != ErrorKind::Conflict
            {
                return Err(e.into());
            }
        }
        Err(ApiError::conflict(CHANGED_BY_OTHERS))
    }

    /// Returns what clients see of a template.
    pub(crate) async fn info(&self, found: &Found) -> Answer<TemplateInfo> {
        let newest = match found.default_build() {
            Some(build) => self.attempt(found.tenant, build).await?,
            None => None,
        };
        Ok(found.info(newest.as_ref().map(|d| &d.value)))
    }

    /// Lets tags point at a build that is ready.
    pub(crate) async fn move_tags(
        &self,
        found: &Found,
        record: &Record,
        tags: &[String],
    ) -> Answer<Found> {
        if !self.is_available(record) {
            let message = "the build has no artifact to tag: it is not ready, or no longer kept";
            return Err(ApiError::conflict(message));
        }
        let (build, at): (BuildId, Timestamp) = (record.submission.build, now());
        let moved = |template: &mut Template| {
            tags.iter().for_each(|tag| template.move_tag(tag, Some(build), at));
        };
        self.change(found, moved).await
    }
}

/// Refuses what is not for templates that come with the server.
pub(crate) fn refuse_system(reference: &TemplateRef) -> Answer<()> {
    if !is_system(reference) {
        return Ok(());
    }
    let what = format!(
        "'{reference}' names a template that comes with the server, which is not yours to manage; \
         name your own without '{SYSTEM_NAMESPACE}/'"
    );
    Err(ApiError::invalid(what))
}

fn is_system(reference: &TemplateRef) -> bool {
    matches!(reference, TemplateRef::Name { namespace: Some(n), .. } if n == SYSTEM_NAMESPACE)
}

pub(crate) fn found_of(
    tenant: TenantId,
    namespace: String,
    d: Document<Template>,
    own: bool,
) -> Found {
    Found { tenant, namespace, id: d.id, version: d.version, template: d.value, own }
}
