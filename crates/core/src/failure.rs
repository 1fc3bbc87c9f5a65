//! Why a build failed: a stable kind, whose fault it is, and words for people.

use serde::{Deserialize, Serialize};

use crate::frontend::Location;
use crate::graph::StepId;

/// What went wrong; the words are stable, dialects and counters build on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The definition is wrong.
    Definition,
    /// A base image, repository, address or context could not be resolved or fetched.
    Source,
    /// A command ended with a code that means failure, or a file operation could not be done.
    Step,
    /// A start command or probe did not become ready.
    Readiness,
    /// A limit on memory, processes, disk, output or time was hit.
    Limit,
    /// The result could not be written or pushed.
    Export,
    /// Credentials were refused.
    Auth,
    /// The worker was lost and no attempts are left.
    Interrupted,
    /// Something in the service itself broke.
    Internal,
}

impl FailureKind {
    /// Returns the word used in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Definition => "definition",
            Self::Source => "source",
            Self::Step => "step",
            Self::Readiness => "readiness",
            Self::Limit => "limit",
            Self::Export => "export",
            Self::Auth => "auth",
            Self::Interrupted => "interrupted",
            Self::Internal => "internal",
        }
    }

    /// Says whether the one who asked for the build can mend it.
    pub const fn is_users(self) -> bool {
        !matches!(self, Self::Interrupted | Self::Internal)
    }
}

/// Everything that is known about a failure. All texts are meant for the build's owner: no host
/// paths, no values of secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// The command or operation that failed, as people see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The command's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The limit that was hit, for example `memory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// The most memory that the step's processes used, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Where in the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// The last lines that the step wrote, oldest first, at most [`LAST_LINES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
    /// The blob store that several machines share did not answer: the same build may succeed later.
    /// For whoever decides what becomes of the build, and in no record.
    #[serde(skip)]
    pub store_away: bool,
}

/// The most lines of output that a failure quotes.
pub const LAST_LINES_MAX: usize = 20;

impl Failure {
    /// Makes a failure with nothing but a kind and a sentence.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            step: None,
            command: None,
            exit_code: None,
            limit: None,
            peak_memory_bytes: None,
            location: None,
            last_lines: Vec::new(),
            store_away: false,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}

impl std::error::Error for Failure {}

impl From<crate::frontend::Diagnostic> for Failure {
    fn from(d: crate::frontend::Diagnostic) -> Self {
        let place = crate::frontend::Diagnostic { hint: None, ..d.clone() }.to_string();
        Self { hint: d.hint, location: d.location, ..Self::new(FailureKind::Definition, place) }
    }
}
