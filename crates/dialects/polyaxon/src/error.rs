//! Refusals in the original's forms.

use ashlar_service::{Error, ErrorKind};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A request is not answered as it was hoped.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// 400 with texts by field.
    Field(&'static str, String),
    /// 400 with a list of one text, as the original's code raises it.
    Text(String),
    /// Another status with `detail`.
    Detail(StatusCode, String),
    /// 401.
    Unauthorized(String),
    /// 404 of a thing.
    NotFound,
    /// 404 of a path: a page, since the original's routes answer so.
    NoRoute,
    /// 405.
    Method(String),
    /// 429.
    Throttled(u64),
    /// Something that the service said.
    Service(Error),
}

/// What handlers return.
pub(crate) type Answer = Result<Response, Refusal>;

impl Refusal {
    /// Makes a general fault of a body.
    pub(crate) fn general(text: impl Into<String>) -> Self {
        Self::Field("non_field_errors", text.into())
    }

    pub(crate) fn required(field: &'static str) -> Self {
        Self::Field(field, "This field is required.".into())
    }

    pub(crate) fn forbidden() -> Self {
        let text = "You do not have permission to perform this action.";
        Self::Detail(StatusCode::FORBIDDEN, text.into())
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Unauthorized => Self::Unauthorized("Invalid token.".into()),
            ErrorKind::Forbidden => Self::forbidden(),
            // The clients know no 409: a conflict is a fault of the request to them.
            ErrorKind::Conflict | ErrorKind::Invalid => Self::Text(error.public()),
            ErrorKind::TooLarge => Self::Detail(StatusCode::PAYLOAD_TOO_LARGE, error.public()),
            ErrorKind::RateLimited => match error {
                Error::RateLimited { retry_after } => Self::Throttled(retry_after.as_secs().max(1)),
                _ => Self::Throttled(1),
            },
            _ => Self::Service(error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let detail = |text: String| json!({ "detail": text });
        match self {
            Self::Field(field, text) => reply(StatusCode::BAD_REQUEST, &json!({ field: [text] })),
            Self::Text(text) => reply(StatusCode::BAD_REQUEST, &json!([text])),
            Self::Detail(status, text) => reply(status, &detail(text)),
            Self::Unauthorized(text) => {
                let mut response = reply(StatusCode::UNAUTHORIZED, &detail(text));
                let scheme = HeaderValue::from_static("Token");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
                response
            }
            Self::NotFound => reply(StatusCode::NOT_FOUND, &detail("Not found.".into())),
            Self::NoRoute => page(StatusCode::NOT_FOUND, "Not Found"),
            Self::Method(method) => {
                let text = format!("Method \"{method}\" not allowed.");
                reply(StatusCode::METHOD_NOT_ALLOWED, &detail(text))
            }
            Self::Throttled(seconds) => {
                let text =
                    format!("Request was throttled. Expected available in {seconds} seconds.");
                let mut response = reply(StatusCode::TOO_MANY_REQUESTS, &detail(text));
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                response
            }
            Self::Service(error) => service(&error),
        }
    }
}

fn service(error: &Error) -> Response {
    if error.kind() == ErrorKind::Unavailable {
        return reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "detail": error.public() }));
    }
    tracing::error!(error = error.internal_text(), "a request failed");
    page(StatusCode::INTERNAL_SERVER_ERROR, "Server Error")
}

/// Returns a JSON answer.
pub(crate) fn reply(status: StatusCode, value: &Value) -> Response {
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], value.to_string()).into_response()
}

/// Returns an answer without body.
pub(crate) fn empty(status: StatusCode) -> Response {
    status.into_response()
}

fn page(status: StatusCode, title: &str) -> Response {
    let number = status.as_u16();
    let body = format!("<!doctype html>\n<title>{title}</title>\n<h1>{title} ({number})</h1>\n");
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    (status, [(header::CONTENT_TYPE, html)], body).into_response()
}
