//! The dialect's own objects beside builds.

use std::collections::BTreeMap;

use ashlar_core::{BuildId, Digest, TenantId, Timestamp};
use ashlar_service::DocumentType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::DIALECT;
use crate::wire::{OciMetadata, RuntimeDefaults};

/// The index of builds by template.
pub(crate) const BY_TEMPLATE: &str = "template";
/// The index of builds whose end has not changed their template yet, by template.
pub(crate) const BY_UNSETTLED: &str = "unsettled";
/// The index of templates that are deleted, and the one value in it.
pub(crate) const BY_DELETED: &str = "deleted";
/// As above.
pub(crate) const DELETED: &str = "yes";
/// The index of things by name.
pub(crate) const BY_NAME: &str = "name";

/// A logical template. Its id is the template's; its names are aliases that lead to it. Its tags are
/// aliases too, which lead to builds: they keep these from being let go (see `names`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Template {
    /// Its name within the namespace.
    pub(crate) name: String,
    /// Whether others see it.
    pub(crate) public: bool,
    /// Earlier names that still lead to it.
    #[serde(default)]
    pub(crate) aliases: Vec<Alias>,
    /// Its tags; one that was removed is kept, so that a build that ended earlier and is looked at
    /// later does not bring it back.
    #[serde(default)]
    pub(crate) tags: BTreeMap<String, TagState>,
    /// The newest build that succeeded, and when.
    #[serde(default)]
    pub(crate) newest: Option<(BuildId, Timestamp)>,
    /// Whether it is deleted: nobody finds it, and it stays until the last of its builds is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) deleted: bool,
}

/// An earlier name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Alias {
    pub(crate) name: String,
    pub(crate) at: Timestamp,
}

/// Where a tag points since when; nowhere when it was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TagState {
    pub(crate) build: Option<BuildId>,
    pub(crate) at: Timestamp,
}

impl Template {
    /// Returns a template with a name and nothing else.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            public: false,
            aliases: Vec::new(),
            tags: BTreeMap::new(),
            newest: None,
            deleted: false,
        }
    }

    /// Returns its earlier names and its name; none of a template that is deleted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let aliases = self.aliases.iter().map(|a| a.name.as_str());
        aliases.chain([self.name.as_str()]).filter(|_| !self.deleted)
    }

    /// Takes it from everybody: its names, its tags, its visibility.
    pub(crate) fn delete(&mut self, at: Timestamp) {
        (self.deleted, self.public) = (true, false);
        self.tags.values_mut().for_each(|tag| *tag = TagState { build: None, at });
    }

    /// Says whether a name, or an earlier one, is its own.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.names().any(|n| n == name)
    }

    /// Returns the build that a tag points at.
    pub(crate) fn tag(&self, tag: &str) -> Option<BuildId> {
        self.tags.get(tag)?.build
    }

    /// Returns the tags that point somewhere.
    pub(crate) fn active_tags(&self) -> impl Iterator<Item = (&str, BuildId, Timestamp)> {
        self.tags.iter().filter_map(|(tag, state)| Some((tag.as_str(), state.build?, state.at)))
    }

    /// Lets a tag point somewhere, or nowhere, unless it was changed later than `at`.
    pub(crate) fn move_tag(&mut self, tag: &str, build: Option<BuildId>, at: Timestamp) {
        let state = TagState { build, at };
        let current = self.tags.entry(tag.to_owned()).or_insert(state);
        if current.at <= at {
            *current = state;
        }
    }
}

impl DocumentType for Template {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "template";

    fn keys(&self) -> Vec<(&'static str, String)> {
        let deleted = self.deleted.then(|| (BY_DELETED, DELETED.to_owned()));
        deleted.into_iter().collect()
    }
}

/// What the dialect knows of a build beyond its record. Comes and goes with the build, whose id is
/// its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// The template.
    pub(crate) template: Uuid,
    /// Tags that move to the build when it succeeds.
    pub(crate) tags: Vec<String>,
    /// The first build of a chain of retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) original: Option<BuildId>,
    /// Who asked.
    pub(crate) triggered_by: String,
    /// The wish for a machine's size, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) build_config: Option<Value>,
    pub(crate) source_digest: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) context_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dockerfile_digest: Option<String>,
    /// How the context's files were known.
    pub(crate) files: FileCounts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start_cmd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) readiness: Option<Value>,
    /// How the template that it stands on is started: holds where the build says nothing itself.
    #[serde(default, skip_serializing_if = "Inherited::is_empty")]
    pub(crate) inherited: Inherited,
    /// The registry of the base image, when it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base_host: Option<String>,
    /// The kind of the credentials for the base image: a retry needs them again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base_auth: Option<String>,
    /// Whether its end has changed the template already.
    #[serde(default)]
    pub(crate) settled: bool,
    /// How the artifact runs, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) runtime_defaults: Option<RuntimeDefaults>,
    /// What the image says of itself, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oci_metadata: Option<OciMetadata>,
}

