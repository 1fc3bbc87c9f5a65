//! Errors in the registry's own form (distribution spec, "Error codes").

use ashlar_http::Origin;
use ashlar_service::{Error, ErrorKind};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::Problem;
use crate::problem::seconds;

/// Why a registry client gets nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after: Option<HeaderValue>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned(), retry_after: None }
    }

    pub(super) fn unsupported() -> Self {
        let text = "this registry is read-only; images get here by building them";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", text)
    }

    pub(super) fn no_name() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is no such repository")
    }

    pub(super) fn no_manifest() -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "there is no such manifest")
    }

    pub(super) fn no_blob() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "there is no such blob")
    }

    pub(super) fn bad_digest() -> Self {
        let text = "this is no digest; write ALGORITHM:HEX, e.g. sha256: and 64 digits";
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", text)
    }

    /// The spec has no code of its own for it; this is the one of CNCF's Distribution.
    pub(super) fn bad_page() -> Self {
        let text = "n must be a whole number of tags, from 0 on, and last a tag";
        Self::new(StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID", text)
    }

    /// Turns "not found" into a refusal of the wanted kind.
    pub(super) fn of(error: Error, missing: fn() -> Self) -> Self {
        match error.kind() {
            ErrorKind::NotFound => missing(),
            _ => error.into(),
        }
    }

    /// Answers; whoever has no good token is told where to get one.
    pub(super) fn with(self, origin: &Origin) -> Response {
        let unauthorized = self.status == StatusCode::UNAUTHORIZED;
        let mut response = self.into_response();
        if unauthorized {
            let realm = origin.url("/v2/token");
            let text = format!("Bearer realm=\"{realm}\",service=\"ashlar\"");
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
            }
        }
        response
    }

    /// Answers; whoever has no good token is asked for a password.
    pub(super) fn basic(self) -> Response {
        let unauthorized = self.status == StatusCode::UNAUTHORIZED;
        let mut response = self.into_response();
        if unauthorized {
            let value = HeaderValue::from_static("Basic realm=\"ashlar\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let message = error.public();
        let (status, code) = match error.kind() {
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            ErrorKind::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "DENIED"),
            ErrorKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            ErrorKind::Conflict | ErrorKind::Invalid | ErrorKind::TooLarge => {
                (StatusCode::BAD_REQUEST, "UNSUPPORTED")
            }
            ErrorKind::Internal => {
                tracing::error!(error = error.internal_text(), "the registry failed");
                (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN")
            }
        };
        let retry_after = error.retry_after().map(seconds);
        Self { status, code, message, retry_after }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = if status.is_client_error() { "UNSUPPORTED" } else { "UNKNOWN" };
        let retry_after = problem.retry_after();
        Self { status, code, message: problem.detail, retry_after }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = json!({ "code": self.code, "message": self.message });
        let mut response = (self.status, Json(json!({ "errors": [error] }))).into_response();
        if let Some(after) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, after);
        }
        response
    }
}
