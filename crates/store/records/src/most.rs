//! How much one read returns: so many entries, and so many bytes of them, since a line may be long.

use ashlar_core::journal::{Entry, Event, LogLine};

/// What an entry takes beside its text, in bytes: about what JSON needs for numbers, times and keys.
const ENTRY_BYTES: usize = 128;
/// What JSON needs for a control character (`\u001b`) beyond the one byte that it has.
const ESCAPE_BYTES: usize = 5;
/// What JSON needs for a byte of a line that is not text (`255,`).
const RAW_BYTES: usize = 4;

/// How much one read returns at most. It reads on until one of the bounds is reached, so that what
/// it returns passes `bytes` by less than its last entry, and is never nothing where there is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// Entries.
    pub entries: usize,
    /// Bytes as [`line_bytes`] counts them.
    pub bytes: usize,
}

impl Most {
    /// Bounds only how many entries there are.
    pub(crate) const fn entries(entries: usize) -> Self {
        Self { entries, bytes: usize::MAX }
    }

    /// Takes off what an entry needs.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Says whether nothing more is wanted.
    pub(crate) const fn is_reached(&self) -> bool {
        self.entries == 0 || self.bytes == 0
    }
}

/// Returns about how many bytes a log line takes as JSON.
pub fn line_bytes(line: &LogLine) -> usize {
    let controls = line.text.bytes().filter(u8::is_ascii_control).count();
    let quotes = line.text.bytes().filter(|b| matches!(b, b'"' | b'\\')).count();
    let raw = line.raw.as_ref().map_or(0, Vec::len);
    ENTRY_BYTES + line.text.len() + controls * ESCAPE_BYTES + quotes + raw * RAW_BYTES
}

/// Returns about how many bytes an entry takes as JSON; `row` are those of the row that it lies in,
/// which an event has for itself.
pub(crate) fn entry_bytes(entry: &Entry, row: usize) -> usize {
    match &entry.event {
        Event::Log(line) => line_bytes(line),
        _ => ENTRY_BYTES + row,
    }
}

#[cfg(test)]
mod tests {
    use ashlar_core::Timestamp;
    use ashlar_core::journal::Level;

    use super::*;

    #[test]
    fn lines_count_as_what_they_are_as_json() {
        let raw = Some((0..=255).collect());
        let coloured = LogLine::service(Level::Warn, "\u{1b}[1mé\u{1b}[0m".repeat(100));
        for line in [
            LogLine::service(Level::Info, "x".repeat(1000)),
            LogLine { raw, ..LogLine::service(Level::Info, "\u{fffd}".repeat(128)) },
            LogLine::service(Level::Info, "\"\\".repeat(500)),
            coloured,
        ] {
            let event = Event::Log(line.clone());
            let entry = Entry { number: 1 << 40, time: Timestamp::from_nanos(1 << 60), event };
            let json = serde_json::to_string(&entry).unwrap().len();
            let counted = line_bytes(&line);
            assert_eq!(entry_bytes(&entry, 9), counted);
            assert!((json..json + json / 4).contains(&counted), "{counted} for {json}");
        }
    }
}
