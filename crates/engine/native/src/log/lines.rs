//! Cuts what a step writes into text of whole lines.

use ashlar_core::graph::StepId;
use ashlar_core::journal::{Level, LogText, Stream};

use super::mask::Masker;

/// A longer line is cut into pieces of at most this many bytes, all but the last marked partial.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// A longer escape sequence may lie across a cut.
const SEQUENCE_BYTES_MAX: usize = 64;
/// The longest character of UTF-8, in bytes.
const CHAR_BYTES_MAX: usize = 4;

/// Collects one stream of one step.
pub struct LineCutter<'a> {
    masker: &'a Masker,
    step: Option<StepId>,
    stream: Stream,
    /// The line whose end is not there yet.
    buffer: Vec<u8>,
}

impl<'a> LineCutter<'a> {
    /// Makes a cutter with nothing collected.
    pub fn new(masker: &'a Masker, step: Option<StepId>, stream: Stream) -> Self {
        Self { masker, step, stream, buffer: Vec::new() }
    }

    /// Takes bytes as they come and hands out the lines that are whole, all at once.
    ///
    /// A line is held back until its end is there, because a secret may arrive in two writes; a
    /// line above [`LINE_BYTES_MAX`] is cut where no secret lies across the cut.
    pub fn push(&mut self, bytes: &[u8], out: &mut dyn FnMut(LogText)) {
        // No line within a piece can be too long.
        for piece in bytes.chunks(LINE_BYTES_MAX) {
            let Some(end) = memchr::memrchr(b'\n', piece) else {
                self.extend(piece, out);
                continue;
            };
            let (whole, rest) = piece.split_at(end + 1);
            if self.buffer.is_empty() {
                out(self.text(whole, false));
            } else {
                let first = memchr::memchr(b'\n', whole).unwrap_or(end);
                self.extend(&whole[..first], out);
                self.buffer.extend_from_slice(&whole[first..]);
                self.emit(self.buffer.len(), false, out);
            }
            self.extend(rest, out);
        }
    }

    /// Hands out what is left: an unfinished line counts.
    pub fn finish(&mut self, out: &mut dyn FnMut(LogText)) {
        if !self.buffer.is_empty() {
            self.emit(self.buffer.len(), false, out);
        }
    }

