//! Reads `WWW-Authenticate` (RFC 9110, section 11.6.1).

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Returns the challenge that we can answer best: Bearer before Basic.
pub(crate) fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut has_basic = false;
    for header in headers {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            let parameters = parameters(rest);
            let get = |name: &str| {
                let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
                parameters.iter().find(same).map(|(_, v)| v.clone())
            };
            if let Some(realm) = get("realm") {
                let (service, scope) = (get("service"), get("scope"));
                return Some(Challenge::Bearer { realm, service, scope });
            }
        }
        has_basic |= scheme.eq_ignore_ascii_case("basic");
    }
    has_basic.then_some(Challenge::Basic)
}

/// Reads `name=value, name="quoted \" value"`; stops at what is neither.
fn parameters(mut text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        let Some((name, rest)) = text.split_once('=') else { return found };
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = rest.find([',', ' ']).unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        found.push((name.trim().to_owned(), value));
        text = rest;
    }
}

fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_wins_over_basic_and_quotes_are_read() {
        let headers = [
            r#"Basic realm="x""#,
            r#"Bearer realm="https://auth.example/token",service="a, \"b\"",scope=repository:x:pull"#,
        ];
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: Some("a, \"b\"".into()),
            scope: Some("repository:x:pull".into()),
        };
        assert_eq!(parse(headers.into_iter()), Some(expected));
        assert_eq!(parse(["basic"].into_iter()), Some(Challenge::Basic));
        assert_eq!(parse(["Bearer nonsense", "Digest a=b"].into_iter()), None);
        assert!(parse([r#"Bearer realm="never closed"#].into_iter()).is_some());
    }
}
