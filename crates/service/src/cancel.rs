//! Stops builds.

use ashlar_core::BuildId;
use ashlar_core::journal::{BuildKind, Event, Mode, Record, Refusal};
use ashlar_core::state::State;
use ashlar_records::{Error as StoreError, Stamped, Writer, now};

use crate::{Actor, Error, Service};

/// The longest reason that is kept, in characters.
const REASON_MAX: usize = 1000;

impl Service {
    /// Asks a build to stop and returns its row at once: one that waits is cancelled then, one
    /// that runs soon after; a run of builds that has begun when its builds have ended. A build that
    /// has ended, or was asked before, stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn cancel(
        &self,
        actor: &Actor,
        build: BuildId,
        reason: Option<&str>,
    ) -> Result<Record, Error> {
        let record = self.own(actor, build).await?;
        if record.state.is_terminal() || record.cancellation.is_some() {
            return Ok(record);
        }
        let reason = reason.map(|r| r.chars().take(REASON_MAX).collect());
        let wish = Event::CancelRequested { by: actor.principal.name.clone(), reason };
        let mut events = vec![Stamped::new(now(), wish)];
        let run = record.submission.kind == BuildKind::Workflow;
        let external = record.submission.mode == Mode::External;
        if external || (record.state == State::Queued && !(run && record.attempt > 0)) {
            // No worker is there to end it. One that claims it right now finds its writes refused.
            events.push(Stamped::new(now(), Event::State { to: State::Cancelled }));
        }
        let row = match self.store().append(build, Writer::Service, events).await {
            Err(StoreError::Refused(Refusal::Ended(_))) => return self.row(actor, build).await,
            other => other?,
        };
        self.workers().cancel(build);
        if run && (row.state.is_terminal() || row.state == State::Queued) {
            // Nobody drives it just now who would stop its builds. One that waits to go on after a
            // restart has ended when its next driver has seen that they have.
            Box::pin(self.cancel_children(actor, build)).await?;
        }
        self.audit(actor, "build.cancel", build, serde_json::Value::Null).await?;
        Ok(row)
    }
}