    fn extend(&mut self, mut bytes: &[u8], out: &mut dyn FnMut(LogText)) {
        let room = LINE_BYTES_MAX + self.masker.longest();
        while self.buffer.len() + bytes.len() > room {
            let (now, later) = bytes.split_at(room - self.buffer.len());
            self.buffer.extend_from_slice(now);
            self.emit(self.cut(), true, out);
            bytes = later;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns where the buffer is cut: not within a secret, and if that can be, neither within a
    /// character nor within an escape sequence.
    fn cut(&self) -> usize {
        let cut = self.masker.safe_cut(&self.buffer);
        let begun = begun_sequence(&self.buffer[..cut]).or_else(|| begun_char(&self.buffer[..cut]));
        let before = begun.filter(|&at| at > 0 && self.masker.may_cut(&self.buffer, at));
        before.unwrap_or(cut)
    }

    fn emit(&mut self, end: usize, partial: bool, out: &mut dyn FnMut(LogText)) {
        out(self.text(&self.buffer[..end], partial));
        self.buffer.drain(..end);
    }

    fn text(&self, bytes: &[u8], partial: bool) -> LogText {
        let level = if self.stream == Stream::Stderr { Level::Warn } else { Level::Info };
        let bytes = self.masker.mask(bytes);
        LogText { step: self.step, stream: self.stream, level, bytes, partial }
    }
}

/// Returns where a character of UTF-8 begins whose end is not there.
fn begun_char(bytes: &[u8]) -> Option<usize> {
    let tail = bytes.len().saturating_sub(CHAR_BYTES_MAX - 1);
    let at = tail + bytes[tail..].iter().rposition(|b| b & 0xC0 != 0x80)?;
    let length = match bytes[at] {
        0xF0.. => 4,
        0xE0.. => 3,
        0xC0.. => 2,
        _ => 1,
    };
    (bytes.len() - at < length).then_some(at)
}

/// Returns where an escape sequence begins whose end is not there. Of a control string, as a title
/// is one, that is known only when it has just begun.
fn begun_sequence(bytes: &[u8]) -> Option<usize> {
    let tail = bytes.len().saturating_sub(SEQUENCE_BYTES_MAX);
    let at = tail + memchr::memrchr(b'\x1b', &bytes[tail..])?;
    let ended = match &bytes[at + 1..] {
        [] => false,
        [b'[', rest @ ..] => rest.iter().any(|b| !matches!(b, b' '..=b'?')),
        [b'P' | b'X' | b']' | b'^' | b'_', rest @ ..] => rest.iter().any(u8::is_ascii_control),
        rest => rest.iter().any(|b| !matches!(b, b' '..=b'/')),
    };
    (!ended).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(masker: &Masker, pieces: &[&[u8]]) -> Vec<(String, bool)> {
        let mut out = Vec::new();
        let mut cutter = LineCutter::new(masker, None, Stream::Stdout);
        let mut take = |t: LogText| out.extend(t.lines().map(|l| (l.text, l.partial)));
        pieces.iter().for_each(|p| cutter.push(p, &mut take));
        cutter.finish(&mut take);
        out
    }

    #[test]
    fn lines_are_whole_and_the_last_one_counts() {
        let none = Masker::default();
        let got = lines(&none, &[b"a", b"b\n\nc", b"d"]);
        let whole = |t: &str| (t.to_owned(), false);
        assert_eq!(got, [whole("ab"), whole(""), whole("cd")]);
    }

    #[test]
    fn bytes_that_are_not_text_are_kept() {
        let none = Masker::default();
        let mut cutter = LineCutter::new(&none, None, Stream::Stderr);
        let mut got = Vec::new();
        cutter.push(b"\xff\n", &mut |t| got.extend(t.lines()));
        let line = &got[0];
        assert_eq!((line.raw.as_deref(), line.level), (Some(b"\xff".as_slice()), Level::Warn));
    }

    #[test]
    fn whole_lines_come_in_one_piece() {
        let masker = Masker::new([b"hidden".as_slice()]);
        let mut cutter = LineCutter::new(&masker, None, Stream::Stdout);
        let mut got = Vec::new();
        for bytes in [&b"a\nb hidd"[..], b"en\nc\nd", b"\n"] {
            cutter.push(bytes, &mut |t| got.push(String::from_utf8(t.bytes).unwrap()));
        }
        assert_eq!(got, ["a\n", "b ***\nc\n", "d\n"]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let text = "é".repeat(LINE_BYTES_MAX);
        let got = lines(&Masker::default(), &[text.as_bytes()]);
        assert!(got.len() > 1 && got.iter().all(|(t, _)| !t.contains('\u{fffd}')));
        assert_eq!(got.iter().map(|(t, _)| t.as_str()).collect::<String>(), text);
        assert_eq!(got.iter().filter(|(_, partial)| !partial).count(), 1);
    }

    #[test]
    fn a_cut_at_the_end_of_what_is_there_splits_no_character() {
        for (fill, char) in [(1, "é"), (1, "€"), (2, "€"), (1, "𝄞"), (2, "𝄞"), (3, "𝄞")]
        {
            let text = format!("{}{char} and on", "A".repeat(LINE_BYTES_MAX - fill));
            let got = lines(&Masker::default(), &[text.as_bytes()]);
            assert_eq!(got[0], ("A".repeat(LINE_BYTES_MAX - fill), true), "{fill} {char}");
            assert_eq!(got[1], (format!("{char} and on"), false));
        }
        // What is no text has no characters to split.
        let odd = vec![0xBF; LINE_BYTES_MAX + 1];
        assert_eq!(lines(&Masker::default(), &[&odd]).len(), 2);
    }

    #[test]
    fn a_cut_splits_no_escape_sequence() {
        for (sequence, at) in [("\x1b[1;31m", 1), ("\x1b[1;31m", 6), ("\x1b]0;a\x07", 4)] {
            let text = format!("{}{sequence}on", "A".repeat(LINE_BYTES_MAX - at));
            let got = lines(&Masker::default(), &[text.as_bytes()]);
            assert_eq!(got[1].0, format!("{sequence}on"), "{sequence:?} at {at}");
        }
        let whole = format!("{}\x1b[1mon", "A".repeat(LINE_BYTES_MAX - "\x1b[1m".len()));
        assert_eq!(lines(&Masker::default(), &[whole.as_bytes()])[1].0, "on");
        // One that does not end is cut.
        let endless = format!("{}\x1b[{}", "A".repeat(LINE_BYTES_MAX - 100), "1".repeat(200));
        assert_eq!(lines(&Masker::default(), &[endless.as_bytes()])[0].0.len(), LINE_BYTES_MAX);
    }

    #[test]
    fn a_secret_is_not_cut_for_the_sake_of_a_character() {
        // Its last byte looks like the first one of a character.
        let secret = b"s3cr3t-value\xC3";
        let masker = Masker::new([secret.as_slice()]);
        let room = LINE_BYTES_MAX + masker.longest();
        for shift in 0..2 * secret.len() {
            let mut text = vec![b'.'; room - secret.len() - shift];
            text.extend_from_slice(secret);
            text.resize(room + 100, 0xA9);
            let all: String = lines(&masker, &[&text]).into_iter().map(|(text, _)| text).collect();
            assert!(!all.contains("s3cr3t") && all.contains("***"), "{shift}");
        }
    }

    #[test]
    fn a_stream_that_ends_within_a_line_says_so() {
        let none = Masker::default();
        let mut cutter = LineCutter::new(&none, None, Stream::Stdout);
        let mut got = Vec::new();
        let mut take = |t: LogText| got.extend(t.lines().map(|l| (l.text, l.unended)));
        cutter.push(b"a\nabc", &mut take);
        cutter.finish(&mut take);
        assert_eq!(got, [("a".to_owned(), false), ("abc".to_owned(), true)]);
    }

    proptest! {
        #[test]
        fn a_secret_never_passes_however_it_is_cut(
            noise in "[a-c\n]{0,50}",
            at in 0usize..200_000,
            cuts in prop::collection::vec(0usize..200_000, 0..6),
        ) {
            let secret = b"s3cr3t-value";
            let masker = Masker::new([secret.as_slice()]);
            let mut text = noise.into_bytes();
            text.resize(at.max(text.len()), b'.');
            text.extend_from_slice(secret);
            text.extend_from_slice(b"tail");
            let mut ends: Vec<usize> = cuts.iter().map(|c| c % text.len()).collect();
            ends.push(text.len());
            ends.sort_unstable();
            let mut pieces = Vec::new();
            let mut begin = 0;
            for end in ends {
                pieces.push(&text[begin..end]);
                begin = end;
            }
            let all: String = lines(&masker, &pieces).into_iter().map(|(t, _)| t).collect();
            prop_assert!(!all.contains("s3cr3t-value"));
            prop_assert!(all.ends_with("***tail"));
        }
    }
}
