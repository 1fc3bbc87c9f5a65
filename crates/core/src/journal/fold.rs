//! The build's row as the fold of its journal.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{CacheEvent, Entry, Event, LineRun, OnLost, StepOutcome, Submission};
use crate::cache::{CacheKind, CacheStatus};
use crate::failure::Failure;
use crate::state::State;
use crate::{Digest, PrincipalId, Timestamp, WorkerId};

/// All that lists and views show of a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What was asked for.
    pub submission: Submission,
    /// Where it is.
    pub state: State,
    /// Number of the next entry.
    pub next_number: u64,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last began to wait.
    pub queued_at: Timestamp,
    /// When the current attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When the last entry was written.
    pub updated_at: Timestamp,
    /// The current attempt, 0 before the first.
    pub attempt: u32,
    /// Attempts that were given up by plan, which the submission's bound does not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts_spared: u32,
    /// Fencing number of the current attempt, 0 before the first.
    pub fence: u64,
    /// Who has it, or had it last.
    pub worker: Option<WorkerId>,
    /// The name for people now.
    pub name: String,
    /// Labels now.
    pub labels: BTreeMap<String, String>,
    /// What ran it, once that is decided.
    pub executor: Option<String>,
    /// Step counts of the current attempt.
    pub steps: StepCounts,
    /// Cache counters of the current attempt.
    pub cache: CacheCounters,
    /// Artifacts that exist.
    pub artifacts: Vec<ArtifactRecord>,
    /// The blob with all answers to its questions, once there is a plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Digest>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// The first wish to stop it.
    pub cancellation: Option<Cancellation>,
    /// Whether a step with an outside effect has begun.
    pub effect_began: bool,
    /// Whether somebody wants it kept.
    pub pinned: bool,
    /// Who marked it.
    pub bookmarks: BTreeSet<PrincipalId>,
}

/// Steps by how they ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StepCounts {
    /// Steps that the definition has.
    pub total: u32,
    /// Steps that have ended.
    pub ended: u32,
    /// Steps that an earlier result was taken for.
    pub cached: u32,
}

/// Twelve counters: for each cache what its look-ups came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CacheCounters {
    counts: [[u32; 4]; 3],
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl CacheCounters {
    /// Returns how many entries a cache has with a status.
    pub const fn get(&self, cache: CacheKind, status: CacheStatus) -> u32 {
        self.counts[cache as usize][status as usize]
    }

    /// Counts one entry.
    pub const fn count(&mut self, event: &CacheEvent) {
        let counter = &mut self.counts[event.cache as usize][event.status as usize];
        *counter = counter.saturating_add(1);
    }
}

/// Something that a build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// Its name within the build, for example `image`.
    pub name: String,
    /// What it is, for example `image` or `droplet`.
    pub kind: String,
    /// Digest that names it: a manifest's or a blob's.
    pub digest: Digest,
    /// Its size in bytes, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Names that it was given, for example image references.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
}

/// A wish to stop a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// Why, when said.
    pub reason: Option<String>,
}

/// Why an entry does not belong into a journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The first entry must be the submission, and only the first.
    #[error("a journal begins with its submission, and has only one")]
    Submission,
    /// The number is not the next one.
    #[error("entry {got} does not follow; {want} is next")]
    Number {
        /// The number that would fit.
        want: u64,
        /// The number that came.
        got: u64,
    },
    /// The time is not after the last entry's.
    #[error("the entry's time is not after the last one's")]
    Time,
    /// The build has ended; late news is dropped.
    #[error("the build has ended as {0}")]
    Ended(State),
    /// The state machine forbids it.
    #[error("a build cannot go from {from} to {to}")]
    Transition {
        /// Where it is.
        from: State,
        /// Where it would have gone.
        to: State,
    },
    /// A newer attempt has taken over, or none has begun.
    #[error("the attempt with fencing number {got} no longer holds the build ({held} does)")]
    Fenced {
        /// The number that holds the build.
        held: u64,
        /// The number of the writer.
        got: u64,
    },
    /// The attempt was given up, and the next one has not begun.
    #[error("the attempt with fencing number {0} was given up")]
    GivenUp(u64),
    /// A build that has begun an effect is not run again by itself, nor one out of attempts.
    #[error("the build may not run again by itself")]
    NoMoreAttempts,
}

