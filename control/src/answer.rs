//! Answers: JSON, problems (RFC 9457), text.
//!
//! # Invariants
//! - Every answer of an API forbids storing: it is true for an instant.
//! - An error has exactly one token, which the body, the metric and the log share.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{self, Poll};

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Frame, SizeHint};
use meridian_control_wire::problem::{Broken, ErrorCode, PROBLEM_JSON, Problem};
use serde::Serialize;
use tokio::sync::mpsc;

/// The body of an answer: whole, or made while it is sent.
#[derive(Debug)]
pub(crate) enum Body {
    Whole(Full<Bytes>),
    /// Pieces as they come; what stands in the cell when there are no more is the last one.
    Stream(mpsc::Receiver<Bytes>, Arc<OnceLock<Bytes>>),
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context),
            Self::Stream(pieces, last) => pieces.poll_recv(context).map(|piece| {
                let last = || Arc::get_mut(last).and_then(OnceLock::take);
                piece.or_else(last).map(|piece| Ok(Frame::data(piece)))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Stream(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Stream(..) => SizeHint::default(),
        }
    }
}

/// An answer.
pub(crate) type Answer = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Why a request is not done, and what its client hears.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) problem: Box<Problem>,
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
        Self { problem: Box::new(Problem::new(code, detail)), fields }
    }

    /// The method is not offered here, `allowed` are (RFC 9110 §15.5.6).
    pub(crate) fn method(method: &Method, allowed: &'static str) -> Self {
        let detail = format!("{method} is not offered here, only {allowed}");
        let mut refusal = Self::new(ErrorCode::MethodNotAllowed, detail);
        refusal.fields.push((ALLOW, HeaderValue::from_static(allowed)));
        refusal
    }

    /// With the rules that a value breaks.
    pub(crate) fn because(mut self, violations: Vec<Broken>) -> Self {
        self.problem.violations = violations;
        self
    }

    /// With another header field.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
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
    *answer.body_mut() = Body::Whole(Full::new(bytes));
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
