//! Answers: JSON, problems (RFC 9457), text.
//!
//! # Invariants
//! - Every answer of an API forbids storing: it is true for an instant.
//! - An error has exactly one token, which the body, the metric and the log share.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use meridian_control_wire::problem::{ErrorCode, PROBLEM_JSON, Problem};
use serde::Serialize;

/// The body of an answer. One type for all, so that a streaming one has a place to come in.
pub(crate) type Body = Full<Bytes>;

/// An answer.
pub(crate) type Answer = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Why a request is not done, and what its client hears.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// `code`, with the fields that its status demands.
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let fields = match code.status() {
            // RFC 9110 §11.6.1 demands a challenge; §10.2.3: how long to stay away
            401 => vec![(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))],
            503 => vec![(RETRY_AFTER, HeaderValue::from_static("1"))],
            _ => Vec::new(),
        };
        Self { problem: Problem::new(code, detail), fields }
    }

    /// The method is not offered here, `allowed` are (RFC 9110 §15.5.6).
    pub(crate) fn method(method: &Method, allowed: &'static str) -> Self {
        let detail = format!("{method} is not offered here, only {allowed}");
        let mut refusal = Self::new(ErrorCode::MethodNotAllowed, detail);
        refusal.fields.push((ALLOW, HeaderValue::from_static(allowed)));
        refusal
    }

    /// Its token.
    pub(crate) fn code(&self) -> ErrorCode {
        self.problem.code
    }

    /// The answer that tells it.
    pub(crate) fn into_answer(self) -> Answer {
        let status =
            StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = json(status, &self.problem);
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.extend(self.fields);
        answer
    }
}

/// `value` as JSON.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes_of(status, JSON, bytes.into()),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            empty(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// `bytes`, of the media type `kind`.
pub(crate) fn bytes_of(status: StatusCode, kind: HeaderValue, bytes: Bytes) -> Answer {
    let mut answer = empty(status);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    *answer.body_mut() = Full::new(bytes);
    answer
}

/// Lines for people and probes.
pub(crate) fn text(status: StatusCode, text: &'static str) -> Answer {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    bytes_of(status, kind, Bytes::from_static(text.as_bytes()))
}

/// No body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::default());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    answer
}

/// The answer to HEAD: the same head, no body (RFC 9110 §9.3.2).
pub(crate) fn without_body(mut answer: Answer) -> Answer {
    if let Some(length) = hyper::body::Body::size_hint(answer.body()).exact() {
        answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *answer.body_mut() = Body::default();
    answer
}
