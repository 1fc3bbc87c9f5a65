//! Builds that somebody outside drives: Cloud Foundry's own stager, Polyaxon's unmanaged builds.

use ashlar_core::BuildId;
use ashlar_core::journal::{Event, Mode, Record};
use ashlar_records::{Stamped, Writer, now};

use crate::{Actor, Error, Service};

/// Events that one report may bring.
const EVENTS_MAX: usize = 10_000;

impl Service {
    /// Writes what happened in an external build; all events or none. The state machine holds for
    /// it as for others.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the build is not external, has ended, or may not go there.
    pub async fn report(
        &self,
        actor: &Actor,
        build: BuildId,
        events: Vec<Event>,
    ) -> Result<Record, Error> {
        let record = self.own(actor, build).await?;
        if record.submission.mode != Mode::External {
            return Err(Error::Conflict("the build is driven by a worker of this server".into()));
        }
        if events.len() > EVENTS_MAX {
            let what = "the report".to_owned();
            return Err(Error::TooLarge { what, max: EVENTS_MAX as u64, unit: "events" });
        }
        if let Some(event) = events.iter().find(|e| !may_come_from_outside(e)) {
            let word = serde_json::to_value(event).map_err(Error::internal)?;
            let word = word["event"].as_str().unwrap_or_default().to_owned();
            return Err(Error::invalid("events", format!("'{word}' is not for reports")));
        }
        let stamped: Vec<Stamped> = events.into_iter().map(|e| Stamped::new(now(), e)).collect();
        Ok(self.store().append(build, Writer::Service, stamped).await?)
    }
}

const fn may_come_from_outside(event: &Event) -> bool {
    !matches!(event, Event::Submitted(_) | Event::Claimed { .. } | Event::Requeued { .. })
}
