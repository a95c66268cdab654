//! The answer: from the store, from a body that is still arriving, from upstream, or an error.
//!
//! Decides nothing about freshness. Of a response that may be reused it sends what the client
//! asked for: not modified, a range, the head alone, or all of it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use meridian_edge_rules::cache_status::CacheStatus;
use meridian_edge_rules::exchange::RequestView;
use meridian_edge_rules::partial::ContentRange;
use meridian_edge_rules::proxy_status::{PROXY_STATUS, ProxyStatus};
use meridian_edge_rules::ranges::{ByteRange, Multipart, Piece, Ranges, ranges, unsatisfied_range};
use meridian_edge_rules::stored::StoredHead;
use meridian_edge_rules::validate::{Precondition, not_modified_fields};
use serde_json::json;

use crate::body::{Body, UpstreamBody};
use crate::collapse::Partial;
use crate::core::Core;
use crate::error::FetchError;
use crate::flow::Reader;
use crate::negotiate::{self, Form};
use crate::route::Site;
use crate::store::Stored;
use crate::stored_body::StoredBody;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Ranges of one request that are answered; with more the whole is sent (RFC 9110 §14.2).
pub(crate) const MAX_RANGES: usize = 16;
/// When a client that was shed should come back.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Where the body of a reused response comes from.
enum Source<'a> {
    Stored(&'a StoredBody),
    /// As it arrives: its length, and which part it is if it is not the whole.
    Arriving(Reader, Option<u64>, Option<ContentRange>),
    /// Put together from slices: its length, and what makes a body of pieces of it.
    Assembled(u64, &'a dyn Fn(Vec<Piece>) -> Body),
}

impl Source<'_> {
    /// The length of the whole.
    fn len(&self) -> Option<u64> {
        match self {
            Self::Stored(body) => Some(body.len()),
            Self::Arriving(_, length, _) => *length,
            Self::Assembled(length, _) => Some(*length),
        }
    }

    fn whole(self) -> Body {
        match self {
            Self::Stored(StoredBody::One(bytes)) => Body::whole(bytes.clone()),
            Self::Stored(body) => Body::pieces(body.pieces().iter().cloned().collect()),
            Self::Arriving(reader, length, _) => Body::arriving(reader, length, None),
            Self::Assembled(0, _) => Body::empty(),
            Self::Assembled(length, assemble) => {
                assemble(vec![Piece::Body(ByteRange { first: 0, last: length - 1 })])
            }
        }
    }

    fn part(self, range: ByteRange) -> Body {
        match self {
            Self::Stored(body) => Body::pieces(body.slice(range)),
            Self::Arriving(reader, length, _) => Body::arriving(reader, length, Some(range)),
            Self::Assembled(_, assemble) => assemble(vec![Piece::Body(range)]),
        }
    }

    /// Several parts at once; `None` if it cannot go back.
    fn parts(&self, multipart: &Multipart) -> Option<Body> {
        match self {
            Self::Stored(body) => {
                let mut pieces = VecDeque::new();
                for piece in multipart.pieces() {
                    match piece {
                        Piece::Head(text) | Piece::Tail(text) => {
                            pieces.push_back(Bytes::from(text))
                        }
                        Piece::Body(range) => pieces.extend(body.slice(range)),
                    }
                }
                Some(Body::pieces(pieces))
            }
            Self::Arriving(..) => None,
            Self::Assembled(_, assemble) => Some(assemble(multipart.pieces().collect())),
        }
    }
}

/// What a request asks for of a stored response: 304 and 412 apart, the ranges that count.
pub(crate) fn wanted(request: &RequestView<'_>, head: &StoredHead, length: u64) -> Ranges {
    ranges(request.method, request.headers, &head.validators, length, MAX_RANGES)
}

/// Whether a request can be answered from what is held here of a stored response.
pub(crate) fn suffices(request: &RequestView<'_>, stored: &Stored) -> bool {
    let (head, body) = (stored.head(), stored.body());
    if body.is_whole() || head.precondition(request) != Precondition::Proceed {
        return true;
    }
    if *request.method != Method::GET {
        return matches!(body, StoredBody::Sliced { .. });
    }
    match wanted(request, head, body.len()) {
        Ranges::Whole => false,
        Ranges::One(range) => body.covers(range),
        Ranges::Several(ranges) => ranges.into_iter().all(|range| body.covers(range)),
        Ranges::Unsatisfiable => true,
    }
}

/// Reuses a stored response, in the form that suits the request.
pub(crate) fn from_stored(
    core: &Core,
    site: &Site,
    request: &RequestView<'_>,
    stored: &Stored,
    age: Duration,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    let form = negotiate::of_stored(core, site, request, stored);
    let form = form.map(|form| Form {
        head: form.head,
        body: Source::Stored(form.body),
        ranges: form.ranges,
    });
    reuse(request, form, age, status)
}

