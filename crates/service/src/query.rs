//! The one grammar in which lists are asked for, on the command line, in the API and in the UI.
//!
//! `state:failed dialect:nullspace label:team=web created:>=2026-01-31T00:00:00Z some words`: parts
//! with a known key filter, all other words are searched for. Values with blanks stand in quotes. What
//! looks like a key and is none is an error, for a misspelt filter must not look like an empty list;
//! in quotes it is searched for, as is `http://x`.

use ashlar_core::Timestamp;
use ashlar_core::journal::BuildKind;
use ashlar_core::state::State;
use ashlar_records::Filter;

/// The longest query, in bytes.
pub(crate) const QUERY_BYTES_MAX: usize = 4096;
/// The keys that filter.
const KEYS: &str = "state, scope, dialect, backend, executor, source, kind, parent, label, created";

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
            match part.filter() {
                Some((key, ':', value)) if query.set(key, value, &part.text)? => {}
                Some((key, ..)) => return Err(part.refused(key)),
                None => words.push(part.text),
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
        let wrong = |why: String| QueryError { part: shown(part), why };
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

/// A word, or several in quotes.
#[derive(Default)]
struct Part {
    text: String,
    /// Where the first quotes stood.
    quoted: Option<usize>,
}

impl Part {
    /// Returns key, sign and value of what is meant as a filter: a word, then a colon or an equals
    /// sign, then something that does not make it an address or a path, all but the value without
    /// quotes.
    fn filter(&self) -> Option<(&str, char, &str)> {
        let plain = &self.text[..self.quoted.unwrap_or(self.text.len())];
        let at = plain.find([':', '='])?;
        let (key, sign, value) =
            (&self.text[..at], char::from(self.text.as_bytes()[at]), &self.text[at + 1..]);
        let is_word = key.len() > 1 && key.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        let is_known = sign == ':' && KEYS.split(", ").any(|known| known == key);
        let is_meant = is_word && !value.is_empty() && !value.starts_with(['/', '\\', ':', '=']);
        (is_known || is_meant).then_some((key, sign, value))
    }

    fn refused(&self, key: &str) -> QueryError {
        let part = shown(&self.text);
        let why = match KEYS.split(", ").any(|known| known == key) {
            true => format!("write {key}:VALUE, with a colon"),
            false => format!(
                "'{}' is no key: there are {KEYS}; to search for the text itself, put it in quotes",
                shown(key)
            ),
        };
        QueryError { part, why }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Cuts a text at blanks that do not stand in quotes.
fn parts(text: &str) -> Result<Vec<Part>, QueryError> {
    let (mut parts, mut part, mut quoted) = (Vec::new(), Part::default(), false);
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                part.quoted.get_or_insert(part.text.len());
            }
            c if c.is_whitespace() && !quoted => parts.push(std::mem::take(&mut part)),
            c => part.text.push(c),
        }
    }
    if quoted {
        return Err(QueryError { part: part.text, why: "the quotes are not closed".into() });
    }
    parts.push(part);
    parts.retain(|part| !part.text.is_empty());
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_filter_and_words_search() {
        let q = Query::parse(
            r#"state:failed label:team="web shop" hello created:<2026-01-01T00:00:00Z "my:word""#,
        );
        let f = q.unwrap().filter;
        assert_eq!(f.state, Some(State::Failed));
        assert_eq!(f.labels["team"], "web shop");
        assert_eq!(f.text.as_deref(), Some("hello my:word"));
        assert!(f.created_until.is_some() && f.created_from.is_none());
        assert_eq!(Query::parse(" ").unwrap(), Query::default());
    }

    #[test]
    fn what_is_no_key_is_refused_and_what_is_no_filter_is_text() {
        for (bad, key) in [
            ("lable:team=web", "lable"),
            ("sate:failed", "sate"),
            ("status:failed", "status"),
            ("hello State:failed", "State"),
            ("team=web", "team"),
            (r#"lable:"a b""#, "lable"),
        ] {
            let error = Query::parse(bad).unwrap_err();
            assert!(error.part.contains(key) && error.why.contains(&format!("'{key}'")), "{error}");
            assert!(error.why.contains("label, created"), "{error}");
        }
        let error = Query::parse("state=failed").unwrap_err();
        assert!(error.why.contains("state:VALUE"), "{error}");
        let text = |q: &str| Query::parse(q).unwrap().filter.text.unwrap();
        for plain in [
            "http://x",
            "https://x/y?a=b",
            "a::b",
            "error:",
            "C:\\x",
            "12:30",
            "a=b",
            "x==y",
            "1.2:x",
        ] {
            assert_eq!(text(plain), plain);
        }
        assert_eq!(text(r#""sate:failed" "a=b c""#), "sate:failed a=b c");
    }

    #[test]
    fn wrong_parts_are_named() {
        for bad in ["state:done", "kind:x", "parent:1", "label:x", "created:yesterday", "a \"b"] {
            assert!(Query::parse(bad).is_err(), "{bad}");
        }
        assert!(Query::parse(&"x".repeat(QUERY_BYTES_MAX + 1)).is_err());
    }
}
