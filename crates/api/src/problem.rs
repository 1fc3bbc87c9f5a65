//! Errors as problem documents (RFC 9457).

use std::any::Any;
use std::time::Duration;

use ashlar_service::{Error, ErrorKind, LogRemoved};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What a client gets instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which problem: stable, `about:blank#` and a word.
    #[serde(rename = "type")]
    pub kind: String,
    /// The problem in words, the same for all of its kind.
    pub title: &'static str,
    /// The status code.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The part of the request that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

impl Problem {
    fn new(word: &str, title: &'static str, status: StatusCode, detail: String) -> Self {
        let kind = format!("urn:ashlar:problem:{word}");
        Self { kind, title, status: status.as_u16(), detail, field: None, retry_after: None }
    }

    /// Returns when to try again, for the header `Retry-After`.
    pub(crate) fn retry_after(&self) -> Option<HeaderValue> {
        self.retry_after.map(seconds)
    }

    /// The request is wrong in a part.
    pub(crate) fn invalid(field: &str, why: impl ToString) -> Self {
        Error::invalid(field, why).into()
    }
}

impl From<LogRemoved> for Problem {
    fn from(removed: LogRemoved) -> Self {
        Self::new("log_removed", "Log removed", StatusCode::GONE, removed.to_string())
    }
}

/// Writes a time as the header `Retry-After` has it.
pub(crate) fn seconds(time: Duration) -> HeaderValue {
    HeaderValue::from(time.as_secs().max(1))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        if kind == ErrorKind::Internal {
            tracing::error!(error = error.internal_text(), "a request failed");
        }
        let (word, title, status) = match kind {
            ErrorKind::NotFound => ("not_found", "Not found", StatusCode::NOT_FOUND),
            ErrorKind::Unauthorized => ("unauthorized", "Unauthorized", StatusCode::UNAUTHORIZED),
            ErrorKind::Forbidden => ("forbidden", "Forbidden", StatusCode::FORBIDDEN),
            ErrorKind::Conflict => ("conflict", "Conflict", StatusCode::CONFLICT),
            ErrorKind::Invalid => ("invalid", "Invalid request", StatusCode::BAD_REQUEST),
            ErrorKind::TooLarge => ("too_large", "Too large", StatusCode::PAYLOAD_TOO_LARGE),
            ErrorKind::RateLimited => {
                ("rate_limited", "Too many requests", StatusCode::TOO_MANY_REQUESTS)
            }
            ErrorKind::Unavailable => {
                ("unavailable", "Not available", StatusCode::SERVICE_UNAVAILABLE)
            }
            ErrorKind::Internal => {
                ("internal", "Internal error", StatusCode::INTERNAL_SERVER_ERROR)
            }
        };
        let mut problem = Self::new(word, title, status, error.public());
        problem.retry_after = error.retry_after();
        if let Error::Invalid { field, .. } = error {
            problem.field = Some(field);
        }
        problem
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let retry_after = self.retry_after();
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"ashlar\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(after) = retry_after {
            headers.insert(header::RETRY_AFTER, after);
        }
        response
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid("query", rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid("path", rejection.body_text())
    }
}

/// Answers where no route is.
pub(crate) async fn no_route(uri: Uri) -> Problem {
    Error::not_found("resource", uri.path()).into()
}

/// Answers a method that a path does not have; which it has is said in `Allow`.
pub(crate) async fn no_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("'{}' does not take {method}; Allow says what it takes", uri.path());
    Problem::new("no_method", "Method not allowed", StatusCode::METHOD_NOT_ALLOWED, detail)
}

/// Answers a request whose handler panicked.
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
    let error = Error::internal(format!("a handler panicked: {text}"));
    let mut response = Problem::from(error).into_response();
    // What the handler left half done must not be taken for whole on the same connection.
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(HeaderName::from_static("connection"), close);
    response
}