impl Record {
    /// Makes the row from the first entry.
    ///
    /// # Errors
    /// When the entry is not a submission with number 0.
    pub fn begin(entry: &Entry) -> Result<Self, Refusal> {
        let Event::Submitted(submission) = &entry.event else { return Err(Refusal::Submission) };
        if entry.number != 0 {
            return Err(Refusal::Number { want: 0, got: entry.number });
        }
        Ok(Self {
            submission: (**submission).clone(),
            state: State::Queued,
            next_number: 1,
            created_at: entry.time,
            queued_at: entry.time,
            started_at: None,
            finished_at: None,
            updated_at: entry.time,
            attempt: 0,
            attempts_spared: 0,
            fence: 0,
            worker: None,
            name: submission.name.clone(),
            labels: submission.labels.clone(),
            executor: None,
            steps: StepCounts::default(),
            cache: CacheCounters::default(),
            artifacts: Vec::new(),
            answers: None,
            failure: None,
            cancellation: None,
            effect_began: false,
            pinned: false,
            bookmarks: BTreeSet::new(),
        })
    }

    /// Rebuilds the row from a whole journal.
    ///
    /// # Errors
    /// When an entry does not fit; a journal that was written through [`Record::apply`] always does.
    pub fn rebuild<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Result<Self, Refusal> {
        let mut entries = entries.into_iter();
        let mut record = Self::begin(entries.next().ok_or(Refusal::Submission)?)?;
        entries.try_for_each(|e| record.apply(e)).map(|()| record)
    }

    /// Checks that a writer with fencing number `fence` (none: not a worker) may write `event`.
    ///
    /// # Errors
    /// When another attempt holds the build, or none since this one was given up.
    pub fn admit(&self, event: &Event, fence: Option<u64>) -> Result<(), Refusal> {
        self.admit_writer(fence)?;
        self.check(event)
    }

    /// Lets through the service, and the attempt that holds the build: not one from which it was
    /// taken, even before another one has it.
    fn admit_writer(&self, fence: Option<u64>) -> Result<(), Refusal> {
        match fence {
            Some(got) if got != self.fence => Err(Refusal::Fenced { held: self.fence, got }),
            Some(got) if self.state == State::Queued => Err(Refusal::GivenUp(got)),
            _ => Ok(()),
        }
    }

