//! Bounds what a step may say: past the bound only the end is kept, and the log says so.
//!
//! The head is written as it comes. What comes after waits in memory, only so much of it as the
//! tail may hold, until the log ends: nobody has seen it before, so nobody misses what had to go.

use std::collections::VecDeque;

use ashlar_core::Timestamp;
use ashlar_core::journal::text::count_lines;
use ashlar_core::journal::{Level, LogLine, LogText, Stream};

/// What the tail may hold, in bytes: it waits in memory.
const TAIL_BYTES_MAX: u64 = 1024 * 1024;
/// The tail is at most this part of the whole.
const TAIL_PART: u64 = 4;

/// What is known of a log with a bound.
#[derive(Debug)]
pub(crate) struct Cap {
    bytes: u64,
    /// What the head may still take.
    left: u64,
    /// Whether something did not fit.
    full: bool,
    tail: VecDeque<(Timestamp, LogText)>,
    tail_bytes: u64,
    tail_max: u64,
    gone_lines: u64,
    gone_bytes: u64,
}

impl Cap {
    pub(crate) fn new(bytes: u64) -> Self {
        let tail_max = TAIL_BYTES_MAX.min(bytes / TAIL_PART);
        let tail = VecDeque::new();
        let left = bytes - tail_max;
        let (full, tail_bytes, gone_lines, gone_bytes) = (false, 0, 0, 0);
        Self { bytes, left, full, tail, tail_bytes, tail_max, gone_lines, gone_bytes }
    }

    /// Takes what a step said and returns what is to be written now.
    pub(crate) fn admit(&mut self, at: Timestamp, mut text: LogText) -> Vec<LogText> {
        let length = text.bytes.len() as u64;
        if !self.full && length <= self.left {
            self.left -= length;
            return vec![text];
        }
        let mut now = Vec::new();
        if !self.full {
            self.full = true;
            now.extend(take_head(&mut text, self.left));
            now.push(notice(format!(
                "the log has reached its limit of {} bytes; of what follows the last {} bytes \
                 are kept, and come at the end",
                self.bytes, self.tail_max
            )));
        }
        self.keep(at, text);
        now
    }

    /// As [`Cap::admit`], for a single line: says whether it is to be written now.
    pub(crate) fn admit_line(&mut self, at: Timestamp, line: &LogLine) -> Option<Vec<LogText>> {
        let bytes = line.raw.as_deref().unwrap_or(line.text.as_bytes());
        if !self.full && bytes.len() as u64 <= self.left {
            self.left -= bytes.len() as u64;
            return None;
        }
        let mut bytes = bytes.to_vec();
        if !line.partial && !line.unended {
            bytes.push(b'\n');
        }
        let (step, stream, level, partial) = (line.step, line.stream, line.level, line.partial);
        Some(self.admit(at, LogText { step, stream, level, bytes, partial }))
    }

    fn keep(&mut self, at: Timestamp, text: LogText) {
        self.tail_bytes += text.bytes.len() as u64;
        self.tail.push_back((at, text));
        while self.tail_bytes > self.tail_max {
            let over = self.tail_bytes - self.tail_max;
            let Some((_, first)) = self.tail.front_mut() else { return };
            let before = first.bytes.len() as u64;
            let cut = usize::try_from(over).unwrap_or(usize::MAX);
            // Whole lines go; the last one with its piece.
            let end = first.bytes.get(cut.saturating_sub(1)..).and_then(|rest| {
                memchr::memchr(b'\n', rest).map(|at| cut.saturating_sub(1) + at + 1)
            });
            match end.filter(|end| (*end as u64) < before) {
                Some(end) => {
                    self.gone_lines += count_lines(&first.bytes[..end]);
                    first.bytes.drain(..end);
                    self.gone_bytes += end as u64;
                    self.tail_bytes -= end as u64;
                }
                None => {
                    self.gone_lines += first.count();
                    self.gone_bytes += before;
                    self.tail_bytes -= before;
                    self.tail.pop_front();
                }
            }
        }
    }

