//! Statuses of builds: their words, which may follow which, and how they come out of a journal.

use ashlar_core::Timestamp;
use ashlar_core::failure::{Failure, FailureKind};
use ashlar_core::journal::{Entry, Event, Record};
use ashlar_core::state::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::DIALECT;

/// The longest message of a row, in characters, as the original's column has it.
pub(crate) const MESSAGE_MAX: usize = 256;
/// What is said of a build that is stopped because it is deleted or archived.
pub(crate) const DELETED: &str = "Build is scheduled for deletion.";
const STOPPED: &str = "BuildJob was stopped.";
const ZOMBIE: &str = "BuildJob is in zombie state (no heartbeat was reported).";
const NO_DOCKERFILE: &str = "An error occurred while extracting the dockerfile from the context.";
/// What the original says while the pod is made ready; the words of the documents' example.
const PREPARING: &str = "PodInitializing";

/// A status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Created,
    Resuming,
    Building,
    Scheduled,
    Running,
    Unschedulable,
    Succeeded,
    Failed,
    UpstreamFailed,
    Stopped,
    Skipped,
    Warning,
    Unknown,
}

impl Status {
    pub(crate) const ALL: [Self; 13] = [
        Self::Created,
        Self::Resuming,
        Self::Building,
        Self::Scheduled,
        Self::Running,
        Self::Unschedulable,
        Self::Succeeded,
        Self::Failed,
        Self::UpstreamFailed,
        Self::Stopped,
        Self::Skipped,
        Self::Warning,
        Self::Unknown,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Resuming => "resuming",
            Self::Building => "building",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Unschedulable => "unschedulable",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::UpstreamFailed => "upstream_failed",
            Self::Stopped => "stopped",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    pub(crate) const fn is_done(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::UpstreamFailed | Self::Stopped | Self::Skipped
        )
    }

    const fn is_running(self) -> bool {
        matches!(self, Self::Scheduled | Self::Building | Self::Running)
    }

    /// Says whether the status may come after another (none: as the first). The table of 0.5.
    pub(crate) const fn may_follow(self, last: Option<Self>) -> bool {
        use Status as S;
        let Some(last) = last else { return matches!(self, S::Created | S::Building) };
        match self {
            S::Created => false,
            // The table also names skipped and stopped, but nothing follows a done row.
            S::Resuming => matches!(last, S::Created | S::Warning),
            S::Building => matches!(
                last,
                S::Created
                    | S::Resuming
                    | S::Scheduled
                    | S::Unschedulable
                    | S::Unknown
                    | S::Warning
            ),
            S::Scheduled => matches!(
                last,
                S::Created | S::Building | S::Resuming | S::Unschedulable | S::Unknown | S::Warning
            ),
            S::Running => matches!(
                last,
                S::Created
                    | S::Scheduled
                    | S::Resuming
                    | S::Building
                    | S::Unschedulable
                    | S::Unknown
                    | S::Warning
            ),
            S::Unschedulable => !last.is_done() && !matches!(last, S::Unschedulable),
            S::Succeeded | S::Failed | S::UpstreamFailed | S::Skipped | S::Stopped => {
                !last.is_done()
            }
            S::Warning => !last.is_done() && !matches!(last, S::Warning),
            S::Unknown => !last.is_done() && !matches!(last, S::Unknown),
        }
    }

    /// Returns the status of a managed build from its row alone; nothing when only the journal
    /// knows it, which is so for a build that runs again after its worker was lost.
    pub(crate) const fn of(record: &Record) -> Option<Self> {
        Some(match record.state {
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Stopped,
            State::Skipped => Self::Skipped,
            State::Queued if record.attempt == 0 => Self::Created,
            _ if record.attempt > 1 => return None,
            State::Queued => return None,
            State::Preparing => Self::Building,
            State::Running | State::Exporting => Self::Running,
        })
    }
}

/// One row of a build's statuses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) status: Status,
    pub(crate) at: Timestamp,
    pub(crate) message: Option<String>,
    pub(crate) traceback: Option<String>,
    pub(crate) details: Option<Value>,
}

impl Row {
    fn new(status: Status, at: Timestamp, message: Option<&str>) -> Self {
        Self { status, at, message: message.map(cut), traceback: None, details: None }
    }
}

/// A status that somebody posted: what the dialect's note in the journal says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Posted {
    pub(crate) status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traceback: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<Value>,
}

/// Statuses as they come out of a journal, entry by entry. Whatever the table forbids is dropped,
/// so equal rows never follow each other, nothing follows a done row, and what happens again after
/// a worker was lost does not show.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Projection {
    rows: Vec<Row>,
    external: bool,
    dockerfile_missing: bool,
    failure: Option<Failure>,
    cancel_reason: Option<String>,
}

impl Projection {
    /// Begins the projection of a build: one that is driven from outside, or whose Dockerfile was
    /// not in its code.
    pub(crate) fn new(external: bool, dockerfile_missing: bool) -> Self {
        Self { external, dockerfile_missing, ..Self::default() }
    }

