//! Builds that somebody outside drives: Cloud Foundry's own stager, Polyaxon's unmanaged builds.

use std::sync::Arc;

use ashlar_core::journal::{Event, Mode, Record};
use ashlar_core::{BuildId, Digest, TenantId};
use ashlar_records::{Stamped, Writer, now};

use crate::recipe::NOTE_DIALECT;
use crate::{Actor, Error, Service};

/// Events that one report may bring.
const EVENTS_MAX: usize = 10_000;

impl Service {
    /// Writes what happened in an external build; all events or none. The state machine holds for
    /// it as for others. Artifacts are blobs that the build's tenant has, and no images.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the build is not external, has ended, or may not go there;
    /// [`Error::Invalid`] when an event is not for reports.
    pub async fn report(
        self: &Arc<Self>,
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
        self.check_artifacts(record.submission.tenant, &events).await?;
        let stamped: Vec<Stamped> = events.into_iter().map(|e| Stamped::new(now(), e)).collect();
        Ok(self.store().append(build, Writer::Service, stamped).await?)
    }

    /// Refuses artifacts that are blobs of others: whoever reads the build could read them then.
    async fn check_artifacts(
        self: &Arc<Self>,
        tenant: TenantId,
        events: &[Event],
    ) -> Result<(), Error> {
        let digest = |event: &Event| match event {
            Event::Artifact(artifact) => Some(artifact.digest),
            _ => None,
        };
        let named: Vec<Digest> = events.iter().filter_map(digest).collect();
        if named.is_empty() {
            return Ok(());
        }
        self.blocking(move |service| {
            let granted = service.grants().among(tenant, &named)?;
            match named.iter().find(|digest| !granted.contains(digest)) {
                None => Ok(()),
                Some(digest) => {
                    let why = format!("the artifact {digest} is no blob that was uploaded before");
                    Err(Error::invalid("events", why))
                }
            }
        })
        .await
    }
}

/// Says whether somebody outside may say this of a build that he drives. What a worker alone can
/// know (its claims, its cache, its steps), and what other use cases write, is not for him.
fn may_come_from_outside(event: &Event) -> bool {
    match event {
        Event::State { .. } | Event::Failed(_) | Event::Log(_) => true,
        Event::Note { dialect, .. } => dialect != NOTE_DIALECT,
        // The kind leads to the local images, which are made here only.
        Event::Artifact(artifact) => artifact.kind != "image",
        _ => false,
    }
}
