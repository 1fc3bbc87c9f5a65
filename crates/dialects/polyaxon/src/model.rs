//! What the dialect keeps beside builds: its documents, and where they are found.

use ashlar_core::Digest;
use ashlar_core::Timestamp;
use ashlar_core::journal::Record;
use ashlar_service::DocumentType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::DIALECT;
use crate::query::{Field, Subject};
use crate::statuses::{Projection, Status};

/// The counter of projects.
pub(crate) const PROJECT_NUMBERS: &str = "projects";
/// The one counter that builds and their statuses draw from.
pub(crate) const NUMBERS: &str = "builds-and-statuses";
/// Names of projects, by tenant.
pub(crate) const PROJECT_NAMES: &str = "project";
/// Numbers of builds, by tenant.
pub(crate) const BUILD_NUMBERS: &str = "build";
/// The index by which things of a project are found.
pub(crate) const BY_PROJECT: &str = "project";
/// The index by which things are found that are not shown.
pub(crate) const BY_SHOWN: &str = "shown";
/// The label of builds that lists go by, so that the store can count and page them: the project
/// while the build is shown there, [`ARCHIVED`] when it was put away.
pub(crate) const LISTED: &str = "polyaxon.listed";
/// The value of [`LISTED`] of a build that was put away.
pub(crate) const ARCHIVED: &str = "archived";
/// The index by which a user's bookmarks are found.
pub(crate) const BY_USER: &str = "user";

/// Returns the value of [`LISTED`] of the builds that a project shows.
pub(crate) fn listed_in(project: Uuid) -> String {
    project.simple().to_string()
}

/// Returns the kind of the names of a project's builds.
pub(crate) fn build_names(project: Uuid) -> String {
    format!("build-name:{}", project.simple())
}

/// Returns an id that only these parts have.
pub(crate) fn derived(parts: &[&[u8]]) -> Uuid {
    let mut hasher = ashlar_core::Hasher::new();
    for part in parts {
        hasher.field(part);
    }
    let digest = hasher.finish();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Whether a thing is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shown {
    /// It is.
    #[default]
    Yes,
    /// Among what was put away.
    Archived,
    /// Nowhere; it is on its way out.
    Deleted,
}

impl Shown {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Archived => "archived",
            Self::Deleted => "deleted",
        }
    }

    /// Returns the key of what is not shown in [`BY_SHOWN`].
    fn key(self) -> Option<(&'static str, String)> {
        (self != Self::Yes).then(|| (BY_SHOWN, self.word().to_owned()))
    }
}

/// A project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Project {
    pub(crate) number: u64,
    pub(crate) name: String,
    /// The scope of its builds, which stays when the name changes.
    pub(crate) scope: String,
    pub(crate) description: Option<String>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) is_public: bool,
    pub(crate) readme: Option<String>,
    /// The newest commit of its code.
    pub(crate) head: Option<String>,
    #[serde(default)]
    pub(crate) shown: Shown,
}

impl DocumentType for Project {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "project";

    fn keys(&self) -> Vec<(&'static str, String)> {
        self.shown.key().into_iter().collect()
    }
}

/// A state of a project's code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub(crate) project: Uuid,
    pub(crate) sha: String,
    pub(crate) parent: Option<String>,
    /// The context that holds its files.
    pub(crate) tree: Digest,
}

impl Commit {
    /// Makes the commit that follows another.
    pub(crate) fn new(project: Uuid, parent: Option<String>, tree: Digest) -> Self {
        let mut hasher = ashlar_core::Hasher::new();
        hasher.field(project.as_bytes()).field(parent.as_deref().unwrap_or(""));
        hasher.field(tree.as_bytes());
        let sha = hasher.finish().hex()[..SHA_DIGITS].to_owned();
        Self { project, sha, parent, tree }
    }

    /// Returns the id of a project's commit.
    pub(crate) fn id(project: Uuid, sha: &str) -> Uuid {
        derived(&[b"commit", project.as_bytes(), sha.as_bytes()])
    }
}

/// Commits look like git's.
const SHA_DIGITS: usize = 40;

impl DocumentType for Commit {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "commit";

    fn keys(&self) -> Vec<(&'static str, String)> {
        vec![(BY_PROJECT, self.project.to_string())]
    }
}

/// What lists show of a build beside its record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Build {
    pub(crate) number: u64,
    pub(crate) project: Uuid,
    pub(crate) user: String,
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) is_managed: bool,
    pub(crate) backend: Option<String>,
    pub(crate) commit: Option<String>,
    #[serde(default)]
    pub(crate) shown: Shown,
    /// Whether it may stand for an equal build.
    pub(crate) valid: bool,
    pub(crate) patched_at: Option<Timestamp>,
    /// What somebody outside said of a build that is not managed.
    pub(crate) outside: Option<Outside>,
}

