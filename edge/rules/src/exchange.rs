//! Views of the two messages of an exchange with upstream, and when it took place.

use http::{HeaderMap, Method, StatusCode};

use crate::time::Now;

/// What the rules see of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its header fields, those of the client: `Vary` selects by them.
    pub headers: &'a HeaderMap,
}

/// What the rules see of a response: its head as it came from upstream, nothing removed yet.
#[derive(Clone, Copy, Debug)]
pub struct ResponseView<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: &'a HeaderMap,
}

/// When a request left and when the head of its response was there (§4.2.3).
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// `request_time`: before the first byte of the request was sent.
    pub sent: Now,
    /// `response_time`: once the response's head was read.
    pub received: Now,
}
