//! Lists of patterns with `**` and negation, as moby's patternmatcher reads them: the language of
//! `--exclude`, of `--parents` sources, and of `.dockerignore`.

use super::glob::{Glob, Token, read_class};
use crate::context::Ignore;
use crate::path;

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 4096;

/// A pattern cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern '{pattern}' is malformed: {reason}")]
pub struct PatternError {
    pattern: String,
    reason: &'static str,
}

/// A list of patterns; the last one that matches a path, or a directory above it, decides.
#[derive(Debug, Clone, Default)]
pub struct Patterns(Vec<Pattern>);

#[derive(Debug, Clone)]
struct Pattern {
    negated: bool,
    glob: Glob,
    /// The components before the first wildcard: nothing outside of them matches.
    fixed: Vec<u8>,
    /// Whether the whole pattern is `fixed`.
    is_fixed: bool,
}

/// Which patterns of a list match a directory or one above it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks(Vec<bool>);

impl Patterns {
    /// Reads patterns, one a string; empty ones are left out, `!` negates.
    ///
    /// # Errors
    /// When a pattern has an unclosed bracket, ends in a backslash, is only `!`, or is too long.
    pub fn new(patterns: &[String]) -> Result<Self, PatternError> {
        let lines = patterns.iter().map(|p| p.trim()).filter(|p| !p.is_empty());
        Ok(Self(lines.map(Pattern::new).collect::<Result<_, _>>()?))
    }

    /// Whether there are no patterns.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the clean path `name`, whose parent directory has `above`, is matched.
    pub(crate) fn step(&self, above: &Marks, name: &[u8]) -> (bool, Marks) {
        let mut marks = vec![false; self.0.len()];
        let mut matched = false;
        for (i, pattern) in self.0.iter().enumerate() {
            let mut hit = above.0.get(i).copied().unwrap_or(false);
            if !hit {
                // One that cannot change the outcome is not asked, and not remembered for what lies
                // below either; moby does the same, and it shows in results.
                if pattern.negated != matched {
                    continue;
                }
                hit = pattern.matches(name);
            }
            marks[i] = hit;
            if hit {
                matched = !pattern.negated;
            }
        }
        (matched, Marks(marks))
    }

    /// Whether the path is matched, itself or by a directory above it.
    pub fn matches(&self, name: &[u8]) -> bool {
        let mut marks = Marks::default();
        let mut matched = false;
        let ends = name.iter().enumerate().filter(|&(_, &b)| b == b'/').map(|(at, _)| at);
        for end in ends.chain([name.len()]) {
            (matched, marks) = self.step(&marks, &name[..end]);
        }
        matched
    }

    /// Whether a path below `dir` could be matched that is not matched by way of `dir`.
    pub(crate) fn may_match_below(&self, dir: &[u8]) -> bool {
        self.0.iter().any(|p| !p.negated && p.reaches(dir))
    }

    /// Whether a negation could apply to a path below `dir`.
    pub(crate) fn may_spare_below(&self, dir: &[u8]) -> bool {
        self.0.iter().any(|p| p.negated && p.reaches(dir))
    }
}

impl Ignore for Patterns {
    fn excluded(&self, path: &[u8]) -> bool {
        !self.0.is_empty() && self.matches(path)
    }

