//! The one state machine of builds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a build is. A terminal state never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Accepted, waits for a worker.
    Queued,
    /// A worker lowers the definition and resolves its sources.
    Preparing,
    /// Steps run.
    Running,
    /// The result is written where it shall go.
    Exporting,
    /// The artifact exists.
    Succeeded,
    /// It ended without artifact; the record says why.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// A policy or condition decided that it should not run.
    Skipped,
}

impl State {
    /// Every state, in order of progress.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Preparing,
        Self::Running,
        Self::Exporting,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Skipped,
    ];

    /// Says whether the build has ended.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Skipped)
    }

    /// Says whether a worker has it.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Preparing | Self::Running | Self::Exporting)
    }

    /// Says whether `next` may follow within one attempt. Phases may be left out (a build answered
    /// from the final-artifact cache never runs) but never go back; going back to `Queued` is the
    /// journal's [`crate::journal::Event::Requeued`], a new attempt.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Queued => {
                !matches!(next, Self::Queued | Self::Running | Self::Exporting | Self::Succeeded)
            }
            Self::Preparing => !matches!(next, Self::Queued | Self::Preparing),
            Self::Running => next.is_terminal() || matches!(next, Self::Exporting),
            Self::Exporting => next.is_terminal(),
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Skipped => false,
        }
    }

    /// Returns the word used in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Exporting => "exporting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }

    /// Reads the word used in records.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_states_lead_nowhere_and_nothing_goes_back() {
        for from in State::ALL {
            for to in State::ALL {
                if from.is_terminal() || to <= from {
                    assert!(!from.may_become(to), "{from} -> {to}");
                }
            }
            assert_eq!(State::parse(from.as_str()), Some(from));
        }
    }
}
