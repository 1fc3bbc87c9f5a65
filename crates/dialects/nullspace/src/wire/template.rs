//! Templates, their tags and aliases, claims and namespaces.

use ashlar_core::Timestamp;
use serde::Serialize;

use super::RuntimeDefaults;

/// A logical template.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TemplateInfo {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) builtin: bool,
    pub(crate) tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_tag: Option<String>,
    pub(crate) canonical_ref: String,
    pub(crate) namespace_slug: String,
    pub(crate) visibility: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runtime_defaults: Option<RuntimeDefaults>,
}

impl TemplateInfo {
    /// The keys that `fields` may name.
    pub(crate) const FIELDS: [&'static str; 10] = [
        "id",
        "name",
        "description",
        "builtin",
        "tags",
        "default_tag",
        "canonical_ref",
        "namespace_slug",
        "visibility",
        "runtime_defaults",
    ];
}

/// A tag and the build that it points at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TagInfo {
    pub(crate) tag: String,
    pub(crate) build_id: String,
    pub(crate) created_at: Timestamp,
}

/// An earlier name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct AliasInfo {
    pub(crate) alias_ref: String,
    pub(crate) created_at: Timestamp,
}

/// A name that is kept for the one who holds the token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NameClaim {
    pub(crate) claim_token: String,
    pub(crate) canonical_ref: String,
    pub(crate) expires_at: Timestamp,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NamespaceInfo {
    pub(crate) slug: String,
    pub(crate) kind: &'static str,
    pub(crate) is_default: bool,
}
