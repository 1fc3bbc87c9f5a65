//! Templates listed, renamed, tagged, shared.

use std::collections::BTreeMap;

use ashlar_service::{Actor, ErrorKind};
use axum::http::StatusCode;
use serde_json::{Map, Value};

use crate::app::{App, CHANGE_TRIES_MAX, now};
use crate::documents::{Alias, PublicTemplate, Template};
use crate::errors::{Answer, ApiError, code};
use crate::fields::Fields;
use crate::ids;
use crate::names::NAME;
use crate::refs::{TemplateRef, slug_of};
use crate::request::{check_name, read_tags};
use crate::templates::{CHANGED_BY_OTHERS, Found};
use crate::wire::{AliasInfo, TagInfo, TemplateInfo};

/// Templates of one piece of a list.
const PIECE: u32 = 500;

/// Reads `fields`: names of keys, separated by commas.
pub(crate) fn read_fields(query: &BTreeMap<String, String>) -> Answer<Option<Vec<String>>> {
    let Some(text) = query.get("fields") else { return Ok(None) };
    let fields: Vec<String> = text.split(',').map(|f| f.trim().to_owned()).collect();
    for field in &fields {
        if !TemplateInfo::FIELDS.contains(&field.as_str()) {
            let shown: String = field.chars().take(60).collect();
            let known = TemplateInfo::FIELDS.join(", ");
            let message = format!("fields: '{shown}' is none of {known}");
            return Err(ApiError::new(StatusCode::BAD_REQUEST, code::INVALID_FIELDS, message));
        }
    }
    Ok(Some(fields))
}

/// Returns a template with just the keys that are wanted.
pub(crate) fn select(info: &TemplateInfo, fields: Option<&[String]>) -> Answer<Value> {
    let value = serde_json::to_value(info).map_err(ApiError::internal)?;
    let (Some(fields), Value::Object(mut all)) = (fields, value.clone()) else { return Ok(value) };
    let kept = fields.iter().filter_map(|f| Some((f.clone(), all.remove(f)?)));
    Ok(Value::Object(kept.collect::<Map<_, _>>()))
}

impl App {
    /// Lists the caller's templates and the public ones that have a build that is ready.
    pub(crate) async fn list(&self, actor: &Actor) -> Answer<Vec<TemplateInfo>> {
        let (own, mut after) = (Some(actor.tenant.id), 0);
        let mut infos = Vec::new();
        loop {
            let piece = self.objects.documents::<Template>(own, after, PIECE).await?;
            let Some(last) = piece.last() else { break };
            after = last.position;
            for template in piece.into_iter().filter(|t| !t.value.deleted) {
                let (tenant, namespace) = (actor.tenant.id, slug_of(&actor.tenant));
                let (id, version) = (template.id, template.version);
                let template = template.value;
                let found = Found { tenant, namespace, id, version, template, own: true };
                infos.extend(self.listed_info(found).await?);
            }
        }
        after = 0;
        loop {
            let piece = self.objects.documents::<PublicTemplate>(None, after, PIECE).await?;
            let Some(last) = piece.last() else { break };
            after = last.position;
            for public in piece.iter().filter(|p| p.value.owner != actor.tenant.id) {
                if let Some(found) = self.by_id(actor, public.id).await? {
                    infos.extend(self.listed_info(found).await?);
                }
            }
        }
        Ok(infos)
    }

    async fn listed_info(&self, found: Found) -> Answer<Option<TemplateInfo>> {
        let found = self.settled(found).await?;
        match found.template.newest {
            Some(_) => self.info(&found).await.map(Some),
            None => Ok(None),
        }
    }

    /// Lists a template's tags.
    pub(crate) fn tags(found: &Found) -> Vec<TagInfo> {
        let tag = |(tag, build, at): (&str, _, _)| TagInfo {
            tag: tag.to_owned(),
            build_id: ids::build(build),
            created_at: at,
        };
        found.template.active_tags().map(tag).collect()
    }