/// Shares a response that is still arriving.
pub(crate) fn from_partial(
    request: &RequestView<'_>,
    partial: &Partial,
    reader: Reader,
    age: Duration,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    let form = negotiate::of_arriving(request, &partial.head, partial.has_forms);
    let form = form.map(|form| Form {
        head: form.head,
        body: Source::Arriving(reader, partial.length, partial.part),
        ranges: form.ranges,
    });
    reuse(request, form, age, status)
}

/// Reuses a stored response whose slices are stored by themselves.
pub(crate) fn from_slices(
    request: &RequestView<'_>,
    stored: &Stored,
    assemble: &dyn Fn(Vec<Piece>) -> Body,
    age: Duration,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    let source = Source::Assembled(stored.body().len(), assemble);
    reuse(request, Some(negotiate::as_it_came(stored.head(), source)), age, status)
}

/// What the client asked for of a response, with the lifetime that a rule gives clients.
fn reuse(
    request: &RequestView<'_>,
    form: Option<Form<'_, Source<'_>>>,
    age: Duration,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    let Some(Form { head, body: source, ranges: heeds_ranges }) = form else {
        return not_acceptable(request.method, status);
    };
    let mut response = as_asked(request, &head, (source, heeds_ranges), age, status);
    if let Some(amended) = &head.amended
        && let Some(cache_control) = amended.cache_control(age)
        && response.headers().contains_key(header::CACHE_CONTROL)
    {
        response.headers_mut().insert(header::CACHE_CONTROL, cache_control);
    }
    response
}

fn as_asked(
    request: &RequestView<'_>,
    head: &StoredHead,
    (source, heeds_ranges): (Source<'_>, bool),
    age: Duration,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    let RequestView { method, headers } = *request;
    match head.precondition(request) {
        Precondition::Proceed => {}
        Precondition::NotModified => {
            let fields = not_modified_fields(&head.headers);
            return reused(StatusCode::NOT_MODIFIED, fields, Body::empty(), age, status);
        }
        Precondition::Failed => {
            let fields = HeaderMap::new();
            return reused(StatusCode::PRECONDITION_FAILED, fields, Body::empty(), age, status);
        }
    }
    if let Source::Arriving(reader, length, Some(of)) = source {
        return arriving_part(head, reader, length, of, age, status);
    }
    if head.status == StatusCode::OK
        && heeds_ranges
        && headers.contains_key(header::RANGE)
        && let Some(length) = source.len()
    {
        match wanted(request, head, length) {
            Ranges::Whole => {}
            Ranges::One(range) => return part(head, source, range, length, age, status),
            Ranges::Several(ranges) => {
                let multipart = multipart(head, ranges, length);
                if let Some(body) = source.parts(&multipart) {
                    return parts(head, &multipart, body, age, status);
                }
            }
            Ranges::Unsatisfiable => return unsatisfiable(length, age, status),
        }
    }
    let body = if *method == Method::HEAD { Body::empty() } else { source.whole() };
    reused(head.status, head.headers.clone(), body, age, status)
}

/// The client refuses every form that there is (RFC 9110 §15.5.7).
fn not_acceptable(method: &Method, status: &CacheStatus<'_>) -> Response<Body> {
    let detail = "this is there in no coding that Accept-Encoding allows; identity may not be \
                  refused before another is made";
    let mut response = problem(method, StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    add_cache_status(response.headers_mut(), status);
    response
}

fn reused(
    code: StatusCode,
    mut fields: HeaderMap,
    body: Body,
    age: Duration,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    fields.insert(header::AGE, HeaderValue::from(age.as_secs()));
    let mut response = Response::new(body);
    *response.status_mut() = code;
    *response.headers_mut() = fields;
    add_cache_status(response.headers_mut(), status);
    response
}

/// Appends this edge's member to those of the caches before it (RFC 9211 §2).
pub(crate) fn add_cache_status(fields: &mut HeaderMap, status: &CacheStatus<'_>) {
    if status.hidden {
        fields.remove(CACHE_STATUS);
        return;
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(status.to_string())) {
        fields.append(CACHE_STATUS, value);
    }
}

fn part(
    head: &StoredHead,
    source: Source<'_>,
    range: ByteRange,
    length: u64,
    age: Duration,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    let mut fields = head.headers.clone();
    fields.insert(header::CONTENT_RANGE, range.content_range(length));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(range.length()));
    reused(StatusCode::PARTIAL_CONTENT, fields, source.part(range), age, status)
}

/// The very part that upstream sends.
fn arriving_part(
    head: &StoredHead,
    reader: Reader,
    length: Option<u64>,
    of: ContentRange,
    age: Duration,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    let mut fields = head.headers.clone();
    fields.insert(header::CONTENT_RANGE, of.to_value());
    match length {
        Some(length) => fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length)),
        None => fields.remove(header::CONTENT_LENGTH),
    };
    let body = Body::arriving(reader, length, None);
    reused(StatusCode::PARTIAL_CONTENT, fields, body, age, status)
}

