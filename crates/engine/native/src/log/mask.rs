//! Removes the values of secrets from what steps write, before anything is stored.
//!
//! Masked are: each line of a value (and so each value of one line), its base64 forms and its
//! percent-encoded form. Short values would mask half of any log and are left alone; whoever
//! declares them is warned ([`Masker::too_short`]).

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shorter values are not masked.
pub const MASKED_MIN: usize = 4;

/// What stands in the place of a secret.
pub const MASK: &[u8] = b"***";

/// Replaces secrets in pieces of output.
#[derive(Debug, Default)]
pub struct Masker {
    patterns: Option<AhoCorasick>,
    longest: usize,
}

impl Masker {
    /// Makes a masker for the values of all secrets of a build.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut forms: Vec<Vec<u8>> = values.into_iter().flat_map(forms_of).collect();
        forms.sort();
        forms.dedup();
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        let mut builder = AhoCorasick::builder();
        builder.match_kind(MatchKind::LeftmostLongest);
        let patterns = (!forms.is_empty()).then(|| builder.build(&forms).ok()).flatten();
        Self { patterns, longest }
    }

    /// Says whether a value is too short to be masked.
    pub fn too_short(value: &[u8]) -> bool {
        value.trim_ascii().len() < MASKED_MIN
    }

    /// Returns `text` without secrets.
    pub fn mask(&self, text: &[u8]) -> Vec<u8> {
        let Some(patterns) = &self.patterns else { return text.to_vec() };
        let mut out = Vec::with_capacity(text.len());
        let mut rest = 0;
        for found in patterns.find_iter(text) {
            out.extend_from_slice(&text[rest..found.start()]);
            out.extend_from_slice(MASK);
            rest = found.end();
        }
        out.extend_from_slice(&text[rest..]);
        out
    }

    /// Returns where `text` may be cut so that no secret lies across the cut: at most `text.len()`,
    /// and at least one byte past 0 unless the text is empty.
    pub fn safe_cut(&self, text: &[u8]) -> usize {
        let Some(patterns) = &self.patterns else { return text.len() };
        // A secret that begins before this point lies whole within the text.
        let mut cut = text.len().saturating_sub(self.longest.saturating_sub(1));
        for found in patterns.find_iter(text) {
            if found.start() < cut && found.end() > cut {
                cut = found.end();
            }
        }
        cut
    }

    /// Returns the length of the longest text that is masked, in bytes.
    pub const fn longest(&self) -> usize {
        self.longest
    }
}

fn forms_of(value: &[u8]) -> Vec<Vec<u8>> {
    let whole = value.trim_ascii();
    let lines = value.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
    let mut forms = Vec::new();
    for text in lines.chain([whole]) {
        if text.len() < MASKED_MIN || text.contains(&b'\n') {
            continue;
        }
        forms.push(text.to_vec());
        forms.push(percent_encoded(text));
    }
    for text in [value, whole] {
        if !Masker::too_short(text) {
            forms.push(STANDARD_NO_PAD.encode(text).into_bytes());
            forms.push(URL_SAFE_NO_PAD.encode(text).into_bytes());
        }
    }
    forms
}

fn percent_encoded(text: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for &b in text {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(b);
        } else {
            out.extend([b'%', DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_a_value_are_masked() {
        let masker = Masker::new([b"p@ss w0rd\n".as_slice(), b"line-one\nline-two"]);
        let text = b"a p@ss w0rd b p%40ss%20w0rd c cEBzcyB3MHJk line-two";
        assert_eq!(masker.mask(text), b"a *** b *** c *** ***");
    }

    #[test]
    fn short_values_and_none_at_all_change_nothing() {
        assert_eq!(Masker::new([b"abc".as_slice()]).mask(b"xabcx"), b"xabcx");
        assert!(Masker::too_short(b" abc\n"));
        let none = Masker::default();
        assert_eq!((none.mask(b"x"), none.safe_cut(b"xy")), (b"x".to_vec(), 2));
    }
}
