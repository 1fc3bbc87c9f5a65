//! Which route a request means.
//!
//! References hold slashes, encoded or not, so paths are split before they are decoded, and a path
//! below `refs` may be read in several ways; the first whose template exists is meant.

use axum::http::Method;

/// A route with what its path says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// Whether the server answers; needs no key.
    Health,
    /// What `nullspace doctor` asks; there are no machines here.
    Machines,
    List,
    Create,
    BuildStream,
    BuildBackground,
    Status(String),
    Logs(String),
    Cancel(String),
    Retry(String),
    Promote(String),
    Validate,
    Plan,
    Preflight,
    Upload(String),
    /// A template; each reading of the path is a reference with what is asked of it.
    Template(Vec<(String, Action)>),
    Claim,
    Release(String),
    Namespace(String),
    /// Known, and not offered.
    NotOffered,
    Unknown,
}

/// What is asked of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Get,
    Delete,
    Builds,
    Tags,
    AssignTags,
    RemoveTag(String),
    Aliases,
    RemoveAlias(String),
    Rename,
    SetVisibility,
}

/// Returns the route of a request. The path is as it came, not decoded.
pub(crate) fn route(method: &Method, path: &str) -> Route {
    let mut segments: Vec<Segment> = Vec::new();
    for raw in path.trim_start_matches('/').split('/') {
        match Segment::decode(raw) {
            Some(segment) => segments.push(segment),
            None => return Route::Unknown,
        }
    }
    // One slash at the end says nothing.
    if segments.len() > 1 && segments.last().is_some_and(|s| s.text.is_empty()) {
        segments.pop();
    }
    let words: Vec<&str> = segments.iter().map(|s| s.text.as_str()).collect();
    match words.as_slice() {
        ["healthz"] if is_read(method) => Route::Health,
        ["v1", "machines"] if method == Method::GET => Route::Machines,
        ["v1", "template-warm-pools", ..] => Route::NotOffered,
        ["v1", "templates"] if method == Method::GET => Route::List,
        ["v1", "templates"] if method == Method::POST => Route::Create,
        ["v1", "templates", ..] => below_templates(method, &segments[2..]),
        _ => Route::Unknown,
    }
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

/// One part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    text: String,
}

impl Segment {
    /// Decodes percent signs; none when what they say is no text.
    fn decode(raw: &str) -> Option<Self> {
        let bytes = raw.as_bytes();
        let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
        while at < bytes.len() {
            if bytes[at] == b'%' {
                let hex = bytes.get(at + 1..at + 3)?;
                let digit = |b: u8| char::from(b).to_digit(16);
                let value = digit(hex[0])? * 16 + digit(hex[1])?;
                out.push(u8::try_from(value).ok()?);
                at += 3;
            } else {
                out.push(bytes[at]);
                at += 1;
            }
        }
        String::from_utf8(out).ok().map(|text| Self { text })
    }
}

fn below_templates(method: &Method, segments: &[Segment]) -> Route {
    let words: Vec<&str> = segments.iter().map(|s| s.text.as_str()).collect();
    let (get, post) = (method == Method::GET, method == Method::POST);
    match words.as_slice() {
        ["build"] if post => Route::BuildStream,
        ["builds"] if post => Route::BuildBackground,
        ["builds", id] if get => Route::Status((*id).into()),
        ["builds", id, "logs"] if get => Route::Logs((*id).into()),
        ["builds", id, "cancel"] if post => Route::Cancel((*id).into()),
        ["builds", id, "retry"] if post => Route::Retry((*id).into()),
        ["builds", id, "promote"] if post => Route::Promote((*id).into()),
        ["validate"] if post => Route::Validate,
        ["plan"] if post => Route::Plan,
        ["blobs", "preflight"] if post => Route::Preflight,
        ["blobs", id] if method == Method::PUT => Route::Upload((*id).into()),
        ["claims"] if post => Route::Claim,
        ["claims", token] if method == Method::DELETE => Route::Release((*token).into()),
        ["namespaces", slug] if get => Route::Namespace((*slug).into()),
        ["refs", rest @ ..] => by_reference(method, rest),
        ["build" | "builds" | "blobs" | "claims" | "namespaces" | "plan" | "validate", ..] => {
            Route::Unknown
        }
        [id, rest @ ..] => match action(method, rest) {
            Some(action) => Route::Template(vec![((*id).into(), action)]),
            None => Route::Unknown,
        },
        [] => Route::Unknown,
    }
}