/// RFC 9110 §14.6.
fn multipart(head: &StoredHead, ranges: Vec<ByteRange>, length: u64) -> Multipart {
    let boundary = format!("meridian{:016x}", rand::random::<u64>());
    Multipart::new(&boundary, head.headers.get(header::CONTENT_TYPE), ranges, length)
}

fn parts(
    head: &StoredHead,
    multipart: &Multipart,
    body: Body,
    age: Duration,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    let mut fields = head.headers.clone();
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(multipart.content_length()));
    fields.insert(header::CONTENT_TYPE, multipart.content_type());
    reused(StatusCode::PARTIAL_CONTENT, fields, body, age, status)
}

fn unsatisfiable(length: u64, age: Duration, status: &CacheStatus<'_>) -> Response<Body> {
    let mut fields = HeaderMap::new();
    fields.insert(header::CONTENT_RANGE, unsatisfied_range(length));
    reused(StatusCode::RANGE_NOT_SATISFIABLE, fields, Body::empty(), age, status)
}

/// Passes an upstream response on to the one client that it is for.
pub(crate) fn from_upstream(
    response: Response<UpstreamBody>,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    let mut response = response.map(Body::upstream);
    add_cache_status(response.headers_mut(), status);
    response
}

/// No usable answer from upstream, and nothing stale that may stand in for it.
pub(crate) fn upstream_error(
    edge: &str,
    method: &Method,
    error: &FetchError,
    status: &CacheStatus<'_>,
) -> Response<Body> {
    let code = format!("upstream_{}", error.token());
    let detail = match error.status() {
        StatusCode::GATEWAY_TIMEOUT => "the origin did not answer in time",
        _ if error.retry_after().is_some() => "the origin has failed too often to be asked now",
        StatusCode::SERVICE_UNAVAILABLE if error.next_hop().is_none() => {
            "the edge is stopping, or a task of its own ended early; try again later"
        }
        StatusCode::SERVICE_UNAVAILABLE => "too many requests wait for the origin; try again later",
        StatusCode::BAD_REQUEST => "the request cannot be sent on to the origin",
        _ => "the origin gave no usable answer",
    };
    let mut response = problem(method, error.status(), &code, detail);
    if let Some(time) = error.retry_after() {
        let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0); // not too early
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole.max(1)));
    }
    let details = error.details();
    let member = ProxyStatus {
        proxy: edge,
        error: Some(error.token()),
        next_hop: error.next_hop(),
        received_status: error.received_status(),
        status_code: error.is_of_client().then(|| error.status()),
        details: details.as_deref(),
    };
    add_proxy_status(response.headers_mut(), &member);
    add_cache_status(response.headers_mut(), status);
    response
}

/// Says in `Proxy-Status` which error the edge itself met (RFC 9209).
pub(crate) fn add_proxy_status(fields: &mut HeaderMap, member: &ProxyStatus<'_>) {
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(member.to_string())) {
        fields.append(PROXY_STATUS, value);
    }
}

/// A refusal of what no site was asked about, with the name that RFC 9209 has for it.
pub(crate) fn told(edge: &str, mut refusal: Response<Body>) -> Response<Body> {
    let status = refusal.status();
    if !status.is_client_error() && !status.is_server_error() {
        return refusal;
    }
    let denied = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED].contains(&status);
    let member = ProxyStatus {
        proxy: edge,
        error: Some(if denied { "http_request_denied" } else { "http_request_error" }),
        status_code: (!denied).then_some(status),
        ..ProxyStatus::default()
    };
    add_proxy_status(refusal.headers_mut(), &member);
    refusal
}

/// An error of the edge's own making that RFC 9209 has a name for.
pub(crate) fn own_error(
    edge: &str,
    error: &str,
    method: &Method,
    status: StatusCode,
    (code, detail): (&str, &str),
) -> Response<Body> {
    let mut response = problem(method, status, code, detail);
    let is_of_request = error == "http_request_error";
    let member = ProxyStatus {
        proxy: edge,
        error: Some(error),
        status_code: is_of_request.then_some(status),
        ..ProxyStatus::default()
    };
    add_proxy_status(response.headers_mut(), &member);
    response
}

/// An error of the edge's own making: `application/problem+json` (RFC 9457).
pub(crate) fn problem(
    method: &Method,
    status: StatusCode,
    code: &str,
    detail: &str,
) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Error");
    let text = json!({
        "type": "about:blank",
        "title": title,
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    })
    .to_string();
    let length = HeaderValue::from(text.len());
    let body = if *method == Method::HEAD { Body::empty() } else { Body::whole(text.into()) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_LENGTH, length);
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        fields.insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}
