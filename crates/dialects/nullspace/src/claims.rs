//! Names that are kept for a while, and namespaces.

use std::time::Duration;

use ashlar_core::Timestamp;
use ashlar_service::{Actor, Document, Role};
use axum::http::StatusCode;
use serde_json::Value;
use uuid::Uuid;

use crate::app::{App, now};
use crate::documents::{BY_NAME, Claim};
use crate::errors::{Answer, ApiError, code};
use crate::fields::Fields;
use crate::names::NAME;
use crate::refs::{SYSTEM_NAMESPACE, TemplateRef, slug_id, slug_of};
use crate::wire::{NameClaim, NamespaceInfo};

/// How long a name is kept.
const CLAIM_LIFE: Duration = Duration::from_secs(600);
/// Claims of one name that are looked at: more than one only in a race.
const CLAIMS_MAX: u32 = 100;

impl App {
    /// Keeps a name.
    pub(crate) async fn claim(&self, actor: &Actor, body: &Value) -> Answer<NameClaim> {
        actor.needs(Role::Developer)?;
        let text = Fields::new("", body)?.text_needed("template_ref")?;
        let name = claimed_name(actor, &text)?;
        if self.objects.resolve(Some(actor.tenant.id), NAME, &name).await?.is_some() {
            return Err(ApiError::conflict(format!("the name '{name}' is in use")));
        }
        if self.live_claim(actor, &name).await?.is_some() {
            return Err(ApiError::conflict(format!("the name '{name}' is claimed")));
        }
        let expires_at = later(now(), CLAIM_LIFE);
        let token = Uuid::now_v7();
        let claim = Claim { name: name.clone(), expires_at };
        self.objects.add_document(Some(actor.tenant.id), token, &claim).await?;
        // Two at once: the one that was written first stays.
        let first = self.live_claim(actor, &name).await?;
        if first.is_some_and(|first| first.id != token) {
            self.objects.remove_document::<Claim>(Some(actor.tenant.id), token).await?;
            return Err(ApiError::conflict(format!("the name '{name}' is claimed")));
        }
        let canonical_ref = format!("{}/{name}", slug_of(&actor.tenant));
        Ok(NameClaim { claim_token: token.simple().to_string(), canonical_ref, expires_at })
    }

    /// Gives a name back.
    pub(crate) async fn release(&self, actor: &Actor, token: &str) -> Answer<()> {
        actor.needs(Role::Developer)?;
        let missing = || {
            let message = "there is no such claim; it was released or is over";
            ApiError::new(StatusCode::NOT_FOUND, code::CLAIM_NOT_FOUND, message)
        };
        let id = read_token(token).ok_or_else(missing)?;
        let tenant = Some(actor.tenant.id);
        let claim = self.objects.document::<Claim>(tenant, id).await?.ok_or_else(missing)?;
        let removed = self.objects.remove_document::<Claim>(tenant, id).await?;
        if removed && claim.value.expires_at > now() { Ok(()) } else { Err(missing()) }
    }

    /// Fails when a name is kept for whoever holds another token.
    pub(crate) async fn check_claim(
        &self,
        actor: &Actor,
        name: &str,
        token: Option<&str>,
    ) -> Answer<()> {
        match self.live_claim(actor, name).await? {
            Some(claim) if token.and_then(read_token) != Some(claim.id) => {
                Err(ApiError::conflict(format!("the name '{name}' is claimed; give claim_token")))
            }
            _ => Ok(()),
        }
    }

    /// Ends the claim of a name that has a template now.
    pub(crate) async fn use_claim(&self, actor: &Actor, name: &str) -> Answer<()> {
        if let Some(claim) = self.live_claim(actor, name).await? {
            self.objects.remove_document::<Claim>(Some(actor.tenant.id), claim.id).await?;
        }
        Ok(())
    }

    /// Returns the first claim of a name that is not over; those that are go.
    async fn live_claim(&self, actor: &Actor, name: &str) -> Answer<Option<Document<Claim>>> {
        let (tenant, at) = (Some(actor.tenant.id), now());
        let index = (BY_NAME, name);
        let claims = self.objects.documents_by::<Claim>(tenant, index, 0, CLAIMS_MAX).await?;
        let mut live = None;
        for claim in claims {
            if claim.value.expires_at <= at {
                self.objects.remove_document::<Claim>(tenant, claim.id).await?;
            } else if live.is_none() {
                live = Some(claim);
            }
        }
        Ok(live)
    }

    /// Describes a namespace.
    pub(crate) fn namespace(actor: &Actor, slug: &str) -> Answer<NamespaceInfo> {
        let own = slug_of(&actor.tenant);
        if slug == SYSTEM_NAMESPACE {
            return Ok(NamespaceInfo { slug: slug.into(), kind: "system", is_default: false });
        }
        if slug == own || slug_id(slug) == Some(actor.tenant.id.uuid()) {
            return Ok(NamespaceInfo { slug: own, kind: "user", is_default: true });
        }
        let shown: String = slug.chars().take(100).collect();
        Err(ApiError::not_found(format!("there is no namespace '{shown}'")))
    }
}

fn claimed_name(actor: &Actor, text: &str) -> Answer<String> {
    let wrong = |why: String| ApiError::invalid(format!("template_ref: {why}"));
    match TemplateRef::parse(text).map_err(|e| wrong(e.to_string()))? {
        TemplateRef::Name { qualifier: Some(_), .. } => {
            Err(wrong("a name is claimed without a tag".into()))
        }
        TemplateRef::Name { namespace: Some(n), .. } if n != slug_of(&actor.tenant) => {
            Err(wrong(format!("the namespace '{n}' is not yours")))
        }
        TemplateRef::Name { name, .. } => Ok(name),
        TemplateRef::Id(_) => Err(wrong("an id is no name".into())),
    }
}

fn read_token(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|id| id.simple().to_string() == text)
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let nanos = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
    Timestamp::from_nanos(time.nanos().saturating_add(nanos))
}
