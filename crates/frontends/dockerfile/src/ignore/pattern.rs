//! One pattern.

use regex::{Regex, RegexBuilder};

use super::PatternError;

/// Most memory of one compiled pattern, in bytes.
const COMPILED_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pub(super) negated: bool,
    text: String,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    /// No wildcards.
    Exact,
    /// `something**`: what stands before the stars.
    Prefix(String),
    /// `**something`: what stands after the stars.
    Suffix(String),
    Regex(Regex),
}

impl Pattern {
    /// Reads a pattern; nothing when it is blank.
    pub(super) fn new(text: &str) -> Result<Option<Self>, PatternError> {
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Ok(None);
        }
        let cleaned = clean(trimmed);
        let (negated, text) = match cleaned.strip_prefix('!') {
            Some("") => return Err(PatternError::OnlyNegation),
            Some(rest) => (true, rest.to_owned()),
            None => (false, cleaned.clone()),
        };
        check_syntax(&text)?;
        let test = compile(&text)?;
        Ok(Some(Self { negated, text, test }))
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.test {
            Test::Exact => path == self.text,
            Test::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Test::Suffix(suffix) => {
                path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path)
            }
            Test::Regex(regex) => regex.is_match(path),
        }
    }

    /// Whether some path below `directory` may match: the leading parts without wildcards agree.
    pub(super) fn may_match_below(&self, directory: &str) -> bool {
        let mut parts = self.text.split('/');
        for name in directory.split('/') {
            match parts.next() {
                // The pattern names a directory above, and so all below it.
                None => return true,
                Some(part) if part.contains("**") => return true,
                Some(part) if part.contains(['*', '?', '[', '\\']) => {
                    if !Self::part_matches(part, name) {
                        return false;
                    }
                }
                Some(part) if part != name => return false,
                Some(_) => {}
            }
        }
        true
    }

    fn part_matches(part: &str, name: &str) -> bool {
        // A part that can't be judged alone may match.
        compile(part)
            .is_ok_and(|test| Self { negated: false, text: part.to_owned(), test }.matches(name))
    }
}

/// Cleans a path as Go's `filepath.Clean` does: `..` at the start stays, `/` at the start too.
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".into(),
        (false, rest) => rest,
    }
}

/// Refuses what Go's `filepath.Match` refuses: brackets without end, ranges without end, a
/// trailing escape.
fn check_syntax(text: &str) -> Result<(), PatternError> {
    let bad = || PatternError::Syntax(text.to_owned());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next().ok_or_else(bad)?),
            '[' => {
                chars.next_if_eq(&'^');
                let mut ranges = 0;
                loop {
                    if ranges > 0 && chars.next_if_eq(&']').is_some() {
                        break;
                    }
                    bound(&mut chars).ok_or_else(bad)?;
                    if chars.next_if_eq(&'-').is_some() {
                        bound(&mut chars).ok_or_else(bad)?;
                    }
                    ranges += 1;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn bound(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match chars.next()? {
        '-' | ']' => None,
        '\\' => chars.next(),
        c => Some(c),
    }
}

/// Finds the cheapest test that says the same as the pattern.
fn compile(text: &str) -> Result<Test, PatternError> {
    let mut out = String::from("^");
    let mut test = Kind::Exact;
    let mut chars = text.chars().peekable();
    let mut first = true;
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '*' if !in_class && chars.next_if_eq(&'*').is_some() => {
                // "**/" is "**": it matches no directory as well.
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    out.push_str("(.*/)?");
                    test = Kind::Regex;
                } else if test == Kind::Exact {
                    test = Kind::Prefix;
                } else {
                    out.push_str(".*");
                    test = Kind::Regex;
                }
                if first {
                    test = Kind::Suffix;
                }
            }
            '*' if !in_class => {
                out.push_str("[^/]*");
                test = Kind::Regex;
            }
            '?' if !in_class => {
                out.push_str("[^/]");
                test = Kind::Regex;
            }
            '\\' => {
                if let Some(next) = chars.next() {
                    out.push_str(&regex::escape(next.encode_utf8(&mut [0; 4])));
                }
                test = Kind::Regex;
            }
            '[' if !in_class => {
                out.push('[');
                out.extend(chars.next_if_eq(&'^'));
                (in_class, test) = (true, Kind::Regex);
            }
            ']' if in_class => {
                out.push(']');
                in_class = false;
            }
            '-' if in_class => out.push('-'),
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
        first = false;
    }
    Ok(match test {
        Kind::Exact => Test::Exact,
        Kind::Prefix => Test::Prefix(text[..text.rfind("**").unwrap_or(text.len())].to_owned()),
        Kind::Suffix => Test::Suffix(text[2..].to_owned()),
        Kind::Regex => {
            out.push('$');
            let built = RegexBuilder::new(&out).size_limit(COMPILED_BYTES_MAX).build();
            Test::Regex(built.map_err(|_| PatternError::Syntax(text.to_owned()))?)
        }
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    Prefix,
    Suffix,
    Regex,
}
