//! Who somebody is: tokens and tenants.

use ashlar_core::Timestamp;
use ashlar_core::identity::Role;
use serde::{Deserialize, Serialize};

pub use ashlar_core::identity::{Principal, Tenant};

use crate::{Client, Error};

/// Records of one answer.
const PAGE: usize = 100;

/// Whose token is used.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Whoami {
    /// For whom they act.
    pub tenant: String,
    /// The tenant's id.
    pub tenant_id: String,
    /// Who they are.
    pub principal: String,
    /// Their address.
    pub email: String,
    /// What they may do.
    pub role: Role,
}

/// A token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: String,
    /// Who acts with it: a principal's id.
    pub principal: String,
    /// What it allows.
    pub role: Role,
    /// A name for people.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// The token itself, once, when it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// A token to be made.
#[derive(Debug, Clone, Serialize)]
pub struct NewToken {
    /// Who acts with it; made when new.
    pub principal: String,
    /// What it allows.
    pub role: Role,
    /// A name for people.
    pub name: String,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<Token>,
}

#[derive(Deserialize)]
struct Principals {
    principals: Vec<Principal>,
}

#[derive(Deserialize)]
struct Tenants {
    tenants: Vec<Tenant>,
}

impl Client {
    /// Says whose token is used.
    ///
    /// # Errors
    /// [`Error::Token`].
    pub fn whoami(&self) -> Result<Whoami, Error> {
        self.get("the token", &["whoami"], &[])
    }

    /// Makes a token; its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn make_token(&self, new: &NewToken) -> Result<Token, Error> {
        self.post("the token", &["tokens"], new)
    }

    /// Lists the tenant's tokens.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn tokens(&self) -> Result<Vec<Token>, Error> {
        self.all(|after| {
            let page: Tokens = self.get("the tokens", &["tokens"], &query(after))?;
            Ok(page.tokens.into_iter().map(|t| (t.id.clone(), t)).collect())
        })
    }

    /// Lists the tenant's principals: who its tokens act as.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn principals(&self) -> Result<Vec<Principal>, Error> {
        self.all(|after| {
            let page: Principals = self.get("the principals", &["principals"], &query(after))?;
            Ok(page.principals.into_iter().map(|p| (p.name.clone(), p)).collect())
        })
    }

    /// Revokes a token for good.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none.
    pub fn revoke_token(&self, id: &str) -> Result<(), Error> {
        self.delete(&["tokens", id])
    }

    /// Lists the tenants that the caller may know of.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn tenants(&self) -> Result<Vec<Tenant>, Error> {
        self.all(|after| {
            let page: Tenants = self.get("the tenants", &["tenants"], &query(after))?;
            Ok(page.tenants.into_iter().map(|t| (t.name.clone(), t)).collect())
        })
    }

    /// Makes a tenant.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn make_tenant(&self, name: &str) -> Result<Tenant, Error> {
        self.post("the tenant", &["tenants"], &serde_json::json!({ "name": name }))
    }

    /// Reads all pages of a list; each is asked for after the last key of the one before.
    fn all<T>(
        &self,
        read: impl Fn(Option<&str>) -> Result<Vec<(String, T)>, Error>,
    ) -> Result<Vec<T>, Error> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = read(after.as_deref())?;
            let full = page.len() == PAGE;
            let last = page.last().map(|(key, _)| key.clone());
            all.extend(page.into_iter().map(|(_, one)| one));
            if !full || last == after {
                return Ok(all);
            }
            after = last;
        }
    }
}

fn query(after: Option<&str>) -> Vec<(&'static str, String)> {
    let mut query = vec![("limit", PAGE.to_string())];
    query.extend(after.map(|a| ("after", a.to_owned())));
    query
}
