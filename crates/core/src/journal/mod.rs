//! What happens to a build: one append-only, numbered sequence of entries.
//!
//! Events and log entries share the numbering. The build's row ([`Record`]) is the fold of its
//! entries and nothing else: [`Record::apply`] is the only way in which it changes, and it refuses
//! what the state machine forbids. Bulk log bytes may lie in segments that an entry points to.

mod fold;
pub mod text;

pub use fold::{ArtifactRecord, CacheCounters, Cancellation, Record, Refusal, StepCounts};
pub use text::{LineRun, LogText};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cache::{Bypass, CacheKind, CacheStatus, MissReason};
use crate::failure::Failure;
use crate::graph::StepId;
use crate::state::State;
use crate::{BuildId, Digest, PrincipalId, TenantId, Timestamp, WorkerId};

/// One entry of a build's journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place, from 0, without gaps.
    pub number: u64,
    /// When it was written; strictly after the entry before it.
    pub time: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The build was accepted. Always the first entry, and only there.
    Submitted(Box<Submission>),
    /// A worker took the build; later entries of an older attempt are refused.
    Claimed {
        /// Counts from 1.
        attempt: u32,
        /// Fencing number of this claim; larger than that of any earlier one.
        fence: u64,
        /// Who took it.
        worker: WorkerId,
    },
    /// The attempt was given up and the build waits again.
    Requeued {
        /// Why, for people.
        reason: String,
        /// A server that ends as planned gave the attempt up: it uses up none of those that the
        /// submission allows. Absent in journals from before there was a difference.
        #[serde(default, skip_serializing_if = "is_false")]
        planned: bool,
    },
    /// The build moved on.
    State {
        /// Where to.
        to: State,
    },
    /// The executor that runs the build, when it is decided.
    Executor {
        /// What was asked for, when something was.
        requested: Option<String>,
        /// What runs it.
        ran: String,
        /// Why they differ, when they do.
        reason: Option<String>,
    },
    /// The steps that the definition has.
    Steps {
        /// Their names, the first one's number is 1.
        names: Vec<String>,
    },
    /// A question of the frontend was answered.
    Answered {
        /// The question's JSON.
        question: String,
        /// Digest of the answer's JSON.
        answer: Digest,
    },
    /// All answers that led to the plan lie in a blob, which is needed as long as the build is
    /// there: a retry takes them instead of asking again.
    AnswersKept {
        /// The blob.
        blob: Digest,
    },
    /// A step began to run.
    StepStarted {
        /// Which.
        step: StepId,
    },
    /// A step ended.
    StepEnded {
        /// Which.
        step: StepId,
        /// How.
        outcome: StepOutcome,
        /// The most memory that its processes used, in bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peak_memory_bytes: Option<u64>,
        /// The processor time that its processes used, in nanoseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cpu_nanos: Option<u64>,
    },
    /// A cache was asked, or a result was kept.
    Cache(CacheEvent),
    /// Something was said: by a step, or by the service about the build.
    Log(LogLine),
    /// A stretch of log was moved to the blob store.
    LogSegment {
        /// Number of the first log line in it, counted over the build.
        first_line: u64,
        /// Lines in it.
        lines: u64,
        /// The blob.
        blob: Digest,
    },
    /// An artifact exists.
    Artifact(ArtifactRecord),
    /// An artifact is gone.
    ArtifactRemoved {
        /// Its name.
        name: String,
        /// Why, for people.
        reason: String,
    },
    /// Somebody wants the build to stop. It goes on until a state says otherwise.
    CancelRequested {
        /// Who.
        by: String,
        /// Why, when said.
        reason: Option<String>,
    },
    /// Why the build fails; comes right before the state.
    Failed(Box<Failure>),
    /// A step with an effect outside of the build is about to run.
    EffectBegan {
        /// Which.
        step: StepId,
    },
    /// Labels were set (`Some`) or removed (`None`).
    Labels {
        /// By name.
        changes: BTreeMap<String, Option<String>>,
    },
    /// The build has a new name.
    Renamed {
        /// The name.
        name: String,
    },
    /// Somebody wants the build kept, or no longer.
    Pinned {
        /// Whether.
        pinned: bool,
    },
    /// A user marked the build, or unmarked it.
    Bookmarked {
        /// Who.
        by: PrincipalId,
        /// Whether.
        bookmarked: bool,
    },
    /// A dialect's own note, opaque to all others.
    Note {
        /// Which dialect.
        dialect: String,
        /// What.
        value: serde_json::Value,
    },
}

