//! Shows what happens to a server's build until it has ended; Ctrl-C cancels it.

use std::time::Instant;

use anyhow::Result;
use ashlar_client::{Client, End, Error, Followed};
use ashlar_core::BuildId;
use ashlar_core::cache::{CacheKind, CacheStatus};
use ashlar_core::failure::Failure;
use ashlar_core::journal::{Entry, Event};
use ashlar_core::state::State;
use ashlar_sandbox::Cancel;

use super::{told, told_text};
use crate::output::note;
use crate::progress::{Display, Made};

/// A build that is watched.
pub(super) struct Watched<'a> {
    pub(super) client: &'a Client,
    pub(super) build: BuildId,
    pub(super) display: &'a Display,
    pub(super) cancel: &'a Cancel,
}

/// What was seen of a build.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The state in which it ended.
    pub(super) state: Option<State>,
    /// Why it failed.
    pub(super) failure: Option<Failure>,
    /// What it made.
    pub(super) made: Made,
}

impl Watched<'_> {
    /// Shows the build to its end.
    ///
    /// # Errors
    /// When the server is away for good, or the build is gone.
    pub(super) fn to_the_end(&self) -> Result<Seen> {
        let (mut seen, mut next) = (Seen::default(), 0);
        let cancelled = || self.cancel.is_cancelled();
        let mut tell = |followed: Followed<'_>| self.tell(&mut seen, followed);
        let mut end = self.client.follow(self.build, &mut next, &cancelled, &mut tell);
        if let Ok(End::Stopped) = end {
            self.ask_to_stop();
            // Its end is waited for; a second Ctrl-C leaves at once.
            end = self.client.follow(self.build, &mut next, &|| false, &mut tell);
        }
        match end {
            Ok(End::Ended(state)) => seen.state = Some(state),
            Ok(End::Stopped) => {}
            Err(error) => {
                let build = self.build;
                let text = format!("the build {build} may go on without being watched");
                return Err(told(error).context(text));
            }
        }
        Ok(seen)
    }

    fn ask_to_stop(&self) {
        match self.client.cancel(self.build, Some("Ctrl-C")) {
            // It ended in this moment: what is read next says how.
            Ok(_) | Err(Error::Refused(_)) => {}
            Err(error) => note(format!("cannot cancel the build: {}", told_text(&error))),
        }
    }

    fn tell(&self, seen: &mut Seen, followed: Followed<'_>) {
        match followed {
            Followed::Entry(entry) => {
                seen.take(entry);
                if is_shown(&entry.event) {
                    self.display.lock().event(&entry.event);
                }
            }
            Followed::Lost(error) => note(format!("{}; trying again", told_text(error))),
            Followed::Back => note("the server is there again"),
        }
    }
}

/// Says whether an entry is something that a build here would show too.
fn is_shown(event: &Event) -> bool {
    match event {
        Event::Submitted(_) | Event::Claimed { .. } | Event::Failed(_) => false,
        Event::State { to } => !to.is_terminal(),
        _ => true,
    }
}

impl Seen {
    fn take(&mut self, entry: &Entry) {
        match &entry.event {
            // Another attempt: what the one before it came to is nothing.
            Event::Requeued { .. } => *self = Self::default(),
            Event::Failed(failure) => self.failure = Some((**failure).clone()),
            Event::Artifact(artifact) => match artifact.kind.as_str() {
                "image" => self.made.image = Some(artifact.digest.to_string()),
                "push" => {
                    self.made.manifest = Some(artifact.digest.to_string());
                    self.made.outputs.extend(artifact.references.iter().cloned());
                }
                _ => {}
            },
            Event::Cache(event) if event.cache == CacheKind::FinalArtifact => {
                self.made.from_cache |= event.status == CacheStatus::Hit;
            }
            _ => {}
        }
    }
}

/// Starts to show a build.
pub(super) fn show_start(display: &Display, build: BuildId, name: &str) -> Instant {
    display.lock().started(&build.to_string(), name);
    Instant::now()
}
