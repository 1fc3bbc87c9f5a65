//! Errors as this dialect's clients read them: the code decides which exception the SDK raises.

use ashlar_service::{Error as ServiceError, ErrorKind};
use axum::http::StatusCode;

use crate::wire::{ErrorBody, FailureDetail, ValidationProblem};

/// Codes that clients tell apart.
pub(crate) mod code {
    pub(crate) const UNAUTHORIZED: &str = "unauthorized";
    pub(crate) const PERMISSION_DENIED: &str = "permission_denied";
    pub(crate) const INVALID_REQUEST: &str = "invalid_request";
    pub(crate) const INVALID_FIELDS: &str = "invalid_fields";
    pub(crate) const TEMPLATE_NOT_FOUND: &str = "template_not_found";
    pub(crate) const BUILD_NOT_FOUND: &str = "template_build_not_found";
    pub(crate) const CLAIM_NOT_FOUND: &str = "template_name_claim_not_found";
    pub(crate) const NOT_FOUND: &str = "not_found";
    pub(crate) const CONFLICT: &str = "conflict";
    pub(crate) const BUILD_ERROR: &str = "build_error";
    pub(crate) const FILE_UPLOAD_ERROR: &str = "file_upload_error";
    pub(crate) const RATE_LIMIT_EXCEEDED: &str = "rate_limit_exceeded";
    pub(crate) const NOT_IMPLEMENTED: &str = "not_implemented";
    pub(crate) const FEATURE_UNAVAILABLE: &str = "feature_unavailable";
    pub(crate) const INTERNAL_ERROR: &str = "internal_error";
}

/// An answer that is no success.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) detail: Option<Box<FailureDetail>>,
    pub(crate) build_id: Option<String>,
    pub(crate) retry_after: Option<u64>,
    /// What else is wrong, for the answer of a validation.
    pub(crate) more: Vec<String>,
}

/// What a handler comes to.
pub(crate) type Answer<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            detail: None,
            build_id: None,
            retry_after: None,
            more: Vec::new(),
        }
    }

    /// The request is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, message)
    }

    /// Several things are wrong with the request.
    pub(crate) fn invalid_all(messages: Vec<String>) -> Self {
        let mut messages = messages.into_iter();
        let first = messages.next().unwrap_or_else(|| "the request is wrong".into());
        Self { more: messages.collect(), ..Self::invalid(first) }
    }

    pub(crate) fn no_template(reference: &str) -> Self {
        let shown: String = reference.chars().take(200).collect();
        let message = format!("there is no template '{shown}'");
        Self::new(StatusCode::NOT_FOUND, code::TEMPLATE_NOT_FOUND, message)
    }

    pub(crate) fn no_build(id: &str) -> Self {
        let shown: String = id.chars().take(100).collect();
        let message = format!("there is no template build '{shown}'");
        Self::new(StatusCode::NOT_FOUND, code::BUILD_NOT_FOUND, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code::NOT_FOUND, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code::CONFLICT, message)
    }

    /// Something about a context or a blob is wrong. `phase` is `preflight` or `blob_upload`.
    pub(crate) fn upload(phase: &str, reason: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let detail = FailureDetail {
            code: code::FILE_UPLOAD_ERROR.into(),
            message: message.clone(),
            phase: phase.into(),
            retryable: false,
            suggested_action: "Upload the file again, then repeat the build.".into(),
            details: Some(serde_json::json!({ "reason": reason })),
            ..FailureDetail::default()
        };
        Self {
            detail: Some(Box::new(detail)),
            ..Self::new(StatusCode::BAD_REQUEST, code::FILE_UPLOAD_ERROR, message)
        }
    }

    /// Adds the key of a file's path to the details.
    pub(crate) fn about(mut self, key: &str, value: &str) -> Self {
        if let Some(details) = self.detail.as_mut().and_then(|d| d.details.as_mut()) {
            details[key] = value.into();
        }
        self
    }

    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "a request failed");
        let message = "something in the service broke; its log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL_ERROR, message)
    }

    /// Returns the body.
    pub(crate) fn body(&self, request_id: &str) -> ErrorBody {
        let mut detail = self.detail.clone();
        if let Some(detail) = &mut detail {
            detail.request_id.get_or_insert_with(|| request_id.to_owned());
        }
        ErrorBody {
            error: self.message.clone(),
            code: self.code.to_owned(),
            error_detail: detail,
            request_id: request_id.to_owned(),
            build_id: self.build_id.clone(),
        }
    }

    /// Returns what a validation says of it.
    pub(crate) fn problems(&self) -> Vec<ValidationProblem> {
        let problem = |message: &String| ValidationProblem {
            code: self.code.to_owned(),
            message: message.clone(),
            phase: self.detail.as_ref().map(|d| d.phase.clone()),
        };
        std::iter::once(&self.message).chain(&self.more).map(problem).collect()
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let (status, code) = match error.kind() {
            ErrorKind::NotFound => (StatusCode::NOT_FOUND, code::NOT_FOUND),
            ErrorKind::Unauthorized => (StatusCode::UNAUTHORIZED, code::UNAUTHORIZED),
            ErrorKind::Forbidden => (StatusCode::FORBIDDEN, code::PERMISSION_DENIED),
            ErrorKind::Conflict => (StatusCode::CONFLICT, code::CONFLICT),
            ErrorKind::Invalid => (StatusCode::BAD_REQUEST, code::INVALID_REQUEST),
            ErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, code::INVALID_REQUEST),
            ErrorKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, code::RATE_LIMIT_EXCEEDED),
            ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, code::FEATURE_UNAVAILABLE),
            ErrorKind::Internal => {
                tracing::error!(error = error.internal_text(), "a request failed");
                (StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL_ERROR)
            }
        };
        let retry_after = match &error {
            ServiceError::RateLimited { retry_after } => Some(retry_after.as_secs().max(1)),
            _ => None,
        };
        Self { retry_after, ..Self::new(status, code, error.public()) }
    }
}
