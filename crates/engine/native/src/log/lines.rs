//! Cuts what a step writes into text of whole lines.

use ashlar_core::graph::StepId;
use ashlar_core::journal::{Level, LogText, Stream};

use super::mask::Masker;

/// A longer line is cut into pieces of at most this many bytes, all but the last marked partial.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

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
            let cut = self.masker.safe_cut(&self.buffer);
            let cut = char_boundary(&self.buffer, cut);
            self.emit(cut, true, out);
            bytes = later;
        }
        self.buffer.extend_from_slice(bytes);
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

/// Moves a cut back so that it does not split a UTF-8 character, by at most three bytes.
fn char_boundary(bytes: &[u8], cut: usize) -> usize {
    let back = (0..4).find(|&n| cut > n && bytes.get(cut - n).is_none_or(|b| b & 0xC0 != 0x80));
    back.map_or(cut, |n| cut - n)
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