    fn may_descend(&self, dir: &[u8]) -> bool {
        self.may_spare_below(dir)
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, PatternError> {
        let fail = |reason| PatternError { pattern: text.chars().take(200).collect(), reason };
        if text.len() > PATTERN_BYTES_MAX {
            return Err(fail("it is too long"));
        }
        let (negated, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let rest = rest.trim();
        if rest.is_empty() {
            return Err(fail("nothing follows the exclamation mark"));
        }
        let cleaned = path::clean(rest.as_bytes());
        let cleaned = String::from_utf8_lossy(&cleaned);
        let tokens = tokens(&cleaned).ok_or_else(|| fail("check its brackets and backslashes"))?;
        let fixed = fixed_part(&tokens);
        let is_fixed = tokens.iter().all(|t| matches!(t, Token::Literal(_)));
        Ok(Self { negated, glob: Glob::new(tokens), fixed, is_fixed })
    }

    fn matches(&self, name: &[u8]) -> bool {
        if self.is_fixed {
            return name == self.fixed;
        }
        path::is_within(name, &self.fixed) && self.glob.matches(name)
    }

    /// Whether something below `dir` could match.
    fn reaches(&self, dir: &[u8]) -> bool {
        path::is_within(&self.fixed, dir) && !(self.is_fixed && self.fixed == dir)
            || !self.is_fixed && path::is_within(dir, &self.fixed)
    }
}

/// Returns the leading components that are plain text.
fn fixed_part(tokens: &[Token]) -> Vec<u8> {
    let mut text = String::new();
    for token in tokens {
        match token {
            Token::Literal(c) => text.extend(char::from_u32(*c)),
            _ => {
                text.truncate(text.rfind('/').unwrap_or(0));
                break;
            }
        }
    }
    text.into_bytes()
}

fn tokens(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                if rest.peek().is_none() { Token::All } else { Token::Directories }
            }
            '*' => Token::Star,
            '?' => Token::One,
            '[' => read_class(&mut rest, true)?,
            '\\' => Token::Literal(u32::from(rest.next()?)),
            other => Token::Literal(u32::from(other)),
        });
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> Patterns {
        let owned: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
        Patterns::new(&owned).unwrap()
    }

    /// From the tests of moby's patternmatcher.
    #[test]
    fn as_moby_matches() {
        let table = [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "file", true),
            ("**/**", "dir/file", true),
            ("dir/**", "dir/file", true),
            ("dir/**", "dir/dir2/file", true),
            ("**/dir", "dir", true),
            ("**/dir", "dir/file", true),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir2/file", true),
            ("**file", "file", true),
            ("**file", "dir/file", true),
            ("**/file", "dir/dir/file", true),
            ("**/file*", "dir/dir/file.txt", true),
            ("**/file*txt", "dir/dir/file.txt", true),
            ("**/file*.txt*", "dir/dir/file.txt", true),
            ("**/**/*.txt", "dir/dir/file.txt", true),
            ("**/**/*.txt2", "dir/dir/file.txt", false),
            ("**/a.txt", "dir/a.txtx", false),
            ("a**/*.txt", "a/dir/file.txt", true),
            ("a/*.txt", "a/dir/file.txt", false),
            ("a/*.txt", "a/file.txt", true),
            ("a[b-d]e", "ae", false),
            ("a[b-d]e", "ace", true),
            ("a[^b-d]e", "aze", true),
            (".*", ".foo", true),
            (".*", "foo", false),
            ("abc.def", "abcZdef", false),
            ("**/foo/bar", "foo/bar", true),
            ("**/foo/bar", "dir/foo/bar", true),
            ("**/.#*", "dir/.#x", true),
            ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
            (
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
                true,
            ),
            ("/x", "x", true),
            ("x/", "x", true),
        ];
        for (pattern, name, want) in table {
            assert_eq!(list(&[pattern]).matches(name.as_bytes()), want, "{pattern} {name}");
        }
    }

    #[test]
    fn the_last_match_decides() {
        let l = list(&["docs", "!docs/README.md", "*.md"]);
        assert!(l.matches(b"docs/x") && !l.matches(b"docs/README.md") && l.matches(b"a.md"));
        assert!(l.may_descend(b"docs") && !l.may_descend(b"src"));
        let l = list(&["**", "!**/*.rs"]);
        assert!(!l.matches(b"a/b/c.rs") && l.matches(b"a/b/c.py") && l.may_descend(b"a/b"));
        let l = list(&["a/b", "!a"]);
        assert!(l.matches(b"a/b"), "a negation of the parent came too early");
    }

    #[test]
    fn reach_prunes_other_directories() {
        let l = list(&["a/b/*.c", "x/y"]);
        assert!(l.may_match_below(b"a") && l.may_match_below(b"a/b") && l.may_match_below(b"x"));
        assert!(
            !l.may_match_below(b"b") && !l.may_match_below(b"x/y") && !l.may_match_below(b"a/c")
        );
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for bad in ["!", "! ", "a[", "a\\", "[]a]"] {
            assert!(Patterns::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