    /// Adds one entry.
    ///
    /// # Errors
    /// When the entry does not follow or the state machine forbids it; the row is then unchanged.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Refusal> {
        if entry.number != self.next_number {
            return Err(Refusal::Number { want: self.next_number, got: entry.number });
        }
        if entry.time <= self.updated_at {
            return Err(Refusal::Time);
        }
        self.check(&entry.event)?;
        self.fold(entry);
        self.next_number += 1;
        self.updated_at = entry.time;
        Ok(())
    }

    /// Checks that a writer with fencing number `fence` may write log lines.
    ///
    /// # Errors
    /// As [`Record::admit`].
    pub fn admit_lines(&self, fence: Option<u64>) -> Result<(), Refusal> {
        self.admit_writer(fence)?;
        if self.state.is_terminal() { Err(Refusal::Ended(self.state)) } else { Ok(()) }
    }

    /// Adds a run of log lines, as [`Record::apply`] would one after the other.
    ///
    /// # Errors
    /// When the run does not follow or the build has ended; the row is then unchanged.
    pub fn apply_lines(&mut self, run: &LineRun) -> Result<(), Refusal> {
        if run.number != self.next_number {
            return Err(Refusal::Number { want: self.next_number, got: run.number });
        }
        if run.first <= self.updated_at || run.last < run.first {
            return Err(Refusal::Time);
        }
        self.admit_lines(None)?;
        self.next_number += run.count;
        self.updated_at = run.last;
        Ok(())
    }

    fn check(&self, event: &Event) -> Result<(), Refusal> {
        if self.state.is_terminal() && !event.outlives_the_build() {
            return Err(Refusal::Ended(self.state));
        }
        match event {
            Event::Submitted(_) => Err(Refusal::Submission),
            Event::State { to } if !self.state.may_become(*to) => {
                Err(Refusal::Transition { from: self.state, to: *to })
            }
            Event::Claimed { .. } if self.state != State::Queued => {
                Err(Refusal::Transition { from: self.state, to: State::Preparing })
            }
            Event::Claimed { fence, .. } if *fence <= self.fence => {
                Err(Refusal::Fenced { held: self.fence, got: *fence })
            }
            Event::Requeued { .. } if !self.state.is_active() => {
                Err(Refusal::Transition { from: self.state, to: State::Queued })
            }
            Event::Requeued { planned: true, .. } if !self.may_be_handed_over() => {
                Err(Refusal::NoMoreAttempts)
            }
            Event::Requeued { planned: false, .. } if !self.may_run_again() => {
                Err(Refusal::NoMoreAttempts)
            }
            _ => Ok(()),
        }
    }

    /// Says whether the build may run again by itself when its worker is lost.
    pub fn may_run_again(&self) -> bool {
        match self.submission.on_lost {
            OnLost::Requeue { attempts_max } => {
                !self.effect_began && self.attempts_counted() < attempts_max
            }
            OnLost::Fail => false,
        }
    }

    /// Says whether the build may run again by itself when its worker ends as planned, however many
    /// attempts there were.
    pub fn may_be_handed_over(&self) -> bool {
        matches!(self.submission.on_lost, OnLost::Requeue { .. }) && !self.effect_began
    }

    /// Returns how many attempts there were, the current one included, but for those that were given
    /// up by plan.
    pub const fn attempts_counted(&self) -> u32 {
        self.attempt.saturating_sub(self.attempts_spared)
    }

    /// Returns the time from the start of the last attempt to the end, once it has ended.
    pub fn duration(&self) -> Option<std::time::Duration> {
        Some(self.finished_at?.since(self.started_at?))
    }

    fn fold(&mut self, entry: &Entry) {
        match &entry.event {
            Event::Claimed { attempt, fence, worker } => {
                (self.attempt, self.fence, self.worker) = (*attempt, *fence, Some(*worker));
                self.move_to(State::Preparing, entry.time);
            }
            Event::Requeued { planned, .. } => self.requeue(entry.time, *planned),
            Event::State { to } => self.move_to(*to, entry.time),
            Event::Executor { ran, .. } => self.executor = Some(ran.clone()),
            Event::Steps { names } => self.steps.total = names.len() as u32,
            Event::StepEnded { outcome, .. } => {
                self.steps.ended += 1;
                self.steps.cached += u32::from(*outcome == StepOutcome::Cached);
            }
            Event::AnswersKept { blob } => self.answers = Some(*blob),
            Event::Cache(event) => self.cache.count(event),
            Event::Artifact(artifact) => self.put_artifact(artifact),
            Event::ArtifactRemoved { name, .. } => self.artifacts.retain(|a| a.name != *name),
            Event::CancelRequested { by, reason } => {
                let wish = Cancellation { at: entry.time, by: by.clone(), reason: reason.clone() };
                self.cancellation.get_or_insert(wish);
            }
            Event::Failed(failure) => self.failure = Some((**failure).clone()),
            Event::EffectBegan { .. } => self.effect_began = true,
            Event::Labels { changes } => self.change_labels(changes),
            Event::Renamed { name } => self.name.clone_from(name),
            Event::Pinned { pinned } => self.pinned = *pinned,
            Event::Bookmarked { by, bookmarked: true } => drop(self.bookmarks.insert(*by)),
            Event::Bookmarked { by, bookmarked: false } => drop(self.bookmarks.remove(by)),
            Event::Submitted(_)
            | Event::Answered { .. }
            | Event::StepStarted { .. }
            | Event::Log(_)
            | Event::LogSegment { .. }
            | Event::Note { .. } => {}
        }
    }

    fn move_to(&mut self, state: State, at: Timestamp) {
        self.state = state;
        if state.is_active() {
            self.started_at.get_or_insert(at);
        }
        if state.is_terminal() {
            self.finished_at = Some(at);
        }
    }

    fn requeue(&mut self, at: Timestamp, planned: bool) {
        self.state = State::Queued;
        self.attempts_spared += u32::from(planned);
        self.queued_at = at;
        self.started_at = None;
        self.failure = None;
        self.steps = StepCounts::default();
        self.cache = CacheCounters::default();
    }

    fn put_artifact(&mut self, artifact: &ArtifactRecord) {
        self.artifacts.retain(|a| a.name != artifact.name);
        self.artifacts.push(artifact.clone());
    }

    fn change_labels(&mut self, changes: &BTreeMap<String, Option<String>>) {
        for (name, value) in changes {
            match value {
                Some(value) => drop(self.labels.insert(name.clone(), value.clone())),
                None => drop(self.labels.remove(name)),
            }
        }
    }
}
