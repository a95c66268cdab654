//! What no site and no origin is asked about: what is malformed or beyond a limit, and what this
//! edge answers as the last recipient of it (RFC 9110 §7.6.2).
//!
//! hyper 1.12 answers some requests itself, before this edge sees them, and closes the connection:
//! a malformed head 400, a head beyond `accept.head_size` or more fields than `accept.head_fields`
//! 431, over HTTP/1.1; a head beyond `accept.head_size` 431 over HTTP/2, where a malformed one
//! resets its stream. Over HTTP/2 it does not count fields: that is done here. It cuts a fragment
//! off a target without a word, so that neither key nor origin sees one.

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use meridian_config::edge::Accept;
use meridian_edge_rules::hop_by_hop::max_forwards;

use crate::body::Body;
use crate::nodes::is_internal;
use crate::respond::problem;
use crate::route;
use crate::suspect::ending;

const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
const ALLOW_WITH_TRACE: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE");

/// Fields that an echo of a request leaves out (RFC 9110 §9.3.8).
pub(crate) const SENSITIVE: [header::HeaderName; 3] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// The answer, if it is not for a site to give.
pub(crate) fn refusal(request: &Request<Incoming>, limits: &Accept) -> Option<Response<Body>> {
    let method = request.method();
    let refuse = |status, code, detail| Some(problem(method, status, code, detail));
    if *method == Method::CONNECT {
        // An edge stands before origins that its configuration names, and dials nothing else.
        let status = StatusCode::NOT_IMPLEMENTED;
        return refuse(status, "not_offered", "there are no tunnels here");
    }
    if let Some(rule) = route::broken_host(request).or_else(|| route::broken_target(request)) {
        let problem = problem(method, StatusCode::BAD_REQUEST, "bad_request", rule);
        return Some(ending(request.version(), problem));
    }
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target as u64 > limits.target_size.get() {
        let detail = "the target is longer than accept.target_size";
        return refuse(StatusCode::URI_TOO_LONG, "target_too_long", detail);
    }
    if request.version() == Version::HTTP_2
        && request.headers().len() > usize::from(limits.head_fields.get())
    {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return refuse(status, "head_too_large", "more header fields than accept.head_fields");
    }
    match *method {
        Method::TRACE => trace(request, limits),
        Method::OPTIONS => options(request, limits),
        _ => None,
    }
}

/// Whether the request asks for something that this edge cannot promise (RFC 9110 §10.1.1). What
/// is answered from the store needs no promise.
pub(crate) fn unmet_expectation(request: &Request<Incoming>) -> Option<Response<Body>> {
    let mut expectations = request.headers().get_all(header::EXPECT).iter();
    // In HTTP/1.0 the field means nothing.
    let is_unmet = request.version() != Version::HTTP_10
        && !expectations.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let detail = "100-continue is the only expectation that is met here";
    let status = StatusCode::EXPECTATION_FAILED;
    is_unmet.then(|| problem(request.method(), status, "expectation_failed", detail))
}

fn allow(limits: &Accept) -> HeaderValue {
    if limits.trace { ALLOW_WITH_TRACE } else { ALLOW }
}

/// What is asked of this edge itself is answered here: `OPTIONS *`, and what may go no further.
fn options(request: &Request<Incoming>, limits: &Accept) -> Option<Response<Body>> {
    let is_for_here = request.uri().path() == "*" || max_forwards(request.headers()) == Some(0);
    if !is_for_here {
        return None;
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, allow(limits));
    Some(response)
}

/// `TRACE` would show a client what others in between have added: off, unless it is asked for.
fn trace(request: &Request<Incoming>, limits: &Accept) -> Option<Response<Body>> {
    let method = request.method();
    if !limits.trace {
        let (status, detail) = (StatusCode::METHOD_NOT_ALLOWED, "TRACE is switched off");
        let mut response = problem(method, status, "method_not_allowed", detail);
        response.headers_mut().insert(header::ALLOW, ALLOW);
        return Some(response);
    }
    if !request.body().is_end_stream() {
        let detail = "TRACE has no body";
        return Some(problem(method, StatusCode::BAD_REQUEST, "bad_request", detail));
    }
    (max_forwards(request.headers()) == Some(0)).then(|| echo(request))
}

/// The request as it was received, as a body (RFC 9110 §9.3.8).
fn echo(request: &Request<Incoming>) -> Response<Body> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let mut text = format!("TRACE {target} {:?}\r\n", request.version()).into_bytes();
    for (name, value) in request.headers() {
        if !SENSITIVE.contains(name) && !is_internal(name) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                text.extend_from_slice(part);
            }
        }
    }
    text.extend_from_slice(b"\r\n");
    let mut response = Response::new(Body::whole(text.into()));
    let content_type = HeaderValue::from_static("message/http");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}
