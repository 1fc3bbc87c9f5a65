//! What the end of a build changes: tags move, the newest build is another.
//!
//! Workers know nothing of templates. A template is brought up to date when somebody looks: the
//! builds whose end it has not seen are found by an index that was written when they were
//! accepted. Each end is applied at the time at which the build ended, so it makes no difference
//! who looks when, nor how often: a tag that was moved later stays where it is.

use ashlar_core::image::ImageConfig;
use ashlar_core::state::State;
use ashlar_service::{Document, ErrorKind, Record};

use crate::app::App;
use crate::documents::{Attempt, BY_UNSETTLED, Inherited, Template};
use crate::errors::Answer;
use crate::readiness::of_healthcheck;
use crate::templates::Found;
use crate::wire::{Healthcheck, OciMetadata, RuntimeDefaults};

/// Builds of one template whose end is looked at in one go.
const PIECE: u32 = 500;

impl App {
    /// Brings a template up to date.
    pub(crate) async fn settled(&self, found: Found) -> Answer<Found> {
        let mut found = found;
        let (tenant, key) = (found.tenant, found.id.simple().to_string());
        let mut after = 0;
        loop {
            let index = (BY_UNSETTLED, key.as_str());
            let open =
                self.objects.documents_by::<Attempt>(Some(tenant), index, after, PIECE).await?;
            let Some(last) = open.last() else { return Ok(found) };
            after = last.position;
            for attempt in open {
                found = self.settle(found, attempt).await?;
            }
        }
    }

    async fn settle(&self, found: Found, attempt: Document<Attempt>) -> Answer<Found> {
        let build = ashlar_core::BuildId::from_uuid(attempt.id);
        let record = match self.service.row(self.service.admin(), build).await {
            Ok(record) => record,
            // Forgotten meanwhile; the note goes with it.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(found),
            Err(e) => return Err(e.into()),
        };
        if !record.state.is_terminal() {
            return Ok(found);
        }
        let found = match record.state {
            State::Succeeded => self.succeeded(found, &record, &attempt.value).await?,
            _ => found,
        };
        let mut value = attempt.value;
        value.settled = true;
        if record.state == State::Succeeded {
            self.describe(&record, &mut value).await?;
        }
        let tenant = Some(found.tenant);
        match self.objects.replace_document(tenant, attempt.id, attempt.version, &value).await {
            // Somebody else has done the same.
            Err(e) if e.kind() == ErrorKind::Conflict => {}
            other => other?,
        }
        Ok(found)
    }

    async fn succeeded(&self, found: Found, record: &Record, attempt: &Attempt) -> Answer<Found> {
        let build = record.submission.build;
        let at = record.finished_at.unwrap_or(record.updated_at);
        let apply = |template: &mut Template| {
            attempt.tags.iter().for_each(|tag| template.move_tag(tag, Some(build), at));
            if template.newest.is_none_or(|(_, newest)| newest < at) {
                template.newest = Some((build, at));
            }
        };
        self.change_after_build(&found, &attempt.tags, apply).await
    }

    /// Notes how the artifact runs and what the image says of itself.
    async fn describe(&self, record: &Record, attempt: &mut Attempt) -> Answer<()> {
        let build = record.submission.build;
        let config = match self.service.image(self.service.admin(), build).await {
            Ok(config) => config,
            // Removed meanwhile.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        attempt.runtime_defaults = Some(runtime_of(&config, attempt.effective()));
        attempt.oci_metadata = Some(metadata_of(&config));
        Ok(())
    }
}

fn runtime_of(config: &ImageConfig, start: Inherited) -> RuntimeDefaults {
    let run = &config.config;
    let mut keys: Vec<String> =
        run.env.iter().map(|e| e.split_once('=').map_or(e.as_str(), |(n, _)| n).into()).collect();
    keys.sort();
    keys.dedup();
    let said = |text: &String| (!text.is_empty()).then(|| text.clone());
    RuntimeDefaults {
        default_env_keys: keys,
        start_cmd: start.start_cmd,
        default_user: said(&run.user),
        default_workdir: said(&run.working_dir),
        readiness: start.readiness,
    }
}

fn metadata_of(config: &ImageConfig) -> OciMetadata {
    let run = &config.config;
    OciMetadata {
        labels: run.labels.clone(),
        exposed_ports: run.exposed_ports.keys().cloned().collect(),
        volumes: run.volumes.keys().cloned().collect(),
        healthcheck: run.healthcheck.as_ref().map(|check| Healthcheck {
            test: check.test.clone(),
            interval_ns: check.interval,
            timeout_ns: check.timeout,
            start_period_ns: check.start_period,
            retries: check.retries,
            mapped_readiness: of_healthcheck(check),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_variables_only_the_names_are_told() {
        let mut config = ImageConfig::default();
        config.config.env = vec!["B=secret".into(), "A=1".into(), "A=2".into()];
        config.config.working_dir = "/srv".into();
        let runtime = runtime_of(&config, Inherited::default());
        assert_eq!(runtime.default_env_keys, ["A", "B"]);
        assert!(!serde_json::to_string(&runtime).unwrap().contains("secret"));
        assert_eq!((runtime.default_user, runtime.default_workdir), (None, Some("/srv".into())));
    }
}
