//! `.dockerignore` rules, as moby/patternmatcher has them; not those of `.gitignore`.
//!
//! Patterns are cleaned and anchored at the root; `**` spans directories; a pattern that matches a
//! directory matches all below it; later patterns win, and those with `!` take files back in, even
//! below a directory that was excluded.

mod pattern;

use pattern::Pattern;

use crate::limits::IGNORE_PATTERNS_MAX;

/// A pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Only `!`.
    #[error("illegal exclusion pattern: \"!\"")]
    OnlyNegation,
    /// Brackets or escapes that have no end.
    #[error("syntax error in pattern {0:?}; close each [ with ] and end no pattern with \\")]
    Syntax(String),
    /// Too many patterns.
    #[error("there are more than {IGNORE_PATTERNS_MAX} patterns")]
    TooMany,
    /// The file is not text.
    #[error("the file is not UTF-8 text")]
    NotText,
}

/// Reads an ignore file: one pattern a line, `#` at the start of a line for comments.
///
/// # Errors
/// When the file is not text or has too many patterns.
pub fn read_file(bytes: &[u8]) -> Result<Vec<String>, PatternError> {
    let text = std::str::from_utf8(bytes).map_err(|_| PatternError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut patterns = Vec::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let line = line.trim();
        let (negated, pattern) = match line.strip_prefix('!') {
            Some(rest) => ("!", rest.trim()),
            None => ("", line),
        };
        if line.is_empty() {
            continue;
        }
        let cleaned = if pattern.is_empty() { String::new() } else { pattern::clean(pattern) };
        let relative = cleaned.strip_prefix('/').filter(|r| !r.is_empty()).unwrap_or(&cleaned);
        patterns.push(format!("{negated}{relative}"));
        if patterns.len() > IGNORE_PATTERNS_MAX {
            return Err(PatternError::TooMany);
        }
    }
    Ok(patterns)
}

/// Says which paths a list of patterns excludes.
#[derive(Debug, Clone, Default)]
pub struct IgnoreMatcher {
    patterns: Vec<Pattern>,
    negations: bool,
}

/// What is known of a directory, so that its entries need not be matched against its parents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parent {
    matched: Vec<bool>,
}

impl IgnoreMatcher {
    /// Reads patterns, as they stand in an ignore file or in `--exclude`.
    ///
    /// # Errors
    /// When a pattern is malformed or there are too many.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        if patterns.len() > IGNORE_PATTERNS_MAX {
            return Err(PatternError::TooMany);
        }
        let mut matcher = Self::default();
        for text in patterns {
            if let Some(pattern) = Pattern::new(text.as_ref())? {
                matcher.negations |= pattern.negated;
                matcher.patterns.push(pattern);
            }
        }
        Ok(matcher)
    }

    /// Whether nothing is ever excluded.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path is excluded. Paths are relative to the root, with `/` between names.
    pub fn matches(&self, path: &str) -> bool {
        let path = path.trim_matches('/');
        let mut parent = Parent::default();
        for (end, _) in path.match_indices('/') {
            parent = self.enter(&path[..end], &parent);
        }
        self.matches_below(path, &parent)
    }

    /// Whether an entry of a directory is excluded, given what is known of the directory. Walks
    /// that go down a tree save the matching of parents with this.
    pub fn matches_below(&self, path: &str, parent: &Parent) -> bool {
        let mut excluded = false;
        for (index, pattern) in self.patterns.iter().enumerate() {
            // A pattern that would change nothing is not tried.
            let inherited = parent.matched.get(index).copied().unwrap_or(false);
            if pattern.negated == excluded && (inherited || pattern.matches(path)) {
                excluded = !pattern.negated;
            }
        }
        excluded
    }

    /// Returns what is known of a directory whose parent is known.
    pub fn enter(&self, directory: &str, parent: &Parent) -> Parent {
        let inherited = |i: usize| parent.matched.get(i).copied().unwrap_or(false);
        let matched = self.patterns.iter().enumerate();
        Parent { matched: matched.map(|(i, p)| inherited(i) || p.matches(directory)).collect() }
    }

    /// Whether something below a directory may be included: it is not excluded itself, or a
    /// negation could match below it.
    pub fn may_descend(&self, directory: &str) -> bool {
        let directory = directory.trim_matches('/');
        if directory.is_empty() || !self.matches(directory) {
            return true;
        }
        self.negations && self.patterns.iter().any(|p| p.negated && p.may_match_below(directory))
    }
}
