//! Who owns builds and who acts: tenants, principals and what they may do.

use serde::{Deserialize, Serialize};

use crate::{PrincipalId, TenantId};

/// The longest name of a tenant or principal, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// Whoever owns builds apart from all others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, unique; fits `[A-Za-z0-9_-]`.
    pub name: String,
}

/// A person or program that acts for a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Its id.
    pub id: PrincipalId,
    /// For whom it acts.
    pub tenant: TenantId,
    /// Its name, unique within the tenant; fits `[A-Za-z0-9_-]`.
    pub name: String,
    /// Its address; always there, since several dialects show it.
    pub email: String,
}

/// What a principal may do; each role may do all that those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything of its tenant but secrets.
    Reader,
    /// Builds, cancels, and changes what builds are made from.
    Developer,
    /// Manages the tenant: its principals, tokens and settings.
    Owner,
    /// Runs the installation: all tenants.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Developer, Self::Owner, Self::Admin];

    /// Returns the word used in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Developer => "developer",
            Self::Owner => "owner",
            Self::Admin => "admin",
        }
    }

    /// Reads the word used in records.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == text)
    }
}

/// Says whether a text fits as the name of a tenant or principal.
pub fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert!(is_name("Team_1-a") && is_name(&"x".repeat(63)));
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn roles_are_ordered_and_named() {
        assert!(Role::Reader < Role::Developer && Role::Owner < Role::Admin);
        Role::ALL.iter().for_each(|r| assert_eq!(Role::parse(r.as_str()), Some(*r)));
    }
}
