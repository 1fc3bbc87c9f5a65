//! Parts of requests, refused as problem documents.

use ashlar_service::Error;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path as AxumPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use crate::app::BODY_BYTES_MAX;
use crate::{Problem, strict};

/// The parameters of a path.
pub(crate) struct Path<T>(pub(crate) T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let AxumPath(parameters) = AxumPath::from_request_parts(parts, state).await?;
        Ok(Self(parameters))
    }
}

/// The header `Idempotency-Key`: the client's word for one request, however often it is sent.
pub(crate) struct IdempotencyKey(Option<String>);

impl IdempotencyKey {
    /// Returns the key, or the body's when the request has no such header.
    pub(crate) fn or(self, of_the_body: Option<String>) -> Option<String> {
        self.0.or(of_the_body)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let key = parts.headers.get("idempotency-key").map(|key| key.to_str().map(str::to_owned));
        key.transpose().map(Self).map_err(|e| Problem::invalid("Idempotency-Key", e))
    }
}

/// A body that is JSON.
pub(crate) struct Body<T>(pub(crate) T);

impl<S, T> FromRequest<S> for Body<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::invalid("Content-Type", "must be application/json"));
        }
        let bytes = bytes(request, state).await?;
        strict::from_slice(&bytes).map(Self).map_err(|e| Problem::invalid("body", e))
    }
}

/// A body that is JSON, of whatever type it is said to be, or missing.
pub(crate) struct Optional<T>(pub(crate) T);

impl<S, T> FromRequest<S> for Optional<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Default,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = bytes(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        strict::from_slice(&bytes).map(Self).map_err(|e| Problem::invalid("body", e))
    }
}

async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|refused| {
        if refused.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let (what, max) = ("the body".into(), BODY_BYTES_MAX as u64);
            return Error::TooLarge { what, max, unit: "bytes" }.into();
        }
        Problem::invalid("body", refused.body_text())
    })
}

/// Says whether the body is said to be JSON, or a kind of it (RFC 6839).
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}
