//! Who asks: `Authorization: Token KEY`.

use ashlar_service::{Actor, Error, ErrorKind, Service};
use axum::http::{HeaderMap, header};

use crate::error::Refusal;

/// Returns who asks; nobody when the request has no credentials of this kind.
pub(crate) async fn actor(
    service: &Service,
    headers: &HeaderMap,
) -> Result<Option<Actor>, Refusal> {
    match key(headers)? {
        Some(key) => authenticate(service, &key).await.map(Some),
        None => Ok(None),
    }
}

/// Returns the actor that a key stands for.
pub(crate) async fn authenticate(service: &Service, key: &str) -> Result<Actor, Refusal> {
    service.authenticate(key).await.map_err(|error| match error.kind() {
        ErrorKind::Unauthorized => Refusal::Unauthorized("Invalid token.".into()),
        _ => Refusal::from(error),
    })
}

/// Returns the refusal of a request without credentials.
pub(crate) fn missing(service: &Service) -> Refusal {
    let text = "Authentication credentials were not provided.";
    match service.unknown(text) {
        Error::Unauthorized(_) => Refusal::Unauthorized(text.into()),
        error => Refusal::from(error),
    }
}

/// Reads the header. Another scheme counts as no credentials, as in the original.
fn key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let wrong = |text: &str| Refusal::Unauthorized(text.into());
    let text = value.to_str().map_err(|_| {
        wrong("Invalid token header. Token string should not contain invalid characters.")
    })?;
    let mut words = text.split_whitespace();
    if !words.next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("token")) {
        return Ok(None);
    }
    match (words.next(), words.next()) {
        (None, _) => Err(wrong("Invalid token header. No credentials provided.")),
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(wrong("Invalid token header. Token string should not contain spaces.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &'static str) -> Result<Option<String>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, axum::http::HeaderValue::from_static(text));
        key(&headers)
    }

    #[test]
    fn the_scheme_has_any_case_and_others_count_as_none() {
        assert_eq!(of("Token abc").unwrap().as_deref(), Some("abc"));
        assert_eq!(of("token abc").unwrap().as_deref(), Some("abc"));
        for other in ["Bearer abc", "Basic eDp5", "EphemeralToken x", ""] {
            assert_eq!(of(other).unwrap(), None, "{other}");
        }
        assert!(of("Token").is_err() && of("token a b").is_err());
    }
}
