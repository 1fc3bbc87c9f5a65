//! Log text as it comes from a step: many lines in one piece.

use super::{Level, LogLine, Stream};
use crate::Timestamp;
use crate::graph::StepId;

/// Lines that one stream of a step wrote at one time. Each is an entry of its own, numbered and
/// read like any other; together they cost one allocation and one look instead of one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogText {
    /// The step that wrote them; none for the service.
    pub step: Option<StepId>,
    /// Where they were written.
    pub stream: Stream,
    /// How much they matter.
    pub level: Level,
    /// The exact bytes: lines with their newlines, which only the last one may lack. It is then
    /// partial, or where the stream ended.
    pub bytes: Vec<u8>,
    /// Whether the next text of the stream goes on with the last line, which then has no newline.
    pub partial: bool,
}

impl LogText {
    /// Counts the lines.
    pub fn count(&self) -> u64 {
        count_lines(&self.bytes)
    }

    /// Returns the lines one by one.
    pub fn lines(&self) -> impl Iterator<Item = LogLine> + '_ {
        let (step, stream, level) = (self.step, self.stream, self.level);
        split_lines(&self.bytes).map(move |(bytes, last)| {
            let (text, raw) = decode(bytes);
            let (partial, unended) = how_ends(&self.bytes, last, self.partial);
            LogLine { step, stream, level, text, raw, partial, unended }
        })
    }
}

/// Counts the lines of a text; an unfinished one at the end counts.
pub fn count_lines(bytes: &[u8]) -> u64 {
    let unfinished = bytes.last().is_some_and(|b| *b != b'\n');
    memchr::memchr_iter(b'\n', bytes).count() as u64 + u64::from(unfinished)
}

/// Returns each line without its newline, and whether it is the last one.
pub fn split_lines(bytes: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some((line, rest.is_empty()))
    })
}

/// Returns whether a line of a text is partial, and whether the stream ended within it.
pub fn how_ends(text: &[u8], last: bool, partial: bool) -> (bool, bool) {
    let cut = last && text.last().is_some_and(|b| *b != b'\n');
    (last && partial, cut && !partial)
}

/// Returns a line's text, and its bytes too where they are not UTF-8.
pub fn decode(bytes: &[u8]) -> (String, Option<Vec<u8>>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(bytes.to_vec())),
    }
}

/// Where a run of lines lies in a journal. Lines of one text are a nanosecond apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRun {
    /// Number of the first line.
    pub number: u64,
    /// How many lines; at least one.
    pub count: u64,
    /// Time of the first line.
    pub first: Timestamp,
    /// Time of the last line.
    pub last: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], partial: bool) -> LogText {
        let (stream, level) = (Stream::Stdout, Level::Info);
        LogText { step: None, stream, level, bytes: bytes.to_vec(), partial }
    }

    #[test]
    fn lines_come_out_as_they_were_written() {
        for (bytes, want) in [
            (&b""[..], &[][..]),
            (b"\n", &[""]),
            (b"a\n\nb", &["a", "", "b"]),
            (b"a\nb\n", &["a", "b"]),
        ] {
            let text = text(bytes, false);
            let lines: Vec<String> = text.lines().map(|l| l.text).collect();
            assert_eq!(lines, want);
            assert_eq!(text.count(), want.len() as u64);
        }
    }

    #[test]
    fn only_the_last_line_is_partial_and_odd_bytes_are_kept() {
        let text = text(b"ok\n\xff", true);
        let lines: Vec<LogLine> = text.lines().collect();
        assert_eq!((lines[0].partial, lines[1].partial), (false, true));
        assert_eq!(lines[1].raw.as_deref(), Some(&b"\xff"[..]));
        assert_eq!(lines[0].raw, None);
    }

    #[test]
    fn where_the_stream_ended_within_a_line_is_known() {
        let ends = |bytes: &[u8], partial| {
            let lines = text(bytes, partial).lines().collect::<Vec<_>>();
            lines.iter().map(|l| l.unended).collect::<Vec<_>>()
        };
        assert_eq!(ends(b"a\nb", false), [false, true]);
        assert_eq!(ends(b"a\nb\n", false), [false, false]);
        assert_eq!(ends(b"a\nb", true), [false, false]);
    }
}