    /// Returns the tail, with a line that says what is missing before it.
    pub(crate) fn end(&mut self) -> Vec<(Timestamp, LogText)> {
        let Some((first, _)) = self.tail.front() else { return Vec::new() };
        let (lines, bytes) = (self.gone_lines, self.gone_bytes);
        let missing = notice(format!("{lines} lines ({bytes} bytes) of log are left out here"));
        let mut tail = Vec::with_capacity(self.tail.len() + 1);
        if lines > 0 {
            tail.push((*first, missing));
        }
        tail.extend(std::mem::take(&mut self.tail));
        (self.tail_bytes, self.gone_lines, self.gone_bytes) = (0, 0, 0);
        tail
    }
}

/// Takes the lines from the front of a text that fit.
fn take_head(text: &mut LogText, room: u64) -> Option<LogText> {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(text.bytes.len());
    let end = memchr::memrchr(b'\n', &text.bytes[..room])? + 1;
    let rest = text.bytes.split_off(end);
    let bytes = std::mem::replace(&mut text.bytes, rest);
    let (step, stream, level) = (text.step, text.stream, text.level);
    Some(LogText { step, stream, level, bytes, partial: false })
}

fn notice(text: String) -> LogText {
    let (stream, level) = (Stream::Service, Level::Warn);
    LogText { step: None, stream, level, bytes: (text + "\n").into_bytes(), partial: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &str) -> LogText {
        let (stream, level) = (Stream::Stdout, Level::Info);
        LogText { step: None, stream, level, bytes: bytes.into(), partial: false }
    }

    fn said(texts: impl IntoIterator<Item = LogText>) -> String {
        texts.into_iter().map(|t| String::from_utf8(t.bytes).unwrap()).collect()
    }

    #[test]
    fn head_and_tail_are_kept_and_the_rest_is_counted() {
        let mut cap = Cap::new(400);
        let mut written = String::new();
        for n in 0..1000 {
            let line = format!("line {n:04}\n");
            written += &said(cap.admit(Timestamp::from_nanos(n), text(&line)));
        }
        let tail: Vec<(Timestamp, LogText)> = cap.end();
        assert_eq!(tail.last().unwrap().0, Timestamp::from_nanos(999));
        written += &said(tail.into_iter().map(|(_, text)| text));
        let lines: Vec<&str> = written.lines().collect();
        assert_eq!(lines[..30], (0..30).map(|n| format!("line {n:04}")).collect::<Vec<_>>());
        assert!(lines[30].contains("limit of 400 bytes"), "{}", lines[30]);
        assert_eq!(lines[31], "960 lines (9600 bytes) of log are left out here");
        assert_eq!(lines[32..], (990..1000).map(|n| format!("line {n:04}")).collect::<Vec<_>>());
        assert!(cap.end().is_empty());
    }

    #[test]
    fn pieces_are_cut_between_lines() {
        let mut cap = Cap::new(40);
        let head = said(
            cap.admit(Timestamp::from_nanos(1), text("one\ntwo\nthree\nfour\nfive\nsix\nseven\n")),
        );
        assert!(
            head.starts_with("one\ntwo\nthree\nfour\nfive\nsix\nthe log")
                || head.starts_with("one\ntwo\nthree\nfour\nfive\nthe log"),
            "{head}"
        );
        let tail = said(cap.end().into_iter().map(|(_, t)| t));
        assert!(tail.ends_with("seven\n"), "{tail}");
    }

    #[test]
    fn a_log_that_fits_is_left_alone() {
        let mut cap = Cap::new(400);
        assert_eq!(said(cap.admit(Timestamp::default(), text("a\nb"))), "a\nb");
        let line = LogLine::service(Level::Info, "c");
        assert_eq!(cap.admit_line(Timestamp::default(), &line), None);
        assert!(cap.end().is_empty());
        let long = LogLine::service(Level::Info, "d".repeat(500));
        let now = cap.admit_line(Timestamp::default(), &long).unwrap();
        assert!(said(now).starts_with("the log has reached"));
    }
}
