//! A build's log as lines: `YYYY-MM-DD HH:MM:SS UTC -- text`, the form that the CLI colours.

use std::collections::HashMap;

use ashlar_core::Timestamp;
use ashlar_core::graph::StepId;
use ashlar_core::journal::{Entry, Event, Level, LogLine, StepOutcome, Stream};
use ashlar_service::LogRemoved;
use chrono::{DateTime, Utc};

/// A line is cut into several at this length, in bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Makes lines of journal entries.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The Dockerfile is the template's: what the frontend advises about it is nobody's business.
    generated: bool,
    names: Vec<String>,
    /// Beginnings of lines whose end has not come yet.
    begun: HashMap<(Option<StepId>, Stream), String>,
}

impl Lines {
    /// Begins the log of a build whose Dockerfile is the template's, or the user's own.
    pub(crate) fn new(generated: bool) -> Self {
        Self { generated, ..Self::default() }
    }

    /// Returns the lines that an entry completes.
    pub(crate) fn feed(&mut self, entry: &Entry) -> Vec<String> {
        if let Some(removed) = LogRemoved::of(entry) {
            return vec![timed(entry.time, &removed.to_string())];
        }
        match &entry.event {
            Event::Steps { names } => self.names.clone_from(names),
            Event::StepStarted { step } => return self.step(entry.time, *step, ""),
            Event::StepEnded { step, outcome: StepOutcome::Cached, .. } => {
                return self.step(entry.time, *step, " (cached)");
            }
            Event::Log(line) => return self.line(entry.time, line),
            Event::Failed(failure) => {
                let said = failure.to_string();
                return said.lines().map(|l| timed(entry.time, &format!("ERROR: {l}"))).collect();
            }
            _ => {}
        }
        Vec::new()
    }

    fn step(&self, at: Timestamp, step: StepId, how: &str) -> Vec<String> {
        let number = step.0 as usize;
        let Some(name) = number.checked_sub(1).and_then(|i| self.names.get(i)) else {
            return Vec::new();
        };
        let total = self.names.len();
        vec![timed(at, &format!("Building: Step {number}/{total} : {name}{how}"))]
    }

    fn line(&mut self, at: Timestamp, line: &LogLine) -> Vec<String> {
        let advice = self.generated && line.step.is_none() && line.level == Level::Warn;
        if line.level == Level::Debug || advice {
            return Vec::new();
        }
        let place = (line.step, line.stream);
        let begun = self.begun.remove(&place).unwrap_or_default();
        let text = if begun.is_empty() { line.text.clone() } else { begun + &line.text };
        if line.partial && text.len() < LINE_BYTES_MAX {
            self.begun.insert(place, text);
            return Vec::new();
        }
        let source = match (line.step, line.level) {
            (Some(_), _) => "Building: ",
            (None, Level::Error) => "ERROR: ",
            (None, _) => "",
        };
        text.split('\n').map(|part| timed(at, &format!("{source}{part}"))).collect()
    }
}

fn timed(at: Timestamp, text: &str) -> String {
    let at = DateTime::<Utc>::from_timestamp_nanos(at.nanos());
    format!("{} UTC -- {text}", at.format("%Y-%m-%d %H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: Event) -> Entry {
        Entry { number: 0, time: Timestamp::from_nanos(1_534_710_000_000_000_000), event }
    }

    fn said(step: Option<u32>, text: &str, partial: bool) -> Entry {
        let step = step.map(StepId);
        let mut line = LogLine::service(Level::Info, text);
        (line.step, line.partial) = (step, partial);
        entry(Event::Log(line))
    }

    #[test]
    fn pieces_of_a_line_become_one() {
        let mut lines = Lines::default();
        assert!(lines.feed(&said(Some(1), "one ", true)).is_empty());
        assert!(lines.feed(&said(Some(2), "other ", true)).is_empty());
        let done = lines.feed(&said(Some(1), "line", false));
        assert_eq!(done, ["2018-08-19 20:20:00 UTC -- Building: one line"]);
        assert_eq!(lines.feed(&said(None, "hello", false)), ["2018-08-19 20:20:00 UTC -- hello"]);
    }

    #[test]
    fn a_line_without_end_is_given_out_in_parts() {
        let mut lines = Lines::default();
        let piece = "x".repeat(LINE_BYTES_MAX / 2);
        let given: usize = (0..10).map(|_| lines.feed(&said(Some(1), &piece, true)).len()).sum();
        assert_eq!(given, 5);
    }

    #[test]
    fn a_log_that_was_removed_says_so() {
        let value = serde_json::json!({ "log_removed": "age" });
        let note = entry(Event::Note { dialect: "retention".into(), value });
        let said = Lines::default().feed(&note);
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("UTC -- log removed by retention (age) at 2018-"), "{said:?}");
    }

    #[test]
    fn advice_about_the_template_is_left_out_and_each_line_has_its_time() {
        let advice = entry(Event::Log(LogLine::service(Level::Warn, "Dockerfile:5: x\nhint: y")));
        assert!(Lines::new(true).feed(&advice).is_empty());
        let lines = Lines::new(false).feed(&advice);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|l| l.starts_with("2018-08-19 20:20:00 UTC -- ")), "{lines:?}");
    }

    #[test]
    fn steps_have_their_names() {
        let mut lines = Lines::default();
        lines
            .feed(&entry(Event::Steps { names: vec!["[1/2] RUN a".into(), "[2/2] RUN b".into()] }));
        let started = lines.feed(&entry(Event::StepStarted { step: StepId(2) }));
        assert!(started[0].ends_with("-- Building: Step 2/2 : [2/2] RUN b"), "{started:?}");
        assert!(lines.feed(&entry(Event::StepStarted { step: StepId(9) })).is_empty());
    }
}
