//! Sessions of browsers: what a login gives in place of the token that it was made with.
//!
//! A session is a row beside those of tokens, with a text that is no token: no API takes it. It ends
//! by itself, at a logout, when it is revoked as tokens are, and with the token it was made with.

use std::time::Duration;

use ashlar_core::Timestamp;
use ashlar_records::{NewToken, Token, TokenText, now};
use serde_json::Value;
use uuid::Uuid;

use crate::{Actor, Error, Service};

/// How long a session lasts at most.
pub const SESSION_MAX: Duration = Duration::from_secs(12 * 3600);
/// What texts of sessions begin with, and those of tokens do not.
const PREFIX: &str = "session_";
/// What names of sessions begin with; the token that they hang on follows.
const NAME: &str = "web session of ";
const NO_SESSION: &str = "the session has ended; log in again";

/// Says whether a text is one of a session, and so no token.
pub(crate) fn is_session(text: &str) -> bool {
    text.starts_with(PREFIX)
}

impl Service {
    /// Begins a session for whoever holds a token; returns its text, which cannot be had again.
    ///
    /// # Errors
    /// As [`Service::authenticate`].
    pub async fn log_in(&self, token: &str) -> Result<TokenText, Error> {
        let actor = self.authenticate(token).await?;
        let (tenant, principal) = (actor.tenant.id, actor.principal.id);
        let began = now();
        // Who never logs out leaves them behind.
        self.store().forget_ended_tokens((tenant, principal), NAME, began).await?;
        let nanos = i64::try_from(SESSION_MAX.as_nanos()).unwrap_or(i64::MAX);
        let expires_at = Some(Timestamp::from_nanos(began.nanos().saturating_add(nanos)));
        let name = format!("{NAME}{}", self.hangs_on(&actor));
        let new = NewToken { tenant, principal, role: actor.role, name, expires_at };
        let text = TokenText::new(format!("{PREFIX}{}", TokenText::random()?.expose()));
        let session = self.store().put_token(&new, &text, began).await?;
        self.audit(&actor, "session.begin", session.id, Value::Null).await?;
        Ok(text)
    }

    /// Returns who a session is of.
    ///
    /// # Errors
    /// As [`Service::authenticate`].
    pub async fn session(&self, text: &str) -> Result<Actor, Error> {
        let Some(actor) = self.session_holder(text).await? else {
            return Err(self.unknown(NO_SESSION));
        };
        self.rates().check(actor.tenant.id)?;
        Ok(actor)
    }

    /// Ends a session, if it is one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn log_out(&self, text: &str) -> Result<(), Error> {
        let Some(token) = self.session_row(text).await? else { return Ok(()) };
        self.store().remove_token(text).await?;
        if let Some(actor) = self.token_actor(&token).await? {
            self.audit(&actor, "session.end", token.id, Value::Null).await?;
        }
        Ok(())
    }

    async fn session_row(&self, text: &str) -> Result<Option<Token>, Error> {
        if !is_session(text) {
            return Ok(None);
        }
        Ok(self.store().authenticate(text, now()).await?)
    }

    async fn session_holder(&self, text: &str) -> Result<Option<Actor>, Error> {
        let Some(row) = self.session_row(text).await? else { return Ok(None) };
        let Some(actor) = self.token_actor(&row).await? else { return Ok(None) };
        let Some(on) = row.name.strip_prefix(NAME) else { return Ok(None) };
        if on == self.hangs_on(self.admin()) {
            return Ok(Some(Actor { token: None, ..actor }));
        }
        let Ok(id) = on.parse::<Uuid>() else { return Ok(None) };
        let token = self.store().token(row.tenant, id).await?;
        let good = token.is_some_and(|token| token.is_good(now()));
        Ok(good.then_some(Actor { token: Some(id), ..actor }))
    }

    /// Returns what names the token that an actor came with. The admin's own has no row: a part of
    /// its digest stands for it, so that its sessions end when the operator changes it.
    fn hangs_on(&self, actor: &Actor) -> String {
        match actor.token {
            Some(id) => id.to_string(),
            None => format!("admin {}", &self.admin_hash().hex()[..16]),
        }
    }
}