/// What the posted statuses of a build come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outside {
    pub(crate) status: Status,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
}

impl DocumentType for Build {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "build";

    fn keys(&self) -> Vec<(&'static str, String)> {
        let project = (BY_PROJECT, self.project.to_string());
        [Some(project), self.shown.key()].into_iter().flatten().collect()
    }
}

/// What only a build's own page shows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Details {
    pub(crate) content: Option<String>,
    pub(crate) config: Option<Value>,
    pub(crate) resources: Option<Value>,
    pub(crate) dockerfile: Option<String>,
    /// Whether the Dockerfile is the template's.
    #[serde(default)]
    pub(crate) generated: bool,
    /// The specification names a Dockerfile that is not in the code.
    #[serde(default)]
    pub(crate) dockerfile_missing: bool,
    /// The code reference that somebody posted.
    pub(crate) code_reference: Option<Value>,
}

impl DocumentType for Details {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "build-details";

    fn keys(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// A build's statuses as far as somebody has looked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StatusNumbers {
    /// The rows' numbers, in their order.
    pub(crate) numbers: Vec<u64>,
    /// The journal's entry to go on from.
    pub(crate) next: u64,
    pub(crate) projection: Option<Projection>,
}

impl DocumentType for StatusNumbers {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "build-statuses";

    fn keys(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// A bookmark of a user. One that was taken back stays, disabled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bookmark {
    pub(crate) user: Uuid,
    /// `build` or `project`.
    pub(crate) what: String,
    pub(crate) target: Uuid,
    pub(crate) enabled: bool,
}

impl Bookmark {
    /// Returns the id of a user's bookmark of a thing.
    pub(crate) fn id(user: Uuid, target: Uuid) -> Uuid {
        derived(&[b"bookmark", user.as_bytes(), target.as_bytes()])
    }
}

impl DocumentType for Bookmark {
    const DIALECT: &'static str = DIALECT;
    const KIND: &'static str = "bookmark";

    fn keys(&self) -> Vec<(&'static str, String)> {
        vec![(BY_USER, format!("{}:{}", self.what, self.user))]
    }
}

/// A project with its place.
#[derive(Debug, Clone)]
pub(crate) struct FoundProject {
    pub(crate) id: Uuid,
    pub(crate) version: u64,
    /// The name of whoever owns it, as paths have it.
    pub(crate) owner: String,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) project: Project,
}

/// A build with its record and its project.
#[derive(Debug, Clone)]
pub(crate) struct FoundBuild {
    pub(crate) version: u64,
    pub(crate) build: Build,
    pub(crate) record: std::sync::Arc<Record>,
    pub(crate) status: Status,
    pub(crate) started_at: Option<Timestamp>,
}

impl FoundBuild {
    pub(crate) fn id(&self) -> ashlar_core::BuildId {
        self.record.submission.build
    }

    pub(crate) fn finished_at(&self) -> Option<Timestamp> {
        match &self.build.outside {
            Some(outside) if outside.finished_at.is_some() => outside.finished_at,
            _ => self.record.finished_at,
        }
    }

    pub(crate) fn updated_at(&self) -> Timestamp {
        let moved = self.record.finished_at.unwrap_or(self.record.updated_at);
        self.build.patched_at.map_or(moved, |patched| patched.max(moved))
    }
}

/// A build as queries and sorts see it.
pub(crate) struct Queried<'a>(pub(crate) &'a FoundProject, pub(crate) &'a FoundBuild);

impl Subject for Queried<'_> {
    fn texts(&self, field: Field) -> Vec<String> {
        let Self(project, found) = self;
        let build = &found.build;
        match field {
            Field::Id => vec![build.number.to_string()],
            Field::Name => build.name.iter().cloned().collect(),
            Field::Description => build.description.iter().cloned().collect(),
            Field::Status => vec![found.status.as_str().to_owned()],
            Field::Tags => build.tags.clone().unwrap_or_default(),
            Field::User => vec![build.user.clone()],
            Field::ProjectName => vec![project.project.name.clone()],
            Field::ProjectId => vec![project.project.number.to_string()],
            Field::Project => {
                vec![project.project.name.clone(), project.project.number.to_string()]
            }
            Field::Commit => build.commit.iter().cloned().collect(),
            Field::Backend => build.backend.iter().cloned().collect(),
            Field::CreatedAt | Field::UpdatedAt | Field::StartedAt | Field::FinishedAt => {
                Vec::new()
            }
        }
    }

    fn time(&self, field: Field) -> Option<Timestamp> {
        let found = self.1;
        match field {
            Field::CreatedAt => Some(found.record.created_at),
            Field::UpdatedAt => Some(found.updated_at()),
            Field::StartedAt => found.started_at,
            Field::FinishedAt => found.finished_at(),
            _ => None,
        }
    }
}