/// A whole `namespace/name` wins over reading its second part as something of the first.
fn by_reference(method: &Method, words: &[&str]) -> Route {
    let mut readings = Vec::new();
    if let [namespace, name, rest @ ..] = words
        && !namespace.contains(['/', ':'])
        && !name.contains('/')
    {
        readings.extend(action(method, rest).map(|a| (format!("{namespace}/{name}"), a)));
    }
    if let [reference, rest @ ..] = words {
        readings.extend(action(method, rest).map(|a| ((*reference).to_owned(), a)));
    }
    if readings.is_empty() { Route::Unknown } else { Route::Template(readings) }
}

fn action(method: &Method, rest: &[&str]) -> Option<Action> {
    let action = match (method.as_str(), rest) {
        ("GET", []) => Action::Get,
        ("DELETE", []) => Action::Delete,
        ("GET", ["builds"]) => Action::Builds,
        ("GET", ["tags"]) => Action::Tags,
        ("POST", ["tags"]) => Action::AssignTags,
        ("DELETE", ["tags", tag]) => Action::RemoveTag((*tag).into()),
        ("GET", ["aliases"]) => Action::Aliases,
        ("DELETE", ["aliases", alias]) => Action::RemoveAlias((*alias).into()),
        ("DELETE", ["aliases", namespace, name]) => {
            Action::RemoveAlias(format!("{namespace}/{name}"))
        }
        ("POST", ["rename"]) => Action::Rename,
        ("PATCH", ["visibility"]) => Action::SetVisibility,
        _ => return None,
    };
    Some(action)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(path: &str) -> Route {
        route(&Method::GET, path)
    }

    fn readings(path: &str) -> Vec<(String, Action)> {
        match get(path) {
            Route::Template(readings) => readings,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn an_encoded_slash_leaves_one_reading() {
        let want = vec![("acme/foo:v1".to_owned(), Action::Get)];
        assert_eq!(readings("/v1/templates/refs/acme%2Ffoo%3Av1"), want);
        let want = vec![("acme/foo".to_owned(), Action::Tags)];
        assert_eq!(readings("/v1/templates/refs/acme%2ffoo/tags"), want);
        assert_eq!(readings("/v1/templates/refs/a%20b"), [("a b".to_owned(), Action::Get)]);
    }

    #[test]
    fn raw_slashes_prefer_the_whole_reference() {
        let both = readings("/v1/templates/refs/acme/tags");
        let want = [("acme/tags".to_owned(), Action::Get), ("acme".to_owned(), Action::Tags)];
        assert_eq!(both, want);
        let tags = readings("/v1/templates/refs/acme/tags/tags");
        assert_eq!(tags, [("acme/tags".to_owned(), Action::Tags)]);
    }

    #[test]
    fn fixed_words_win_over_ids() {
        for word in ["build", "builds", "blobs", "claims", "namespaces", "plan", "refs", "validate"]
        {
            assert_eq!(get(&format!("/v1/templates/{word}")), Route::Unknown, "{word}");
        }
        assert_eq!(readings("/v1/templates/app:v1"), [("app:v1".to_owned(), Action::Get)]);
        assert_eq!(get("/v1/template-warm-pools/x"), Route::NotOffered);
        assert_eq!(get("/v1/templates/"), Route::List);
        assert_eq!(get("/v1/nothing"), Route::Unknown);
    }

    #[test]
    fn broken_encodings_lead_nowhere() {
        for bad in ["%", "%2", "%zz", "%ff", "%c3"] {
            assert_eq!(get(&format!("/v1/templates/refs/{bad}")), Route::Unknown, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_reference_comes_back_when_it_is_encoded(text in "\\PC{1,40}") {
            let encoded: String = text.bytes().map(|b| format!("%{b:02X}")).collect();
            let path = format!("/v1/templates/refs/{encoded}");
            prop_assert_eq!(get(&path), Route::Template(vec![(text, Action::Get)]));
        }

        #[test]
        fn no_path_breaks_it(path in "\\PC{0,80}") {
            route(&Method::GET, &path);
            route(&Method::DELETE, &format!("/v1/templates/refs/{path}"));
        }
    }
}
