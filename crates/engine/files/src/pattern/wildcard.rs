//! Wildcards in the sources of a copy: Go's `filepath.Match`, one path component at a time.

use super::glob::{Glob, Token, read_class};

/// The pattern of one path component.
#[derive(Debug, Clone)]
pub(crate) struct Wildcard(Option<Glob>);

impl Wildcard {
    /// Compiles one component. A malformed pattern matches nothing, as in BuildKit, which takes no
    /// notice of the error either.
    pub(crate) fn new(component: &str) -> Self {
        Self(tokens(component).map(Glob::new))
    }

    /// Whether the whole name matches.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|glob| glob.matches(name))
    }
}

fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '*' => Token::Star,
            '?' => Token::One,
            '[' => read_class(&mut rest, false)?,
            '\\' => Token::Literal(u32::from(rest.next()?)),
            other => Token::Literal(u32::from(other)),
        });
    }
    Some(tokens)
}

/// Whether the text has a wildcard that no backslash protects.
pub(crate) fn has_wildcards(text: &str) -> bool {
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// Splits a clean path before its first component with wildcards.
pub(crate) fn split(path: &str) -> (String, Vec<Wildcard>) {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let at = parts.iter().position(|p| has_wildcards(p)).unwrap_or(parts.len());
    (parts[..at].join("/"), parts[at..].iter().map(|p| Wildcard::new(p)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From the tests of Go's `path/filepath`, those without slashes.
    #[test]
    fn as_go_matches() {
        let table = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*b*c*d*e*", "axbxcxdxe", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[x\\-]", "z", false),
            ("[\\-x]", "a", false),
            ("[]a]", "]", false),
            ("[-]", "-", false),
            ("[x-]", "x", false),
            ("[-x]", "x", false),
            ("\\", "a", false),
            ("[a-b-c]", "a", false),
            ("[", "a", false),
            ("[^", "a", false),
            ("[^bc", "a", false),
            ("a[", "ab", false),
            ("*x", "xxx", true),
            ("", "", true),
        ];
        for (pattern, name, want) in table {
            assert_eq!(Wildcard::new(pattern).matches(name.as_bytes()), want, "{pattern} {name}");
        }
    }

    #[test]
    fn splits_before_the_first_wildcard() {
        let (fixed, wild) = split("a/b/c*/d");
        assert_eq!((fixed.as_str(), wild.len()), ("a/b", 2));
        assert!(!has_wildcards("a\\*b") && has_wildcards("a\\\\*b") && has_wildcards("[[]x"));
    }

    #[test]
    fn stubborn_patterns_end_soon() {
        let pattern = "a*".repeat(200) + "b";
        assert!(!Wildcard::new(&pattern).matches("a".repeat(2000).as_bytes()));
    }

    proptest! {
        #[test]
        fn a_literal_matches_only_itself(name in "[a-c.]{0,8}", other in "[a-c.]{0,8}") {
            prop_assert_eq!(Wildcard::new(&name).matches(other.as_bytes()), name == other);
        }

        #[test]
        fn wildcards_never_cross_a_slash(pattern in "[ab*?^\\[\\]\\\\]{0,10}", name in "[ab]{0,3}/[ab]{0,3}") {
            prop_assert!(!Wildcard::new(&pattern).matches(name.as_bytes()));
        }
    }
}