    /// Gives tags to the build that a reference means.
    pub(crate) async fn assign_tags(
        &self,
        actor: &Actor,
        found: Found,
        reference: &TemplateRef,
        body: &Value,
    ) -> Answer<TemplateInfo> {
        let tags = read_tags(&Fields::new("", body)?)?;
        let tags = tags.ok_or_else(|| ApiError::invalid("tags: is missing"))?;
        let build = match self.source_build(&found, reference).await? {
            Some(build) => Some(build),
            None => found.default_build().filter(|_| reference.qualifier().is_none()),
        };
        let build = build.ok_or_else(|| ApiError::no_template(&reference.to_string()))?;
        let record = self.service.row(actor, build).await?;
        let found = self.move_tags(&found, &record, &tags).await?;
        self.info(&found).await
    }

    /// Takes a tag away.
    pub(crate) async fn remove_tag(&self, found: &Found, tag: &str) -> Answer<()> {
        if found.template.tag(tag).is_none() {
            let reference = format!("{}:{tag}", found.canonical_ref());
            return Err(ApiError::no_template(&reference));
        }
        let at = now();
        self.change(found, |template| template.move_tag(tag, None, at)).await?;
        Ok(())
    }

    /// Lists a template's earlier names.
    pub(crate) fn aliases(found: &Found) -> Vec<AliasInfo> {
        let alias = |alias: &Alias| AliasInfo {
            alias_ref: format!("{}/{}", found.namespace, alias.name),
            created_at: alias.at,
        };
        found.template.aliases.iter().map(alias).collect()
    }

    /// Takes an earlier name away.
    pub(crate) async fn remove_alias(&self, found: &Found, alias: &str) -> Answer<()> {
        let missing = || ApiError::no_template(alias);
        let name = match alias.split_once('/') {
            Some((namespace, name)) if namespace == found.namespace => name,
            Some(_) => return Err(missing()),
            None => alias,
        };
        if !found.template.aliases.iter().any(|a| a.name == name) {
            return Err(missing());
        }
        let found =
            self.change(found, |template| template.aliases.retain(|a| a.name != name)).await?;
        self.publish(&found).await
    }

    /// Gives a template another name; the old one goes on leading to it.
    pub(crate) async fn rename(
        &self,
        actor: &Actor,
        found: &Found,
        body: &Value,
    ) -> Answer<TemplateInfo> {
        let name = Fields::new("", body)?.text_needed("new_name")?;
        check_name("new_name", &name)?;
        if name == found.template.name {
            return self.info(found).await;
        }
        self.check_claim(actor, &name, None).await?;
        let mut taken = false;
        let found = match self.renamed(found, &name, &mut taken).await {
            Err(error) if taken => {
                // Deleted meanwhile, say, and would hold the name for ever.
                self.objects.remove_alias(Some(found.tenant), NAME, &name).await?;
                return Err(error);
            }
            renamed => renamed?,
        };
        self.publish(&found).await?;
        self.info(&found).await
    }

    /// Renames a template; `taken` says whether the name was taken for that, which is to be undone
    /// when it fails. An earlier name of its own is not taken, unless somebody removes that meanwhile:
    /// what the template has is its own only for as long as its document stays as it was found.
    async fn renamed(&self, found: &Found, name: &str, taken: &mut bool) -> Answer<Found> {
        let at = now();
        let rename = |template: &mut Template| {
            if template.name != name {
                let old = std::mem::replace(&mut template.name, name.to_owned());
                template.aliases.retain(|a| a.name != name && a.name != old);
                template.aliases.push(Alias { name: old, at });
            }
        };
        let mut found = found.clone();
        for _ in 0..CHANGE_TRIES_MAX {
            if !*taken && !found.template.is_called(name) {
                let added = self.objects.add_alias(Some(found.tenant), NAME, name, found.id).await;
                added.map_err(|e| match e.kind() {
                    ErrorKind::Conflict => {
                        ApiError::conflict(format!("the name '{name}' is in use"))
                    }
                    _ => e.into(),
                })?;
                *taken = true;
            }
            match self.try_change(&found, &[], rename).await? {
                Some(renamed) => return Ok(renamed),
                None => found = self.again(&found).await?,
            }
        }
        Err(ApiError::conflict(CHANGED_BY_OTHERS))
    }

