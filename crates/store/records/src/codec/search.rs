//! Looks for a text in log lines, in any case.

/// A text to look for.
#[derive(Debug, Clone)]
pub(crate) struct Needle {
    lower: String,
    ascii: bool,
}

impl Needle {
    pub(crate) fn new(text: &str) -> Self {
        let lower = text.to_lowercase();
        Self { ascii: lower.is_ascii(), lower }
    }

    /// Says whether the text is in some bytes. A text of ASCII is found without making any string.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        if !self.ascii {
            return String::from_utf8_lossy(bytes).to_lowercase().contains(&self.lower);
        }
        let Some(first) = self.lower.bytes().next() else { return true };
        let length = self.lower.len();
        let Some(end) = bytes.len().checked_sub(length) else { return false };
        let starts = memchr::memchr2_iter(first, first.to_ascii_uppercase(), &bytes[..=end]);
        starts
            .into_iter()
            .any(|at| bytes[at..at + length].eq_ignore_ascii_case(self.lower.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::Needle;

    #[test]
    fn texts_are_found_in_any_case() {
        for (needle, text, found) in [
            ("error", "an ERROR here", true),
            ("ERROR", "error", true),
            ("error", "erro", false),
            ("", "", true),
            ("", "x", true),
            ("straße", "STRAßE", true),
            ("é", "CAFÉ", true),
            ("aab", "aaab", true),
            ("x", "", false),
        ] {
            assert_eq!(Needle::new(needle).is_in(text.as_bytes()), found, "{needle} in {text}");
        }
        assert!(Needle::new("é").is_in(b"\xff\xc3\x89"));
    }
}
