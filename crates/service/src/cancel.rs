//! Stops builds.

use ashlar_core::BuildId;
use ashlar_core::journal::{Event, Record};
use ashlar_core::state::State;
use ashlar_records::{Stamped, Writer, now};

use crate::{Actor, Error, Service};

/// The longest reason that is kept, in characters.
const REASON_MAX: usize = 1000;

impl Service {
    /// Asks a build to stop and returns its row at once: one that waits is cancelled then, one
    /// that runs soon after. A build that has ended, or was asked before, stays as it is.
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
        let row = self.wish(build, wish, record.state).await?;
        self.workers().cancel(build);
        self.audit(actor, "build.cancel", build, serde_json::Value::Null).await?;
        Ok(row)
    }

    async fn wish(&self, build: BuildId, wish: Event, seen: State) -> Result<Record, Error> {
        use ashlar_core::journal::Refusal;
        use ashlar_records::Error as Store;
        let end = Event::State { to: State::Cancelled };
        let both = [Stamped::new(now(), wish.clone()), Stamped::new(now(), end)];
        let external = self.store().row(build).await?.submission.mode == crate::Mode::External;
        if seen == State::Queued || external {
            // A worker may have been faster: `cancelled` then comes from the worker. The claim
            // changes the state, so this is refused only when the build has ended.
            let row = self.store().row(build).await?;
            if row.state == State::Queued || external {
                match self.store().append(build, Writer::Service, both).await {
                    Err(Store::Refused(Refusal::Ended(_))) => {
                        return Ok(self.store().row(build).await?);
                    }
                    other => return Ok(other?),
                }
            }
        }
        match self.store().append(build, Writer::Service, [Stamped::new(now(), wish)]).await {
            Err(Store::Refused(Refusal::Ended(_))) => Ok(self.store().row(build).await?),
            other => Ok(other?),
        }
    }
}
