//! `ashlar why`: what each step took from the cache, and why it did not.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use ashlar_core::cache::{Bypass, CacheKind, CacheStatus, MissReason};
use ashlar_core::graph::StepId;
use ashlar_core::journal::{CacheEvent, Event, StepOutcome};
use serde::Serialize;
use serde_json::json;

use super::origin::Origin;
use crate::cli::builds::WhyArgs;
use crate::output::{clean, json as print_json, line};
use crate::settings::Settings;

/// What became of one step.
#[derive(Debug, Clone, Serialize)]
struct Step {
    step: StepId,
    name: String,
    /// `hit`, `miss`, `bypass`, `answered` (with the whole build), `failed` or `none`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<MissReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sentence: Option<String>,
}

/// What became of a build.
#[derive(Debug, Default)]
struct Findings {
    steps: BTreeMap<StepId, Step>,
    names: Vec<String>,
    whole: Option<(CacheStatus, Option<Bypass>)>,
    files: [u32; 2],
}

pub(super) fn run(settings: &Settings, args: &WhyArgs) -> Result<ExitCode> {
    let origin = Origin::open(settings, &args.server)?;
    let build = origin.find(&args.build)?;
    let mut found = Findings::default();
    origin.each_entry(build, |entry| {
        found.take(&entry.event);
        Ok(())
    })?;
    if args.json.json {
        let steps: Vec<&Step> = found.steps.values().collect();
        print_json(&json!({
            "build": build,
            "final_artifact": found.whole.map(|(status, _)| status),
            "files_known": found.files[0],
            "files_new": found.files[1],
            "steps": steps,
        }))?;
    } else {
        found.lines().iter().try_for_each(line)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Findings {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Steps { names } => self.names.clone_from(names),
            Event::StepEnded { step, outcome, .. } => {
                let status = match outcome {
                    StepOutcome::Cached => "answered",
                    StepOutcome::Ran => "none",
                    StepOutcome::Failed => "failed",
                    StepOutcome::Cancelled => "cancelled",
                };
                self.step(*step).get_or_insert(status);
            }
            Event::Cache(event) => self.cache(event),
            _ => {}
        }
    }

    fn cache(&mut self, event: &CacheEvent) {
        match (event.cache, event.status, event.step) {
            (CacheKind::FinalArtifact, CacheStatus::Store, _) => {}
            (CacheKind::FinalArtifact, status, _) => self.whole = Some((status, event.bypass)),
            (CacheKind::FileBlob, CacheStatus::Hit, _) => self.files[0] += 1,
            (CacheKind::FileBlob, CacheStatus::Miss, _) => self.files[1] += 1,
            (CacheKind::Layer, CacheStatus::Store, _) | (CacheKind::FileBlob, ..) => {}
            (CacheKind::Layer, _, None) => {}
            (CacheKind::Layer, status, Some(step)) => {
                let step = self.step(step);
                step.status = match status {
                    CacheStatus::Hit => "hit",
                    CacheStatus::Miss => "miss",
                    _ => "bypass",
                };
                step.reason.clone_from(&event.reason);
                step.sentence = event.reason.as_ref().map(|r| clean(&r.sentence()));
            }
        }
    }

    fn step(&mut self, id: StepId) -> &mut Step {
        let name = self.names.get((id.0 as usize).wrapping_sub(1));
        let name = clean(name.map_or("", String::as_str));
        self.steps.entry(id).or_insert(Step {
            step: id,
            name,
            status: "",
            reason: None,
            sentence: None,
        })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match self.whole {
            Some((CacheStatus::Hit, _)) => lines.push(
                "the whole build was answered by an earlier one: same definition, same bases, same \
                 files"
                    .to_owned(),
            ),
            Some((CacheStatus::Bypass, _)) => {
                lines.push("earlier results were not asked for".to_owned());
            }
            _ => {}
        }
        for step in self.steps.values() {
            lines.push(format!("#{} {}", step.step.0, step.name));
            lines.extend(step.lines());
        }
        if self.files != [0, 0] {
            let [known, new] = self.files;
            lines.push(format!("context files: {known} known by content, {new} read"));
        }
        if lines.is_empty() {
            lines.push("the build ended before it asked a cache".to_owned());
        }
        lines
    }
}

impl Step {
    fn get_or_insert(&mut self, status: &'static str) {
        if self.status.is_empty() {
            self.status = status;
        }
    }

    fn lines(&self) -> Vec<String> {
        match (self.status, &self.reason) {
            ("miss", Some(MissReason::Changed { changes })) if changes.len() > 1 => {
                let mut lines = vec!["    miss:".to_owned()];
                lines.extend(changes.iter().map(|c| format!("      {}", clean(&c.sentence()))));
                lines
            }
            ("miss" | "bypass", Some(_)) => {
                let sentence = self.sentence.as_deref().unwrap_or_default();
                vec![format!("    {}: {sentence}", self.status)]
            }
            ("hit", _) => vec!["    hit".to_owned()],
            ("answered", _) => vec!["    hit: with the whole build, or its base".to_owned()],
            ("none", _) => vec!["    no cache: it brings in what later steps work on".to_owned()],
            (status, _) => vec![format!("    {status}")],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::cache::{Change, PartKind};

    fn event(status: CacheStatus, reason: Option<MissReason>) -> Event {
        Event::Cache(CacheEvent {
            cache: CacheKind::Layer,
            status,
            step: Some(StepId(1)),
            subject: String::new(),
            key: None,
            reason,
            bypass: None,
        })
    }

    #[test]
    fn a_miss_names_everything_that_changed() {
        let mut found = Findings::default();
        found.take(&Event::Steps { names: vec!["[1/1] COPY a b /".into()] });
        let change = |name: &str| Change {
            kind: PartKind::File,
            name: name.into(),
            old: Some("1".into()),
            new: Some("2".into()),
        };
        let reason = MissReason::Changed { changes: vec![change("a"), change("b")] };
        found.take(&event(CacheStatus::Miss, Some(reason)));
        found.take(&event(CacheStatus::Store, None));
        let lines = found.lines();
        assert_eq!(lines[0], "#1 [1/1] COPY a b /");
        assert!(lines[2].contains("file 'a' changed") && lines[3].contains("file 'b' changed"));
    }

    #[test]
    fn a_hit_stays_a_hit_when_the_step_ends() {
        let mut found = Findings::default();
        found.take(&event(CacheStatus::Hit, None));
        found.take(&Event::StepEnded {
            step: StepId(1),
            outcome: StepOutcome::Cached,
            peak_memory_bytes: None,
            cpu_nanos: None,
        });
        assert_eq!(found.steps[&StepId(1)].status, "hit");
    }
}
