//! What the live view knows, and the lines that it makes of it: no terminal here.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ashlar_core::graph::StepId;
use ashlar_core::journal::{Event, Level, Progress, StepOutcome};

use crate::output::{bytes, clean, said};

/// The last lines of a running step that are shown.
const TAIL_LINES: usize = 4;
/// Bars that are shown at once.
const BARS_MAX: usize = 6;
/// Width of a bar in characters.
const BAR_CHARS: usize = 24;

/// How a line of the view is meant; colours are the terminal's matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// The first line.
    Head,
    /// Something under way.
    Running,
    /// Something that ended well.
    Done,
    /// Something that was there already.
    Cached,
    /// Something that failed.
    Failed,
    /// What steps say.
    Quiet,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Status {
    Running,
    Ended(StepOutcome),
}

struct Step {
    started: Instant,
    took: Duration,
    status: Status,
    tail: VecDeque<String>,
}

/// All that is shown.
pub(super) struct Model {
    began: Instant,
    names: Vec<String>,
    steps: BTreeMap<StepId, Step>,
    bars: BTreeMap<String, (u64, u64)>,
    warnings: Vec<String>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            names: Vec::new(),
            steps: BTreeMap::new(),
            bars: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Steps { names } => {
                self.names = names.iter().map(|n| clean(n)).collect();
                // What has no end of its own, like finding images, is over by now.
                self.bars.retain(|_, (_, total)| *total > 0);
            }
            Event::StepStarted { step } => drop(self.step(*step)),
            // Another attempt begins with the first step.
            Event::Requeued { .. } => self.steps.clear(),
            Event::StepEnded { step, outcome, .. } => {
                let outcome = *outcome;
                let step = self.step(*step);
                step.took = step.started.elapsed();
                step.status = Status::Ended(outcome);
                step.tail.clear();
            }
            Event::Log(line) => match line.step {
                Some(step) => {
                    let tail = &mut self.step(step).tail;
                    // Lines are cut to the terminal's width, and have a colour of their own.
                    tail.push_back(said(&line.text, false));
                    if tail.len() > TAIL_LINES {
                        tail.pop_front();
                    }
                }
                None if line.level >= Level::Warn => self.warnings.push(line.text.clone()),
                None => {}
            },
            _ => {}
        }
    }

    fn step(&mut self, id: StepId) -> &mut Step {
        self.steps.entry(id).or_insert_with(|| Step {
            started: Instant::now(),
            took: Duration::ZERO,
            status: Status::Running,
            tail: VecDeque::new(),
        })
    }

    pub(super) fn progress(&mut self, progress: &Progress) {
        if progress.total > 0 && progress.done >= progress.total {
            self.bars.remove(&progress.subject);
        } else {
            self.bars.insert(progress.subject.clone(), (progress.done, progress.total));
        }
    }

    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Returns the lines for a terminal of some size. All steps when `whole`; otherwise what ended
    /// last and all that runs, as many as fit.
    pub(super) fn frame(&self, columns: usize, rows: usize, whole: bool) -> Vec<(Tone, String)> {
        let mut lines = vec![(Tone::Head, self.head(whole))];
        for (id, step) in &self.steps {
            lines.push(self.step_line(*id, step));
            if !whole && step.status == Status::Running {
                lines.extend(step.tail.iter().map(|t| (Tone::Quiet, format!("      {t}"))));
            }
        }
        if !whole {
            lines.extend(self.bars.iter().take(BARS_MAX).map(|(s, b)| (Tone::Running, bar(s, *b))));
            let surplus = lines.len().saturating_sub(rows.saturating_sub(1).max(2));
            lines.drain(1..=surplus);
        }
        let fit = |text: String| text.chars().take(columns.saturating_sub(1)).collect();
        lines.into_iter().map(|(tone, text)| (tone, fit(text))).collect()
    }

    fn head(&self, whole: bool) -> String {
        let ended = self.steps.values().filter(|s| s.status != Status::Running).count();
        let verb = if whole { "Built in" } else { "Building" };
        let total = self.names.len().max(self.steps.len());
        format!("[+] {verb} {:.1}s ({ended}/{total})", self.began.elapsed().as_secs_f64())
    }

    fn step_line(&self, id: StepId, step: &Step) -> (Tone, String) {
        let name = self.names.get((id.0 as usize).wrapping_sub(1)).map_or("", String::as_str);
        let (tone, mark, took) = match step.status {
            Status::Running => (Tone::Running, "=>", step.started.elapsed()),
            Status::Ended(StepOutcome::Ran) => (Tone::Done, "=>", step.took),
            Status::Ended(StepOutcome::Cached) => {
                return (Tone::Cached, format!(" => CACHED {name}"));
            }
            Status::Ended(StepOutcome::Failed) => (Tone::Failed, "=> ERROR", step.took),
            Status::Ended(StepOutcome::Cancelled) => (Tone::Failed, "=> CANCELED", step.took),
        };
        (tone, format!(" {mark} {:.1}s {name}", took.as_secs_f64()))
    }
}

fn bar(subject: &str, (done, total): (u64, u64)) -> String {
    let subject = clean(subject);
    if total == 0 {
        return format!("    {subject}");
    }
    let share = (done.min(total) as u128 * BAR_CHARS as u128 / u128::from(total)) as usize;
    let (full, empty) = ("#".repeat(share), ".".repeat(BAR_CHARS - share));
    format!("    [{full}{empty}] {} / {} {subject}", bytes(done), bytes(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(steps: u32) -> Model {
        let mut model = Model::new();
        model.event(&Event::Steps { names: (0..steps).map(|i| format!("step {i}")).collect() });
        (1..=steps).for_each(|i| model.event(&Event::StepStarted { step: StepId(i) }));
        model
    }

    #[test]
    fn a_frame_never_has_more_rows_or_columns_than_the_terminal() {
        let mut model = model(100);
        model.progress(&Progress { subject: "pull".into(), done: 5, total: 10 });
        for (columns, rows) in [(80, 24), (10, 3), (1, 1), (200, 5)] {
            let frame = model.frame(columns, rows, false);
            assert!(frame.len() < rows.max(3), "{rows}: {}", frame.len());
            assert!(frame.iter().all(|(_, t)| t.chars().count() < columns.max(1)));
            assert_eq!(frame[0].0, Tone::Head);
        }
        assert_eq!(model.frame(80, 24, true).len(), 101);
    }

    #[test]
    fn cached_steps_say_so_and_bars_fill() {
        let mut model = model(1);
        model.event(&Event::StepEnded {
            step: StepId(1),
            outcome: StepOutcome::Cached,
            peak_memory_bytes: None,
            cpu_nanos: None,
        });
        assert_eq!(model.frame(80, 24, false)[1], (Tone::Cached, " => CACHED step 0".into()));
        assert!(bar("x", (5, 10)).contains("[############............]"));
    }
}
