//! How the origin tells an error: `application/problem+json` (RFC 9457) with a `code`.
//!
//! # Invariants
//! - One code, one status: a client may decide by either.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::Serialize;

use crate::body::Body;

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    /// Another request with this key is being worked on.
    IdempotencyInFlight,
    /// This key was used with another request.
    IdempotencyMismatch,
    RequestTimeout,
    TooLarge,
    Internal,
    NotOffered,
    Overloaded,
    NotReady,
    /// A file is being written while it is asked for.
    Changing,
}

impl Code {
    const fn token_and_status(self) -> (&'static str, StatusCode) {
        match self {
            Self::BadRequest => ("bad_request", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
            Self::IdempotencyInFlight => ("idempotency_in_flight", StatusCode::CONFLICT),
            Self::IdempotencyMismatch => ("idempotency_mismatch", StatusCode::UNPROCESSABLE_ENTITY),
            Self::RequestTimeout => ("request_timeout", StatusCode::REQUEST_TIMEOUT),
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
            Self::NotOffered => ("not_offered", StatusCode::NOT_IMPLEMENTED),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE),
            Self::NotReady => ("not_ready", StatusCode::SERVICE_UNAVAILABLE),
            Self::Changing => ("changing", StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

/// An error as a client hears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) code: Code,
    /// What, which value, which rule; for people.
    pub(crate) detail: String,
}

/// The members of RFC 9457 §3.1, and `code`.
#[derive(Serialize)]
struct Members<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    code: &'static str,
    detail: &'a str,
}

impl Problem {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// The answer that tells it. Nobody stores it, unless the caller says otherwise.
    pub(crate) fn response(&self) -> Response<Body> {
        let (token, status) = self.code.token_and_status();
        let mut response = told(status, token, &self.detail);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// An answer with any `status`, such as a fault asks for.
pub(crate) fn told(status: StatusCode, code: &'static str, detail: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Unassigned");
    let members = Members { kind: "about:blank", title, status: status.as_u16(), code, detail };
    // Serializing five members of text and number into memory cannot fail; if it did, the status
    // would still tell.
    let text = serde_json::to_vec(&members).unwrap_or_default();
    let mut response = Response::new(Body::of(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