    /// Shows a template to all, or to its namespace only.
    pub(crate) async fn set_visibility(&self, found: &Found, body: &Value) -> Answer<TemplateInfo> {
        let f = Fields::new("", body)?;
        let wanted = f.one_of("visibility", &["private", "public"])?;
        let wanted = wanted.ok_or_else(|| ApiError::invalid("visibility: is missing"))?;
        let public = wanted == "public";
        let found = self.change(found, |template| template.public = public).await?;
        self.publish(&found).await?;
        self.info(&found).await
    }
}

#[cfg(test)]
mod tests {
    use ashlar_service::{Role, Service, ServiceConfig};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    /// Returns the dialect over an empty service, and somebody who may use it.
    async fn app(data: &std::path::Path) -> (App, Actor) {
        let service = Service::open(ServiceConfig::new(data)).await.unwrap();
        let admin = service.admin().clone();
        service.add_tenant(&admin, "acme").await.unwrap();
        let actor = service.act_for(&admin, "acme").await.unwrap();
        let (_, token) = service.make_token(&actor, "t", Role::Owner, "t", None).await.unwrap();
        let actor = service.authenticate(token.expose()).await.unwrap();
        (App::new(service), actor)
    }

    async fn template(app: &App, actor: &Actor, name: &str) -> Answer<Found> {
        let (tenant, id) = (Some(actor.tenant.id), Uuid::now_v7());
        app.objects.add_alias(tenant, NAME, name, id).await?;
        app.objects.add_document(tenant, id, &Template::new(name)).await?;
        Ok(app.by_id(actor, id).await?.unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_name_that_is_removed_while_it_comes_back_stays_with_its_template() {
        let data = tempfile::tempdir().unwrap();
        let (app, actor) = app(data.path()).await;
        let found = template(&app, &actor, "one").await.unwrap();
        app.rename(&actor, &found, &json!({ "new_name": "two" })).await.unwrap();
        // What the one who renames has seen; the other one is faster.
        let seen = app.again(&found).await.unwrap();
        app.remove_alias(&seen, "one").await.unwrap();
        app.rename(&actor, &seen, &json!({ "new_name": "one" })).await.unwrap();
        let tenant = Some(actor.tenant.id);
        assert_eq!(app.objects.resolve(tenant, NAME, "one").await.unwrap(), Some(found.id));
        assert_eq!(template(&app, &actor, "one").await.unwrap_err().code, code::CONFLICT);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_name_that_was_given_away_does_not_come_back() {
        let data = tempfile::tempdir().unwrap();
        let (app, actor) = app(data.path()).await;
        let found = template(&app, &actor, "one").await.unwrap();
        app.rename(&actor, &found, &json!({ "new_name": "two" })).await.unwrap();
        let seen = app.again(&found).await.unwrap();
        app.remove_alias(&seen, "one").await.unwrap();
        let other = template(&app, &actor, "one").await.unwrap();
        let refused = app.rename(&actor, &seen, &json!({ "new_name": "one" })).await;
        assert_eq!(refused.unwrap_err().code, code::CONFLICT);
        let tenant = Some(actor.tenant.id);
        assert_eq!(app.objects.resolve(tenant, NAME, "one").await.unwrap(), Some(other.id));
        assert_eq!(app.objects.resolve(tenant, NAME, "two").await.unwrap(), Some(found.id));
        assert_eq!(app.again(&found).await.unwrap().template.name, "two");
    }
}
