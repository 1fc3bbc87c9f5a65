//! Tokens: who somebody is, and tokens for others.

use std::future;
use std::time::Duration;

use ashlar_core::identity::Role;
use ashlar_core::{Digest, Timestamp};
use ashlar_records::{NewToken, Token, TokenText, now};
use serde_json::json;
use tokio::time::sleep;
use uuid::Uuid;

use crate::sessions::is_session;
use crate::{Actor, Error, Service};

/// The longest name of a token, in bytes.
const NAME_MAX: usize = 255;
/// How often what goes on for long looks whether its token is still good.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Service {
    /// Returns who a token stands for. Every dialect takes these tokens as its own credentials.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] when the token is unknown, expired or revoked;
    /// [`Error::RateLimited`] when its tenant asks too often, or the address of those whose tokens
    /// are no good.
    pub async fn authenticate(&self, token: &str) -> Result<Actor, Error> {
        let Some(actor) = self.holder(token).await? else {
            return Err(self.unknown("the token is unknown, expired or revoked"));
        };
        self.rates().check(actor.tenant.id)?;
        Ok(actor)
    }

    /// Returns who holds a token that is good.
    async fn holder(&self, token: &str) -> Result<Option<Actor>, Error> {
        // Digests are compared, so that the time says nothing about the token.
        if Digest::of(token) == self.admin_hash() {
            return Ok(Some(self.admin().clone()));
        }
        if is_session(token) {
            return Ok(None);
        }
        match self.store().authenticate(token, now()).await? {
            Some(token) => self.token_actor(&token).await,
            None => Ok(None),
        }
    }

    /// Returns who acts with a token.
    pub(crate) async fn token_actor(&self, token: &Token) -> Result<Option<Actor>, Error> {
        let tenant = self.store().tenant(token.tenant).await?;
        let principal = self.store().principal(token.principal).await?;
        let actor = |(tenant, principal)| Actor {
            tenant,
            principal,
            role: token.role,
            token: Some(token.id),
        };
        Ok(tenant.zip(principal).map(actor))
    }

    /// Returns how long the token that the actor came with still holds; none when it has no end.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token_lifetime(&self, actor: &Actor) -> Result<Option<Duration>, Error> {
        let Some(id) = actor.token else { return Ok(None) };
        let token = self.store().token(actor.tenant.id, id).await?;
        let end = token.and_then(|token| token.expires_at);
        Ok(end.map(|end| end.since(now())))
    }

    /// Returns once the token that the actor came with is not good any more, a few seconds later at
    /// most: what goes on for long after a request was let in has to look again. Never without one.
    pub async fn lapsed(&self, actor: &Actor) {
        let Some(id) = actor.token else { return future::pending().await };
        loop {
            sleep(LOOK_AGAIN).await;
            // A database that does not answer says nothing about the token.
            if matches!(self.store().is_good_token(id, now()).await, Ok(false)) {
                return;
            }
        }
    }

    /// Makes a token for a principal of the actor's tenant, which is made when it is new. The
    /// text cannot be had again.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a role above the actor's own; [`Error::Invalid`].
    pub async fn make_token(
        &self,
        actor: &Actor,
        principal: &str,
        role: Role,
        name: &str,
        expires_at: Option<Timestamp>,
    ) -> Result<(Token, TokenText), Error> {
        Self::manages(actor)?;
        actor.needs(role)?;
        if name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(Error::invalid("name", format!("has at most {NAME_MAX} bytes")));
        }
        if expires_at.is_some_and(|end| end <= now()) {
            return Err(Error::invalid("expires_at", "lies in the past"));
        }
        let principal = self.principal_or_new(&actor.tenant, principal).await?;
        let (tenant, principal) = (actor.tenant.id, principal.id);
        let new = NewToken { tenant, principal, role, name: name.to_owned(), expires_at };
        let (token, text) = self.store().add_token(&new, now()).await?;
        let detail = json!({ "name": name, "role": role.as_str() });
        self.audit(actor, "token.make", token.id, detail).await?;
        Ok((token, text))
    }

    /// Lists the tokens of the actor's tenant, without their texts.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn tokens(
        &self,
        actor: &Actor,
        after: Uuid,
        limit: u32,
    ) -> Result<Vec<Token>, Error> {
        Self::manages(actor)?;
        Ok(self.store().tokens(actor.tenant.id, after, limit).await?)
    }

    /// Revokes a token for good.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::NotFound`] when there is none that was not revoked.
    pub async fn revoke_token(&self, actor: &Actor, id: Uuid) -> Result<(), Error> {
        Self::manages(actor)?;
        if !self.store().revoke_token(actor.tenant.id, id, now()).await? {
            return Err(Error::not_found("token", id));
        }
        self.audit(actor, "token.revoke", id, serde_json::Value::Null).await
    }
}
