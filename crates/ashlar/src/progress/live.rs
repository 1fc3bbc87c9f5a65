//! The live view on a terminal: the model's lines, drawn over those drawn before.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use ashlar_core::journal::{Event, Progress};

use super::model::{Model, Tone};
use super::{Ended, View};

/// Size of a terminal that does not tell.
const SIZE_DEFAULT: (usize, usize) = (80, 24);

/// Draws on standard error.
pub(crate) struct Live {
    model: Model,
    drawn: usize,
    colours: bool,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self { model: Model::new(), drawn: 0, colours: crate::output::colours(&io::stderr()) }
    }

    fn draw(&mut self, whole: bool) {
        let (columns, rows) = size();
        let lines = self.model.frame(columns, rows, whole);
        let mut text = String::new();
        if self.drawn > 0 {
            let _ = write!(text, "\x1b[{}A", self.drawn);
        }
        text.push_str("\r\x1b[J");
        for (tone, line) in &lines {
            let _ = match self.colour(*tone) {
                Some(code) => writeln!(text, "\x1b[{code}m{line}\x1b[0m"),
                None => writeln!(text, "{line}"),
            };
        }
        self.drawn = if whole { 0 } else { lines.len() };
        // A terminal that went away stops no build.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    fn colour(&self, tone: Tone) -> Option<&'static str> {
        let code = match tone {
            Tone::Head => "1",
            Tone::Running => return None,
            Tone::Done => "34",
            Tone::Cached => "32",
            Tone::Failed => "31",
            Tone::Quiet => "2",
        };
        self.colours.then_some(code)
    }
}

fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => SIZE_DEFAULT,
    }
}

impl View for Live {
    fn started(&mut self, _: &str, _: &str) {}

    fn event(&mut self, event: &Event) {
        self.model.event(event);
    }

    fn progress(&mut self, progress: &Progress) {
        self.model.progress(progress);
    }

    fn tick(&mut self) {
        self.draw(false);
    }

    fn ended(&mut self, _: &Ended<'_>) {
        self.draw(true);
        for warning in self.model.take_warnings() {
            crate::output::note(format!("warning: {warning}"));
        }
    }
}
