//! The one grammar in which lists are asked for, on the command line, in the API and in the UI.
//!
//! `state:failed dialect:nullspace label:team=web created:>=2026-01-31T00:00:00Z some words`: parts
//! with a known key filter, all other words are searched for. Values with blanks stand in quotes.

use ashlar_core::Timestamp;
use ashlar_core::journal::BuildKind;
use ashlar_core::state::State;
use ashlar_records::Filter;

/// The longest query, in bytes.
pub(crate) const QUERY_BYTES_MAX: usize = 4096;

/// A query is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{part}': {why}")]
pub struct QueryError {
    /// The part that is wrong.
    pub part: String,
    /// What is wrong with it.
    pub why: String,
}

/// A parsed query.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Query {
    /// What it filters by; the tenant is the caller's to set.
    pub filter: Filter,
}

impl Query {
    /// Reads a query; the empty one lists everything.
    ///
    /// # Errors
    /// Names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        if text.len() > QUERY_BYTES_MAX {
            let part = text.chars().take(40).collect();
            return Err(QueryError { part, why: format!("longer than {QUERY_BYTES_MAX} bytes") });
        }
        let mut query = Self::default();
        let mut words = Vec::new();
        for part in parts(text)? {
            match part.split_once(':') {
                Some((key, value)) if query.set(key, value, &part)? => {}
                _ => words.push(part),
            }
        }
        if !words.is_empty() {
            query.filter.text = Some(words.join(" "));
        }
        Ok(query)
    }

    /// Sets one filter; says no when the key is none.
    ///
    /// # Errors
    /// When the value does not fit the key.
    pub fn set(&mut self, key: &str, value: &str, part: &str) -> Result<bool, QueryError> {
        let wrong = |why: String| QueryError { part: part.chars().take(100).collect(), why };
        let text = || Some(value.to_owned());
        let f = &mut self.filter;
        match key {
            "state" => {
                let words = State::ALL.map(State::as_str).join(", ");
                let state = State::parse(value).ok_or_else(|| wrong(format!("one of {words}")))?;
                f.state = Some(state);
            }
            "scope" => f.scope = text(),
            "dialect" => f.dialect = text(),
            "backend" => f.backend = text(),
            "executor" => f.executor = text(),
            "source" => f.source = text(),
            "kind" => {
                f.kind = Some(match value {
                    "build" => BuildKind::Build,
                    "workflow" => BuildKind::Workflow,
                    _ => return Err(wrong("build or workflow".into())),
                });
            }
            "parent" => {
                f.parent = Some(value.parse().map_err(|_| wrong("not a build's id".into()))?);
            }
            "label" => {
                let (name, value) =
                    value.split_once('=').ok_or_else(|| wrong("write label:NAME=VALUE".into()))?;
                f.labels.insert(name.to_owned(), value.to_owned());
            }
            "created" => self.created(value).map_err(|why| wrong(why.to_owned()))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads `>=TIME`, `<TIME` or `TIME..TIME`.
    fn created(&mut self, value: &str) -> Result<(), &'static str> {
        const WHY: &str = "write created:>=TIME, created:<TIME or created:TIME..TIME (RFC 3339)";
        let time = |text: &str| Timestamp::parse(text).ok_or(WHY);
        if let Some(from) = value.strip_prefix(">=") {
            self.filter.created_from = Some(time(from)?);
        } else if let Some(until) = value.strip_prefix('<') {
            self.filter.created_until = Some(time(until)?);
        } else {
            let (from, until) = value.split_once("..").ok_or(WHY)?;
            self.filter.created_from = Some(time(from)?);
            self.filter.created_until = Some(time(until)?);
        }
        Ok(())
    }
}

/// Cuts a text at blanks that do not stand in quotes.
fn parts(text: &str) -> Result<Vec<String>, QueryError> {
    let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !part.is_empty() {
                    parts.push(std::mem::take(&mut part));
                }
            }
            c => part.push(c),
        }
    }
    if quoted {
        return Err(QueryError { part, why: "the quotes are not closed".into() });
    }
    if !part.is_empty() {
        parts.push(part);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_filter_and_words_search() {
        let q = Query::parse(
            r#"state:failed label:team="web shop" hello created:<2026-01-01T00:00:00Z my:word"#,
        );
        let f = q.unwrap().filter;
        assert_eq!(f.state, Some(State::Failed));
        assert_eq!(f.labels["team"], "web shop");
        assert_eq!(f.text.as_deref(), Some("hello my:word"));
        assert!(f.created_until.is_some() && f.created_from.is_none());
        assert_eq!(Query::parse(" ").unwrap(), Query::default());
    }

    #[test]
    fn wrong_parts_are_named() {
        for bad in ["state:done", "kind:x", "parent:1", "label:x", "created:yesterday", "a \"b"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
        assert!(Query::parse(&"x".repeat(QUERY_BYTES_MAX + 1)).is_err());
    }
}
