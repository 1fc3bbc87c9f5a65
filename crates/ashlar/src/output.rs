//! Writing for people and for programs: tables, sizes, ages, JSON.

use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use ashlar_core::Timestamp;
use ashlar_core::terminal::{self, Piece};
use serde::Serialize;

/// Version of every JSON document and line that the program writes.
pub(crate) const JSON_VERSION: u32 = 1;

/// Writes a line to standard output.
pub(crate) fn line(text: impl AsRef<str>) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", text.as_ref())
}

/// Writes a line for people to standard error. What nobody can read any more is lost.
pub(crate) fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Writes one JSON document as a line to standard output, with `"version": 1`.
pub(crate) fn json<T: Serialize>(value: &T) -> io::Result<()> {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        version: u32,
        #[serde(flatten)]
        value: &'a T,
    }
    let text = serde_json::to_string(&Versioned { version: JSON_VERSION, value })?;
    line(text)
}

/// Columns of text with headings, aligned.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Begins with the headings.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned).to_vec()] }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|c| clean(&c)).to_vec());
    }

    /// Returns the lines; the last column is not padded.
    pub(crate) fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |i: usize| {
            self.rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let text = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(c, w)| format!("{c:<w$}"));
            cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
        };
        self.rows.iter().map(text).collect()
    }

    /// Writes it to standard output.
    pub(crate) fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        self.lines().iter().try_for_each(|l| writeln!(out, "{l}"))
    }
}

/// Takes control characters and escape sequences out of text that steps or registries have written.
pub(crate) fn clean(text: &str) -> String {
    terminal::text(text)
}

/// Returns a line of a step's log as a terminal would show it in the end: of a progress bar the last
/// state. Colours stay when they are wanted and end with the line; all other sequences go.
pub(crate) fn said(line: &str, colours: bool) -> String {
    let (mut text, mut coloured) = (String::with_capacity(line.len()), false);
    for piece in terminal::pieces(line) {
        match piece {
            Piece::Text(shown) => text.push_str(shown),
            Piece::Look(numbers) if colours => {
                coloured = !matches!(numbers, "" | "0");
                text.extend(["\x1b[", numbers, "m"]);
            }
            Piece::Look(_) => {}
        }
    }
    if coloured {
        text.push_str("\x1b[0m");
    }
    text
}

/// Returns a size for people.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Returns a duration for people.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Returns how long ago a time was, for people.
pub(crate) fn ago(time: Timestamp) -> String {
    let past = ashlar_records::now().since(time);
    match past.as_secs() {
        0..60 => format!("{}s ago", past.as_secs()),
        60..3600 => format!("{}m ago", past.as_secs() / 60),
        3600..172_800 => format!("{}h ago", past.as_secs() / 3600),
        _ => format!("{}d ago", past.as_secs() / 86_400),
    }
}

/// Says whether standard output or standard error may get colours.
pub(crate) fn colours(out: &impl IsTerminal) -> bool {
    let unset = |name| std::env::var_os(name).is_none_or(|v| v.is_empty());
    out.is_terminal() && unset("NO_COLOR") && std::env::var("TERM").is_ok_and(|t| t != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_go() {
        let mut table = Table::new(["A", "LONG"]);
        table.row(["one\x1b[2J".into(), "x".into()]);
        assert_eq!(table.lines(), ["A     LONG", "one   x"]);
    }

    #[test]
    fn colours_of_a_log_go_to_terminals_and_end_with_the_line() {
        let line = "\x1b[32m+ added\x1b[0m \x1b[1mbold\x1b[2K";
        assert_eq!(said(line, false), "+ added bold");
        assert_eq!(said(line, true), "\x1b[32m+ added\x1b[0m \x1b[1mbold\x1b[0m");
        assert_eq!(said("\x1b[31mred\x1b[m", true), "\x1b[31mred\x1b[m");
        assert_eq!(said("\x1b]0;title\x07\x1b[5A\x1b[?25lx\x08", true), "x");
    }

    #[test]
    fn of_a_progress_bar_the_last_state_is_shown() {
        assert_eq!(said("\rDownloading 10%\rDownloading 50%", false), "Downloading 50%");
        assert_eq!(said("\x1b[1mold\rnew\r", true), "\x1b[1mnew\x1b[0m");
        // Names hide nothing.
        assert_eq!(clean("RUN evil\rRUN good"), "RUN evilRUN good");
    }

    #[test]
    fn sizes_and_times_for_people() {
        assert_eq!((bytes(999), bytes(1536)), ("999 B".into(), "1.5 KiB".into()));
        assert_eq!(span(Duration::from_millis(1250)), "1.2s");
        assert_eq!(span(Duration::from_secs(125)), "2m05s");
    }
}
