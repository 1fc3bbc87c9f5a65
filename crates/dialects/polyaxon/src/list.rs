//! Pages: the envelope of every list, and the parameters that choose a page.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::error::reply;

/// What a page holds when nobody says otherwise. Clients count on it: they send `offset` alone.
pub(crate) const PAGE_DEFAULT: usize = 20;
/// What a page holds at most when somebody asks for a size. The original has no bound; who asks for
/// more gets this much and the link to the rest.
pub(crate) const LIMIT_MAX: usize = 1000;
/// Parameters that one request may have.
const PARAMETERS_MAX: usize = 100;

/// Reads `a=b&c=d`.
pub(crate) fn parameters(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|p| !p.is_empty()).take(PARAMETERS_MAX);
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name), decoded(value))
    };
    pairs.map(pair).collect()
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&byte) = bytes.get(i) {
        let hex = text.get(i + 1..i + 3).filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
        match (byte, hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(value)) => {
                out.push(value);
                i += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// Where a request came in: what links in its answer are made of.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Scheme, host and path, with whatever prefix the client used.
    pub(crate) url: String,
    pub(crate) parameters: Vec<(String, String)>,
}

impl Asked {
    /// Returns a parameter's value.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn limit(&self, default: usize) -> usize {
        let limit = self.parameter("limit").and_then(|text| text.parse().ok());
        limit.filter(|n| *n > 0).map_or(default, |n: usize| n.min(LIMIT_MAX))
    }

    fn offset(&self) -> usize {
        self.parameter("offset").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn link(&self, limit: usize, offset: usize) -> String {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        for (name, value) in &self.parameters {
            if !matches!(name.as_str(), "limit" | "offset") {
                pairs.push((name, value.clone()));
            }
        }
        pairs.push(("limit", limit.to_string()));
        if offset > 0 {
            pairs.push(("offset", offset.to_string()));
        }
        let text: Vec<String> =
            pairs.iter().map(|(n, v)| format!("{}={}", encoded(n), encoded(v))).collect();
        format!("{}?{}", self.url, text.join("&"))
    }

    /// Returns how many things are asked for, and how many lie before them.
    pub(crate) fn range(&self, default: usize) -> (usize, usize) {
        (self.limit(default), self.offset())
    }

    /// Cuts the page that was asked for out of a whole list.
    pub(crate) fn page<T>(&self, items: Vec<T>, default: usize) -> Page<T> {
        let ((limit, offset), count) = (self.range(default), items.len());
        let items = items.into_iter().skip(offset).take(limit).collect();
        self.part(items, count, default)
    }

    /// Makes the page that was asked for of its things, out of so many.
    pub(crate) fn part<T>(&self, items: Vec<T>, count: usize, default: usize) -> Page<T> {
        let (limit, offset) = self.range(default);
        let end = offset.saturating_add(limit);
        let next = (end < count).then(|| self.link(limit, end));
        let previous = (offset > 0).then(|| self.link(limit, offset.saturating_sub(limit)));
        Page { count, next, previous, items }
    }
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page<T> {
    count: usize,
    next: Option<String>,
    previous: Option<String>,
    pub(crate) items: Vec<T>,
}

impl<T> Page<T> {
    /// Returns the page's answer.
    pub(crate) fn answer(&self, results: Vec<Value>) -> Response {
        let (count, next, previous) = (self.count, &self.next, &self.previous);
        let body =
            json!({ "count": count, "next": next, "previous": previous, "results": results });
        reply(StatusCode::OK, &body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Asked {
        Asked { url: "http://h/api/v1/o/p/builds/".into(), parameters: parameters(query) }
    }

    #[test]
    fn pages_are_cut_and_linked() {
        let page = |query: &str| asked(query).page((0..50).collect::<Vec<i32>>(), PAGE_DEFAULT);
        let first = page("sort=-id&query=name%3Aa%20b");
        assert_eq!((first.count, first.items.len(), first.previous), (50, 20, None));
        let want = "http://h/api/v1/o/p/builds/?sort=-id&query=name%3Aa%20b&limit=20&offset=20";
        assert_eq!(first.next.as_deref(), Some(want));
        let second = page("offset=20");
        assert_eq!(second.items.first(), Some(&20));
        assert_eq!(second.previous.as_deref(), Some("http://h/api/v1/o/p/builds/?limit=20"));
        let last = page("limit=30&offset=40");
        assert_eq!((last.items.len(), last.next), (10, None));
        assert_eq!(
            last.previous.as_deref(),
            Some("http://h/api/v1/o/p/builds/?limit=30&offset=10")
        );
        let beyond = page("offset=1000");
        assert_eq!((beyond.count, beyond.items.len(), beyond.next), (50, 0, None));
    }

    #[test]
    fn odd_numbers_fall_back() {
        for query in ["limit=0", "limit=-5", "limit=x", "limit=", "offset=-1", "offset=x"] {
            let page = asked(query).page((0..50).collect::<Vec<i32>>(), PAGE_DEFAULT);
            assert_eq!((page.items.len(), page.items.first()), (20, Some(&0)), "{query}");
        }
    }

    #[test]
    fn no_page_is_larger_than_the_bound() {
        let page = asked("limit=9999999").page((0..1500).collect::<Vec<i32>>(), PAGE_DEFAULT);
        assert_eq!((page.count, page.items.len()), (1500, LIMIT_MAX));
        assert!(page.next.unwrap().ends_with("limit=1000&offset=1000"));
    }

    #[test]
    fn parameters_are_decoded() {
        let want = [("a".to_owned(), "b c&d".to_owned()), ("e".to_owned(), "%zz+".to_owned())];
        assert_eq!(parameters("a=b+c%26d&e=%zz%2B"), want);
        assert_eq!(decoded("%"), "%");
        assert_eq!(decoded("%é"), "%é");
    }
}
