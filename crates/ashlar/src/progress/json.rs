//! JSON lines for programs: every event of the journal, numbered, with `"version": 1`.
//!
//! `event` says what a line is: the journal's events, and besides them `started`, `progress` and,
//! always last, `finished`.

use std::io::{self, Write};

use ashlar_core::journal::{Event, Progress};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Ended, View};
use crate::output::JSON_VERSION;

/// Writes JSON lines.
pub(crate) struct Json<W> {
    out: W,
    number: u64,
}

#[derive(Serialize)]
struct Line<T> {
    version: u32,
    number: u64,
    time: String,
    #[serde(flatten)]
    content: T,
}

impl Json<io::Stdout> {
    /// Writes to standard output.
    pub(crate) fn stdout() -> Self {
        Self::new(io::stdout())
    }
}

impl<W: Write> Json<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, number: 0 }
    }

    fn say<T: Serialize>(&mut self, content: T) {
        let time = ashlar_records::now().rfc3339();
        let line = Line { version: JSON_VERSION, number: self.number, time, content };
        self.number += 1;
        if let Ok(mut text) = serde_json::to_vec(&line) {
            text.push(b'\n');
            // When nobody reads any more the build still goes on.
            let _ = self.out.write_all(&text).and_then(|()| self.out.flush());
        }
    }
}

impl<W: Write + Send> View for Json<W> {
    fn started(&mut self, build: &str, name: &str) {
        self.say(json!({ "event": "started", "build": build, "name": name }));
    }

    fn event(&mut self, event: &Event) {
        self.say(event);
    }

    fn progress(&mut self, progress: &Progress) {
        let Progress { subject, done, total } = progress;
        self.say(json!({ "event": "progress", "subject": subject, "done": done, "total": total }));
    }

    fn ended(&mut self, end: &Ended<'_>) {
        let mut line = json!({
            "event": "finished",
            "build": end.build,
            "state": end.state,
            "seconds": end.took.as_secs_f64(),
        });
        if let (Value::Object(line), Ok(Value::Object(made))) =
            (&mut line, serde_json::to_value(end.made))
        {
            line.extend(made);
            if let Some(failure) = end.failure.and_then(|f| serde_json::to_value(f).ok()) {
                line.insert("failure".into(), failure);
            }
        }
        self.say(line);
    }
}
