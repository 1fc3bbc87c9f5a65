//! Removes the values of secrets from what steps write, before anything is stored.
//!
//! Masked are: each line of a value (and so each value of one line), its base64 forms and its
//! percent-encoded form. Short values would mask half of any log and are left alone; whoever
//! declares them is warned ([`Masker::too_short`]).
//!
//! Variables are masked likewise, but most of them are ordinary words (`CI=true`, `PORT=8080`): only
//! from [`VARIABLE_MIN`] bytes on, only where the value is not a part of a longer word, and not when
//! the definition, which anybody may read who reads the log, says the same.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;

use super::search::Search;

/// Shorter values are not masked.
pub const MASKED_MIN: usize = 4;

/// Shorter values of variables are not masked.
pub const VARIABLE_MIN: usize = 12;

/// What stands in the place of a secret.
pub const MASK: &[u8] = b"***";

/// Replaces secrets in pieces of output.
#[derive(Debug, Default)]
pub struct Masker {
    secrets: Search,
    variables: Search,
}

impl Masker {
    /// Makes a masker for the values of all secrets of a build.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let forms = values.into_iter().flat_map(|v| forms_of(v, MASKED_MIN)).collect();
        Self { secrets: Search::new(forms, false), variables: Search::default() }
    }

    /// Lets it mask the values of a build's variables too, but for those that stand in `said`.
    #[must_use]
    pub fn and_variables<'a>(
        self,
        values: impl IntoIterator<Item = &'a [u8]>,
        said: &[u8],
    ) -> Self {
        let secret = |value: &&[u8]| memmem::find(said, value.trim_ascii()).is_none();
        let values = values.into_iter().filter(secret);
        let forms = values.flat_map(|v| forms_of(v, VARIABLE_MIN)).collect();
        Self { variables: Search::new(forms, true), ..self }
    }

    /// Says whether a value is too short to be masked.
    pub fn too_short(value: &[u8]) -> bool {
        value.trim_ascii().len() < MASKED_MIN
    }

    /// Returns `text` without secrets.
    pub fn mask(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = 0;
        for place in self.find(text) {
            out.extend_from_slice(&text[rest..place.start]);
            out.extend_from_slice(MASK);
            rest = place.end;
        }
        out.extend_from_slice(&text[rest..]);
        out
    }

    /// Returns where `text` may be cut so that no secret lies across the cut: at most `text.len()`,
    /// and at least one byte past 0 unless the text is empty.
    pub fn safe_cut(&self, text: &[u8]) -> usize {
        // A secret that begins before this point lies whole within the text.
        let cut = text.len().saturating_sub(self.longest().saturating_sub(1));
        let across = |place: &Range<usize>| place.start < cut && place.end > cut;
        self.find(text).into_iter().find(across).map_or(cut, |place| place.end)
    }

    /// Says whether no secret lies across a place before [`Self::safe_cut`].
    pub fn may_cut(&self, text: &[u8], at: usize) -> bool {
        !self.find(text).iter().any(|place| place.start < at && place.end > at)
    }

    /// Returns the length of the longest text that is masked, in bytes.
    pub const fn longest(&self) -> usize {
        let (secret, variable) = (self.secrets.longest(), self.variables.longest());
        if secret > variable { secret } else { variable }
    }

    /// Returns what is to be masked, in order; what overlaps is one place.
    fn find(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        self.secrets.find(text, &mut found);
        self.variables.find(text, &mut found);
        found.sort_unstable_by_key(|place| place.start);
        found.dedup_by(|next, place| {
            let overlap = next.start < place.end;
            if overlap {
                place.end = place.end.max(next.end);
            }
            overlap
        });
        found
    }
}

fn forms_of(value: &[u8], min: usize) -> Vec<Vec<u8>> {
    let whole = value.trim_ascii();
    let lines = value.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
    let mut forms = Vec::new();
    for text in lines.chain([whole]) {
        if text.len() < min || text.contains(&b'\n') {
            continue;
        }
        forms.push(text.to_vec());
        forms.push(percent_encoded(text));
    }
    for text in [value, whole] {
        if text.trim_ascii().len() >= min {
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

    #[test]
    fn variables_are_masked_as_words_and_when_they_are_long() {
        let values = ["true", "test", "8080", "release-build", "a-token-of-31"];
        let masker = Masker::new([b"hunter2".as_slice()])
            .and_variables(values.map(str::as_bytes), b"RUN make release-build");
        let text =
            b"tests: 12 tested on 8080, a-token-of-31 is true, a-token-of-312, release-build";
        let want = b"tests: 12 tested on 8080, *** is true, a-token-of-312, release-build";
        assert_eq!(masker.mask(text), want);
        assert_eq!(masker.mask(b"xhunter2x TOKEN=a-token-of-31"), b"x***x TOKEN=***");
    }

    #[test]
    fn what_overlaps_is_masked_as_one() {
        let long = [&b"abcd"[..], &[b'-'; 5000][..]].concat();
        let masker = Masker::new([b"xyzabcd".as_slice(), &long]);
        assert_eq!(masker.mask(&[b"1 xyz", &long[..], b" 2"].concat()), b"1 *** 2");
    }

    /// Grows with the square of the value's length where the automaton has a table for all of it:
    /// these would take hours and more memory than there is.
    #[test]
    fn a_value_of_a_megabyte_is_nothing_special() {
        let value: Vec<u8> = (0..1u32 << 20).map(|i| b'a' + (i.isqrt() % 23) as u8).collect();
        let same = vec![b'a'; 1 << 20];
        let lines = [&value[..2000], b"\n", &value[5000..9000]].concat();
        let masker = Masker::new([&value[..], &same, &lines]).and_variables([&same[..]], b"");
        let text = [b"x".as_slice(), &value, b"y", &same, b"z", &value[5000..9000]].concat();
        assert_eq!(masker.mask(&text), b"x***y***z***");
    }
}