    /// Returns the rows so far.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns the newest status.
    pub(crate) fn last(&self) -> Option<Status> {
        self.rows.last().map(|row| row.status)
    }

    /// Returns when the build began, by the dialect's rule.
    pub(crate) fn started_at(&self) -> Option<Timestamp> {
        let running = self.rows.iter().find(|r| r.status == Status::Running);
        running.or_else(|| self.rows.iter().find(|r| r.status.is_running())).map(|r| r.at)
    }

    /// Returns when the build ended.
    pub(crate) fn finished_at(&self) -> Option<Timestamp> {
        self.rows.last().filter(|r| r.status.is_done()).map(|r| r.at)
    }

    /// Takes the next entry of the journal.
    pub(crate) fn feed(&mut self, entry: &Entry) {
        let at = entry.time;
        match &entry.event {
            Event::Submitted(_) => self.push(Row::new(Status::Created, at, None)),
            Event::Claimed { attempt: 1, .. } if !self.external => {
                self.push(Row::new(Status::Scheduled, at, None));
                self.push(Row::new(Status::Building, at, Some(PREPARING)));
            }
            Event::State { to } => self.state(*to, at),
            Event::Failed(failure) => self.failure = Some((**failure).clone()),
            Event::CancelRequested { reason, .. } => self.cancel_reason.clone_from(reason),
            Event::Note { dialect, value } if self.external && dialect == DIALECT => {
                if let Ok(posted) = serde_json::from_value::<Posted>(value.clone()) {
                    let Posted { status, message, traceback, details } = posted;
                    self.push(Row { status, at, message, traceback, details });
                }
            }
            _ => {}
        }
    }

    fn state(&mut self, to: State, at: Timestamp) {
        match to {
            State::Queued | State::Preparing => {}
            State::Running | State::Exporting => self.running(at),
            State::Succeeded => {
                self.running(at);
                self.push(Row::new(Status::Succeeded, at, Some("Completed")));
            }
            State::Failed => {
                let row = self.failed(at);
                self.push(row);
            }
            State::Cancelled => {
                let reason = self.cancel_reason.clone();
                let reason = reason.as_deref().filter(|r| !r.is_empty()).unwrap_or(STOPPED);
                self.push(Row::new(Status::Stopped, at, Some(reason)));
            }
            State::Skipped => self.push(Row::new(Status::Skipped, at, None)),
        }
    }

    /// A build that is answered from a cache never runs here; the original's always had a pod.
    fn running(&mut self, at: Timestamp) {
        if !self.external {
            self.push(Row::new(Status::Running, at, None));
        }
    }

    fn push(&mut self, mut row: Row) {
        if !row.status.may_follow(self.last()) {
            return;
        }
        // Rows made from one entry still have an order, visible in microseconds.
        if let Some(last) = self.rows.last() {
            row.at = row.at.max(Timestamp::from_nanos(last.at.nanos() + 1_000));
        }
        self.rows.push(row);
    }

    fn failed(&self, at: Timestamp) -> Row {
        let Some(failure) = &self.failure else {
            return Row::new(Status::Failed, at, Some("Failed to build job."));
        };
        let (message, traceback) = self.words(failure);
        Row { traceback, details: details(failure), ..Row::new(Status::Failed, at, Some(&message)) }
    }

    fn words(&self, failure: &Failure) -> (String, Option<String>) {
        // The rest quotes the Dockerfile; the log has it.
        let said = failure.message.lines().next().unwrap_or_default().trim_end_matches('.');
        let initialize = |why: &str| format!("Failed to initialize build job ({why}).");
        match failure.kind {
            FailureKind::Interrupted => (ZOMBIE.to_owned(), None),
            FailureKind::Internal => {
                let word = "Could not start build job encountered an internal exception.";
                (word.to_owned(), Some(failure.to_string()))
            }
            FailureKind::Definition | FailureKind::Source if self.dockerfile_missing => {
                (initialize(NO_DOCKERFILE), None)
            }
            FailureKind::Definition | FailureKind::Source | FailureKind::Auth => {
                (initialize(said), None)
            }
            _ => match failure.exit_code {
                // The original's own spelling.
                Some(code) => (format!("exist-code({code})-message({said})"), None),
                None => (said.to_owned(), None),
            },
        }
    }
}

fn details(failure: &Failure) -> Option<Value> {
    let mut details = serde_json::Map::new();
    details.insert("kind".into(), json!(failure.kind.as_str()));
    let texts = [("hint", &failure.hint), ("command", &failure.command), ("limit", &failure.limit)];
    for (name, text) in texts {
        if let Some(text) = text {
            details.insert(name.into(), json!(text));
        }
    }
    if let Some(code) = failure.exit_code {
        details.insert("exit_code".into(), json!(code));
    }
    if !failure.last_lines.is_empty() {
        details.insert("last_lines".into(), json!(failure.last_lines));
    }
    Some(Value::Object(details))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_MAX) {
        None => text.to_owned(),
        Some(_) => text.chars().take(MESSAGE_MAX - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
#[path = "statuses_tests.rs"]
mod tests;