/// What a template takes over from the one that it stands on and an image has no place for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Inherited {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) start_cmd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) readiness: Option<Value>,
}

impl Inherited {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Attempt {
    /// Says whether the build ends with a start command or a probe.
    pub(crate) const fn is_started(&self) -> bool {
        self.start_cmd.is_some() || self.readiness.is_some()
    }

    /// Returns how the artifact is started: as the build says, else as its base says.
    pub(crate) fn effective(&self) -> Inherited {
        let base = &self.inherited;
        Inherited {
            start_cmd: self.start_cmd.clone().or_else(|| base.start_cmd.clone()),
            readiness: self.readiness.clone().or_else(|| base.readiness.clone()),
        }
    }
}

impl DocumentType for Attempt {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "attempt";

    fn keys(&self) -> Vec<(&'static str, String)> {
        let template = self.template.simple().to_string();
        let mut keys = vec![(BY_TEMPLATE, template.clone())];
        if !self.settled {
            keys.push((BY_UNSETTLED, template));
        }
        keys
    }
}

/// Counts of a context's files by how they were known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct FileCounts {
    pub(crate) known: u32,
    pub(crate) new: u32,
    pub(crate) forced: u32,
}

/// How a context's files were known, each with its path: the first entries of a build's log.
/// Comes and goes with the build, whose id is its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct AttemptFiles {
    pub(crate) files: Vec<(String, FileUse)>,
}

impl AttemptFiles {
    pub(crate) fn counts(&self) -> FileCounts {
        let mut counts = FileCounts::default();
        for (_, known) in &self.files {
            match known {
                FileUse::Known => counts.known += 1,
                FileUse::New => counts.new += 1,
                FileUse::Forced => counts.forced += 1,
            }
        }
        counts
    }
}

impl DocumentType for AttemptFiles {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "files";

    fn keys(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// How a file's content was known when a build named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileUse {
    /// An earlier build had it.
    Known,
    /// No earlier build had it.
    New,
    /// It was uploaded anew on purpose, and this is the first build that has it.
    Forced,
}

/// A generation of a blob that a build has named. Its id is drawn from the generation's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamedBlob {
    pub(crate) blob_id: String,
}

impl DocumentType for NamedBlob {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "named_blob";

    fn keys(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// A forced upload that has arrived. Its id is the generation's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ForcedBlob {
    pub(crate) digest: Digest,
}

impl DocumentType for ForcedBlob {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "forced_blob";

    fn keys(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// A name that is kept for whoever holds the token, which is its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) name: String,
    pub(crate) expires_at: Timestamp,
}

impl DocumentType for Claim {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "claim";

    fn keys(&self) -> Vec<(&'static str, String)> {
        vec![(BY_NAME, self.name.clone())]
    }
}

/// A template that all tenants see: belongs to no tenant, has the template's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublicTemplate {
    pub(crate) owner: TenantId,
    /// The owner's namespace.
    pub(crate) namespace: String,
    /// The name and the earlier ones.
    pub(crate) names: Vec<String>,
}

impl DocumentType for PublicTemplate {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "public";

    fn keys(&self) -> Vec<(&'static str, String)> {
        self.names.iter().map(|n| (BY_NAME, format!("{}/{n}", self.namespace))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_later_wins_over_what_is_seen_later() {
        let (old, new) = (BuildId::from_parts(1, [0; 10]), BuildId::from_parts(2, [0; 10]));
        let at = Timestamp::from_nanos;
        let mut template = Template::new("app");
        template.move_tag("default", Some(new), at(20));
        template.move_tag("default", Some(old), at(10));
        assert_eq!(template.tag("default"), Some(new));
        template.move_tag("default", None, at(30));
        template.move_tag("default", Some(old), at(25));
        assert_eq!(template.tag("default"), None);
        assert_eq!(template.active_tags().count(), 0);
        template.move_tag("default", Some(old), at(31));
        assert_eq!(template.tag("default"), Some(old));
    }
}