impl Event {
    /// Says whether the entry may still come after the build has ended.
    pub const fn outlives_the_build(&self) -> bool {
        matches!(
            self,
            Self::ArtifactRemoved { .. }
                | Self::Artifact(_)
                | Self::Labels { .. }
                | Self::Renamed { .. }
                | Self::Pinned { .. }
                | Self::Bookmarked { .. }
                | Self::LogSegment { .. }
                | Self::Note { .. }
        )
    }

    /// Says whether only the worker that holds the build may write the entry.
    pub const fn is_workers(&self) -> bool {
        matches!(
            self,
            Self::State { .. }
                | Self::Executor { .. }
                | Self::Steps { .. }
                | Self::Answered { .. }
                | Self::AnswersKept { .. }
                | Self::StepStarted { .. }
                | Self::StepEnded { .. }
                | Self::Cache(_)
                | Self::EffectBegan { .. }
        )
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

/// What was asked for; frozen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// The build's id.
    pub build: BuildId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Within the tenant, what shares a queue, caches and a history (a project, an app).
    pub scope: String,
    /// Who asked.
    pub principal: PrincipalId,
    /// Through which door: `local`, `native` or a dialect's name.
    pub dialect: String,
    /// Whether it is a build or a run of builds.
    pub kind: BuildKind,
    /// The run that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BuildId>,
    /// The build that it repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<BuildId>,
    /// A name for people.
    pub name: String,
    /// What it is made from, for example `dockerfile`.
    pub source: String,
    /// The frontend's definition, with references in place of secrets.
    pub definition: serde_json::Value,
    /// Digest of the definition.
    pub definition_digest: Digest,
    /// The backend that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// What happens when its worker is lost.
    pub on_lost: OnLost,
    /// Who drives it.
    pub mode: Mode,
    /// Larger goes first within a scope.
    pub priority: i32,
    /// Labels by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Whether a build makes an artifact or drives other builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildKind {
    /// Makes an artifact.
    Build,
    /// Drives other builds.
    Workflow,
}

/// Who drives a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A worker of ours.
    Managed,
    /// Somebody outside reports what happens, under the same rules.
    External,
}

/// What happens to a build whose worker is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum OnLost {
    /// It runs again, in at most this many attempts; never once an effect has begun.
    Requeue {
        /// Attempts in all, but for those that a server gave up because it ended as planned.
        attempts_max: u32,
    },
    /// It fails as interrupted.
    Fail,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// It ran.
    Ran,
    /// An earlier result was taken.
    Cached,
    /// It failed.
    Failed,
    /// It was stopped.
    Cancelled,
}

/// One look-up or store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEvent {
    /// Which cache.
    pub cache: CacheKind,
    /// What became of it.
    pub status: CacheStatus,
    /// The step, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// The step's text or the file's path.
    pub subject: String,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// Why it is a miss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<MissReason>,
    /// Why the cache was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bypass: Option<Bypass>,
}

/// A line, or a piece of one, that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The step that wrote it; none for the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// Where it was written.
    pub stream: Stream,
    /// How much it matters.
    pub level: Level,
    /// The text without its newline. Bytes that are not UTF-8 are kept in `raw`.
    pub text: String,
    /// The exact bytes, when they are not the text's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<Vec<u8>>,
    /// Whether the next entry of the stream goes on with the same line.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Whether the stream ended within the line, with no newline.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unended: bool,
}

impl LogLine {
    /// Makes a line that the service says about the build.
    pub fn service(level: Level, text: impl Into<String>) -> Self {
        let text = text.into();
        let (stream, partial, unended) = (Stream::Service, false, false);
        Self { step: None, stream, level, text, raw: None, partial, unended }
    }
}

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// A step's standard output.
    Stdout,
    /// A step's standard error.
    Stderr,
    /// The service itself.
    Service,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For those who look for the cause of something.
    Debug,
    /// The usual.
    Info,
    /// Worth a look.
    Warn,
    /// The reason for a failure.
    Error,
}

/// Progress that nobody needs afterwards: shown live, never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What moves, for example `pull docker.io/library/busybox:latest 3f4a…`.
    pub subject: String,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all; 0 when not known.
    pub total: u64,
}

/// Takes what happens while a build runs. Called from many threads at once.
pub trait Sink: Send + Sync {
    /// Takes an event; it gets its number and time where it is stored.
    fn event(&self, event: Event);

    /// Takes what a step wrote, many lines at once.
    fn text(&self, text: LogText) {
        text.lines().for_each(|line| self.event(Event::Log(line)));
    }

    /// Takes progress; may drop it.
    fn progress(&self, _progress: Progress) {}
}
