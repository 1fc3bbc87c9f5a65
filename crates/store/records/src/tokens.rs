//! Tokens: random, shown once, stored as their hash. They have 256 random bits, so a plain hash
//! is as good as a slow one, and the look-up by hash takes the same time for all wrong tokens.

use std::fmt;

use ashlar_core::identity::Role;
use ashlar_core::{Digest, PrincipalId, TenantId, Timestamp};
use uuid::Uuid;

use crate::db::{DatabaseError, Row, args};
use crate::{Error, Store, random};

/// What tokens begin with, so that scanners for leaked secrets know them.
pub const PREFIX: &str = "ashlar_";
/// Tokens that one look returns at most.
pub const TOKENS_MAX: u32 = 1000;
/// The longest text that is looked at as a token, in bytes.
const TOKEN_BYTES_MAX: usize = 1024;

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id, by which it is revoked.
    pub id: Uuid,
    /// For whom.
    pub tenant: TenantId,
    /// Who acts with it.
    pub principal: PrincipalId,
    /// What it may do.
    pub role: Role,
    /// A name for people.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    /// Says whether the token is good at a time.
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// For whom.
    pub tenant: TenantId,
    /// Who acts with it.
    pub principal: PrincipalId,
    /// What it may do.
    pub role: Role,
    /// A name for people.
    pub name: String,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
}

/// The text of a token, for its owner's eyes.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(String);

impl TokenText {
    /// Wraps a text that was made elsewhere, for example by an operator.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Draws a new text.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn random() -> Result<Self, Error> {
        Ok(Self(format!("{PREFIX}{}", Digest::from_bytes(random::bytes()?).hex())))
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(hidden)")
    }
}

const COLUMNS: &str =
    "SELECT id, tenant, principal, role, name, created_at, expires_at, revoked_at FROM tokens";

fn token(row: &Row) -> Result<Token, Error> {
    let role = row.text(3)?;
    Ok(Token {
        id: row.uuid(0)?,
        tenant: row.tenant(1)?,
        principal: PrincipalId::from_uuid(row.uuid(2)?),
        role: Role::parse(&role)
            .ok_or_else(|| Error::damaged("a token", format!("unknown role '{role}'")))?,
        name: row.text(4)?,
        created_at: row.time(5)?,
        expires_at: row.maybe_time(6)?,
        revoked_at: row.maybe_time(7)?,
    })
}

impl Store {
    /// Makes a token. Its text cannot be had again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_token(
        &self,
        new: &NewToken,
        now: Timestamp,
    ) -> Result<(Token, TokenText), Error> {
        let text = TokenText::random()?;
        self.put_token(new, &text, now).await.map(|token| (token, text))
    }

    /// Makes a token with a given text, or returns the one that has it already.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_token(
        &self,
        new: &NewToken,
        text: &TokenText,
        now: Timestamp,
    ) -> Result<Token, Error> {
        let id = random::new_build_id(now)?.uuid();
        let sql = "INSERT INTO tokens \
                   (id, hash, tenant, principal, role, name, created_at, expires_at) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (hash) DO NOTHING";
        let (hash, role) = (Digest::of(text.expose()), new.role.as_str());
        let values =
            args![id, hash, new.tenant, new.principal, role, &new.name, now, new.expires_at];
        self.db.run(sql, values).await?;
        let row = self.by_text(text.expose()).await?;
        row.ok_or(Error::Database(DatabaseError::NoRow))
    }

    /// Returns what a text stands for, when it is a token that is good now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn authenticate(&self, text: &str, now: Timestamp) -> Result<Option<Token>, Error> {
        if text.len() > TOKEN_BYTES_MAX {
            return Ok(None);
        }
        Ok(self.by_text(text).await?.filter(|token| token.is_good(now)))
    }

    async fn by_text(&self, text: &str) -> Result<Option<Token>, Error> {
        let sql = format!("{COLUMNS} WHERE hash = $1");
        let row = self.db.maybe(sqlx::AssertSqlSafe(sql), args![Digest::of(text)]).await?;
        row.map(|row| token(&row)).transpose()
    }

    /// Revokes a tenant's token for good; says whether there is one that was not revoked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_token(
        &self,
        tenant: TenantId,
        id: Uuid,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let sql = "UPDATE tokens SET revoked_at = $3 \
                   WHERE id = $1 AND tenant = $2 AND revoked_at IS NULL";
        Ok(self.db.run(sql, args![id, tenant, now]).await? > 0)
    }

    /// Returns a tenant's token by its id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token(&self, tenant: TenantId, id: Uuid) -> Result<Option<Token>, Error> {
        let sql = format!("{COLUMNS} WHERE id = $1 AND tenant = $2");
        let row = self.db.maybe(sqlx::AssertSqlSafe(sql), args![id, tenant]).await?;
        row.map(|row| token(&row)).transpose()
    }

    /// Says whether a token, of whatever tenant, is good now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn is_good_token(&self, id: Uuid, now: Timestamp) -> Result<bool, Error> {
        let sql = format!("{COLUMNS} WHERE id = $1");
        let row = self.db.maybe(sqlx::AssertSqlSafe(sql), args![id]).await?;
        let token = row.map(|row| token(&row)).transpose()?;
        Ok(token.is_some_and(|token| token.is_good(now)))
    }

    /// Removes the token with a text, as if it had never been; says whether there was one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn remove_token(&self, text: &str) -> Result<bool, Error> {
        let sql = "DELETE FROM tokens WHERE hash = $1";
        Ok(self.db.run(sql, args![Digest::of(text)]).await? > 0)
    }

    /// Removes those of a principal's tokens whose name begins with a text and that have ended by
    /// themselves.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_ended_tokens(
        &self,
        (tenant, principal): (TenantId, PrincipalId),
        name: &str,
        now: Timestamp,
    ) -> Result<u64, Error> {
        let sql = "DELETE FROM tokens WHERE tenant = $1 AND principal = $2 AND expires_at <= $3 \
                   AND name LIKE $4";
        self.db.run(sql, args![tenant, principal, now, format!("{name}%")]).await
    }

    /// Lists a tenant's tokens in the order in which they were made, after an id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tokens(
        &self,
        tenant: TenantId,
        after: Uuid,
        limit: u32,
    ) -> Result<Vec<Token>, Error> {
        let sql = format!("{COLUMNS} WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3");
        let values = args![tenant, after, limit.min(TOKENS_MAX)];
        let rows = self.db.all(sqlx::AssertSqlSafe(sql), values).await?;
        rows.iter().map(token).collect()
    }
}
