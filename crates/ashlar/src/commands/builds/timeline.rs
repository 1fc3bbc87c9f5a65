//! `ashlar builds timeline`: when each step ran, as bars.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use ashlar_core::Timestamp;
use ashlar_core::graph::StepId;
use ashlar_core::journal::{Entry, Event, StepOutcome};
use serde::Serialize;
use serde_json::json;

use super::origin::Origin;
use crate::cli::builds::OneArgs;
use crate::output::{clean, json as print_json, line, span};
use crate::settings::Settings;

/// Width of the bars in characters.
const BAR_CHARS: usize = 40;

#[derive(Debug, Serialize)]
struct Bar {
    step: StepId,
    name: String,
    started_at: Timestamp,
    ended_at: Timestamp,
    outcome: Option<StepOutcome>,
}

#[derive(Default)]
struct Bars {
    first: Option<Timestamp>,
    last: Timestamp,
    /// Whether the build has ended: what is noted later is none of its time.
    ended: bool,
    names: Vec<String>,
    bars: BTreeMap<StepId, Bar>,
}

pub(super) fn run(settings: &Settings, args: &OneArgs) -> Result<ExitCode> {
    let origin = Origin::open(settings, &args.server)?;
    let build = origin.find(&args.build)?;
    let mut bars = Bars::default();
    origin.each_entry(build, |entry| {
        bars.take(entry);
        Ok(())
    })?;
    bars.close();
    if args.json.json {
        let steps: Vec<&Bar> = bars.bars.values().collect();
        print_json(&json!({ "build": build, "started_at": bars.first, "steps": steps }))?;
    } else {
        bars.lines().iter().try_for_each(line)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Bars {
    fn take(&mut self, entry: &Entry) {
        match &entry.event {
            // Another attempt: the time goes on.
            Event::Requeued { .. } => self.ended = false,
            _ if self.ended => return,
            Event::State { to } => self.ended = to.is_terminal(),
            _ => {}
        }
        self.first.get_or_insert(entry.time);
        self.last = self.last.max(entry.time);
        match &entry.event {
            Event::Steps { names } => self.names = names.iter().map(|n| clean(n)).collect(),
            Event::StepStarted { step } => drop(self.bar(*step, entry.time)),
            Event::StepEnded { step, outcome, .. } => {
                let bar = self.bar(*step, entry.time);
                (bar.ended_at, bar.outcome) = (entry.time, Some(*outcome));
            }
            _ => {}
        }
    }

    fn bar(&mut self, step: StepId, now: Timestamp) -> &mut Bar {
        let name = self.names.get((step.0 as usize).wrapping_sub(1)).cloned().unwrap_or_default();
        self.bars.entry(step).or_insert(Bar {
            step,
            name,
            started_at: now,
            ended_at: now,
            outcome: None,
        })
    }

    /// Steps that never ended go on to the last entry.
    fn close(&mut self) {
        let last = self.last;
        let open = self.bars.values_mut().filter(|b| b.outcome.is_none());
        open.for_each(|b| b.ended_at = last);
    }

    fn lines(&self) -> Vec<String> {
        let Some(first) = self.first else { return Vec::new() };
        let whole = self.last.since(first).max(Duration::from_nanos(1));
        let column = |t: Timestamp| {
            (t.since(first).as_nanos() * BAR_CHARS as u128 / whole.as_nanos()) as usize
        };
        let mut lines = vec![format!("{:<BAR_CHARS$}  {}", "0s", span(whole))];
        for bar in self.bars.values() {
            let start = column(bar.started_at).min(BAR_CHARS - 1);
            let width = column(bar.ended_at).saturating_sub(start).max(1);
            let mark = match bar.outcome {
                Some(StepOutcome::Cached) => "·",
                Some(StepOutcome::Failed) => "x",
                _ => "#",
            };
            let drawn = format!("{}{}", " ".repeat(start), mark.repeat(width));
            let took = span(bar.ended_at.since(bar.started_at));
            lines.push(format!("{drawn:<BAR_CHARS$} {took:>7}  #{} {}", bar.step.0, bar.name));
        }
        lines.push("# ran   · cached   x failed".to_owned());
        lines
    }
}

#[cfg(test)]
mod tests {
    use ashlar_core::state::State;

    use super::*;

    fn bars_of(events: impl IntoIterator<Item = (i64, Event)>) -> Vec<String> {
        let mut bars = Bars::default();
        for (number, (seconds, event)) in (0..).zip(events) {
            let time = Timestamp::from_nanos(seconds * 1_000_000_000);
            bars.take(&Entry { number, time, event });
        }
        bars.close();
        bars.lines()
    }

    fn began(step: u32) -> Event {
        Event::StepStarted { step: StepId(step) }
    }

    fn ended(step: u32, outcome: StepOutcome) -> Event {
        let step = StepId(step);
        Event::StepEnded { step, outcome, peak_memory_bytes: None, cpu_nanos: None }
    }

    #[test]
    fn bars_stand_where_the_steps_ran() {
        let lines = bars_of([
            (0, Event::Steps { names: vec!["a".into(), "b".into()] }),
            (0, began(1)),
            (5, ended(1, StepOutcome::Ran)),
            (5, began(2)),
            (10, ended(2, StepOutcome::Failed)),
        ]);
        assert!(lines[1].starts_with(&format!("{} ", "#".repeat(20))), "{lines:?}");
        assert!(lines[2].starts_with(&format!("{}{}", " ".repeat(20), "x".repeat(20))));
        assert!(lines[2].ends_with("5.0s  #2 b"));
    }

    #[test]
    fn what_is_noted_after_the_end_is_none_of_the_builds_time() {
        let lines = bars_of([
            (0, Event::Steps { names: vec!["a".into(), "b".into()] }),
            (0, began(1)),
            (5, ended(1, StepOutcome::Ran)),
            (5, began(2)),
            (10, Event::State { to: State::Cancelled }),
            (850, Event::Pinned { pinned: true }),
        ]);
        assert!(lines[0].ends_with("10.0s"), "{lines:?}");
        assert!(lines[1].starts_with(&format!("{} ", "#".repeat(20))), "{lines:?}");
        assert!(lines[2].ends_with("5.0s  #2 b"), "{lines:?}");
    }

    #[test]
    fn another_attempt_is_a_part_of_the_time() {
        let requeued = Event::Requeued { reason: "worker lost".into(), planned: false };
        let lines = bars_of([
            (0, Event::State { to: State::Failed }),
            (5, requeued),
            (10, Event::State { to: State::Succeeded }),
            (20, Event::Pinned { pinned: true }),
        ]);
        assert!(lines[0].ends_with("10.0s"), "{lines:?}");
    }
}
