//! Plain text: a line for everything that happens, as BuildKit's `--progress plain` has it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Instant;

use ashlar_core::graph::StepId;
use ashlar_core::journal::{Event, Level, LogLine, Progress, StepOutcome};

use super::{Ended, View};
use crate::output::{clean, said};

/// Writes plain lines.
pub(crate) struct Plain<W> {
    out: W,
    /// Whether what steps say keeps its colours.
    colours: bool,
    names: Vec<String>,
    started: BTreeMap<StepId, Instant>,
    transfers: BTreeMap<String, bool>,
    /// Shown at the end, so that the first thing which a failed build names is its failure.
    warnings: Vec<String>,
}

impl Plain<io::Stderr> {
    /// Writes to standard error.
    pub(crate) fn stderr() -> Self {
        Self::new(io::stderr(), crate::output::colours(&io::stderr()))
    }
}

impl<W: Write> Plain<W> {
    pub(crate) fn new(out: W, colours: bool) -> Self {
        Self {
            out,
            colours,
            names: Vec::new(),
            started: BTreeMap::new(),
            transfers: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Writes one line; when nobody reads any more the build still goes on.
    fn say(&mut self, text: &str) {
        let _ = self.out.write_all(format!("{text}\n").as_bytes());
    }

    fn name(&self, step: StepId) -> String {
        let index = (step.0 as usize).wrapping_sub(1);
        clean(self.names.get(index).map_or("", String::as_str))
    }

    fn begin(&mut self, step: StepId) {
        if self.started.insert(step, Instant::now()).is_none() {
            let text = format!("#{} {}", step.0, self.name(step));
            self.say(&text);
        }
    }

    fn end(&mut self, step: StepId, outcome: StepOutcome) {
        if !self.started.contains_key(&step) {
            self.begin(step);
        }
        let took = self.seconds(step);
        let text = match outcome {
            StepOutcome::Ran => format!("#{} DONE {took:.1}s", step.0),
            StepOutcome::Cached => format!("#{} CACHED", step.0),
            StepOutcome::Failed => format!("#{} ERROR after {took:.1}s", step.0),
            StepOutcome::Cancelled => format!("#{} CANCELED", step.0),
        };
        self.say(&text);
    }

    fn seconds(&self, step: StepId) -> f64 {
        self.started.get(&step).map_or(0.0, |t| t.elapsed().as_secs_f64())
    }

    fn log(&mut self, line: &LogLine) {
        match (line.step, line.level) {
            (Some(step), _) => {
                let text = said(&line.text, self.colours);
                self.say(&format!("#{} {:.3} {text}", step.0, self.seconds(step)));
            }
            (None, Level::Debug) => {}
            (None, Level::Info) => self.say(&clean(&line.text)),
            (None, Level::Warn | Level::Error) => self.warnings.push(line.text.clone()),
        }
    }
}

impl<W: Write + Send> View for Plain<W> {
    fn started(&mut self, _: &str, _: &str) {}

    fn event(&mut self, event: &Event) {
        match event {
            Event::Steps { names } => self.names.clone_from(names),
            Event::StepStarted { step } => self.begin(*step),
            Event::Requeued { reason, .. } => {
                // Another attempt begins with the first step.
                self.started.clear();
                self.say(&format!("begins again: {}", clean(reason)));
            }
            Event::StepEnded { step, outcome, .. } => self.end(*step, *outcome),
            Event::Log(line) => self.log(line),
            _ => {}
        }
    }

    fn progress(&mut self, progress: &Progress) {
        let ended = progress.total > 0 && progress.done >= progress.total;
        match self.transfers.insert(progress.subject.clone(), ended) {
            None if progress.total > 0 => {
                let size = crate::output::bytes(progress.total);
                self.say(&format!("{} ({size})", clean(&progress.subject)));
            }
            Some(false) if ended => self.say(&format!("{} done", clean(&progress.subject))),
            _ => {}
        }
    }

    fn ended(&mut self, _: &Ended<'_>) {
        for warning in std::mem::take(&mut self.warnings) {
            self.say(&format!("warning: {warning}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_core::journal::Stream;

    fn said_by(step: StepId, text: &str) -> Event {
        let line = LogLine::service(Level::Info, text);
        Event::Log(LogLine { step: Some(step), stream: Stream::Stdout, ..line })
    }

    #[test]
    fn lines_are_those_of_buildkit() {
        let mut plain = Plain::new(Vec::new(), false);
        plain.event(&Event::Steps { names: vec!["[1/2] FROM a".into(), "[2/2] RUN b".into()] });
        let step = StepId(2);
        let ended = |step, outcome| Event::StepEnded {
            step,
            outcome,
            peak_memory_bytes: None,
            cpu_nanos: None,
        };
        plain.event(&ended(StepId(1), StepOutcome::Cached));
        plain.event(&Event::StepStarted { step });
        plain.event(&said_by(step, "hi\x1b[31m"));
        plain.event(&said_by(step, "\rDownloading 10%\rDownloading 50%"));
        plain.event(&ended(step, StepOutcome::Ran));
        let text = String::from_utf8(plain.out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..3], ["#1 [1/2] FROM a", "#1 CACHED", "#2 [2/2] RUN b"]);
        assert!(lines[3].starts_with("#2 0.0") && lines[3].ends_with(" hi"), "{text}");
        let bar: Vec<&str> = lines[4].splitn(3, ' ').collect();
        assert_eq!(bar[2], "Downloading 50%");
        assert!(lines[5].starts_with("#2 DONE 0."), "{text}");
    }

    #[test]
    fn a_terminal_gets_the_colours_of_steps() {
        let mut plain = Plain::new(Vec::new(), true);
        plain.event(&said_by(StepId(1), "\x1b[32m+ added\x1b[2K"));
        let text = String::from_utf8(plain.out).unwrap();
        assert!(text.ends_with(" \x1b[32m+ added\x1b[0m\n"), "{text:?}");
    }
}
