//! Requests that two readers could take for different ones (RFC 9112 §11.2): refused, however the
//! HTTP library took them, and their connection ends.
//!
//! Of what is malformed the library refuses most by itself; this is the rest.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};

use crate::body::Body;
use crate::connection::Connection;
use crate::respond;

/// A request that is refused for what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    rule: &'static str,
}

const fn malformed(rule: &'static str) -> Refusal {
    Refusal { status: StatusCode::BAD_REQUEST, code: "bad_request", rule }
}

/// The refusal of a request that came over `connection`, if it could be taken for another.
pub(crate) fn refused(
    request: &Request<Incoming>,
    connection: &Connection,
) -> Option<Response<Body>> {
    if connection.had_bare_lf() {
        let found = malformed("each line of a head ends with CRLF");
        return Some(refusal(request.method(), request.version(), found));
    }
    let found = if request.body().is_end_stream() { None } else { coding(request.headers()) };
    let found = found.or_else(|| host(request))?;
    Some(refusal(request.method(), request.version(), found))
}

fn refusal(method: &Method, version: Version, found: Refusal) -> Response<Body> {
    ending(version, respond::problem(method, found.status, found.code, found.rule))
}

/// Makes an answer the last one of its connection: what follows could be a part of the request.
pub(crate) fn ending(version: Version, mut response: Response<Body>) -> Response<Body> {
    if version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A body in chunks is that and nothing else: the library looks for `chunked` at the end of the list
/// and undoes it, and other codings would be forgotten (RFC 9112 §6.1).
fn coding(headers: &HeaderMap) -> Option<Refusal> {
    let lines = headers.get_all(header::TRANSFER_ENCODING);
    let mut values = lines.iter();
    let first = values.next()?;
    if values.next().is_none() && first.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return None;
    }
    let mut members = lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let is_other = |member: &[u8]| !member.is_empty() && !member.eq_ignore_ascii_case(b"chunked");
    Some(if members.any(|member| is_other(member.trim_ascii())) {
        let rule = "the only transfer coding here is chunked";
        Refusal { status: StatusCode::NOT_IMPLEMENTED, code: "not_offered", rule }
    } else {
        malformed("a body is in chunks once")
    })
}

/// Whom it is for: one host, with a port that is one, said once or twice the same.
fn host<B>(request: &Request<B>) -> Option<Refusal> {
    let uri = request.uri();
    let field = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    if let Some(authority) = uri.authority() {
        if authority.as_str().contains('@') {
            return Some(malformed("a target names no user"));
        }
        if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
            return Some(malformed("the target must be of http or https"));
        }
        let is_http2 = request.version() >= Version::HTTP_2;
        let differs = |field: &[u8]| !field.eq_ignore_ascii_case(authority.as_str().as_bytes());
        if is_http2 && field.is_some_and(differs) {
            return Some(malformed("Host and :authority must be the same"));
        }
        if !is_port(authority.as_str().as_bytes()) {
            return Some(malformed("a port is a number"));
        }
    }
    let is_sound = field.is_none_or(is_port);
    (!is_sound).then_some(malformed("a port is a number"))
}

/// Whether what follows the host, if anything, is a port.
fn is_port(authority: &[u8]) -> bool {
    let host_end = match authority {
        [b'[', ..] => authority.iter().position(|byte| *byte == b']').map(|at| at + 1),
        _ => authority.iter().position(|byte| *byte == b':').or(Some(authority.len())),
    };
    match host_end.and_then(|end| authority.get(end..)) {
        Some([]) => true,
        Some([b':', port @ ..]) => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_once_and_alone_is_the_only_coding() {
        let rows: [(&[&str], Option<u16>); 8] = [
            (&["chunked"], None),
            (&["CHUNKED"], None),
            (&["chunked, chunked"], Some(400)),
            (&["chunked", "chunked"], Some(400)),
            (&[", chunked"], Some(400)),
            (&["gzip, chunked"], Some(501)),
            (&["identity", "chunked"], Some(501)),
            (&["chunked", "x"], Some(501)),
        ];
        for (lines, want) in rows {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::TRANSFER_ENCODING, HeaderValue::from_static(line));
            }
            assert_eq!(coding(&headers).map(|found| found.status.as_u16()), want, "{lines:?}");
        }
    }

    #[test]
    fn a_request_is_for_one_host() {
        let rows = [
            ("/a", "h", Version::HTTP_11, true),
            ("/a", "h:80", Version::HTTP_11, true),
            ("/a", "h:", Version::HTTP_11, true),
            ("/a", "[::1]:80", Version::HTTP_11, true),
            ("/a", "[::1]", Version::HTTP_11, true),
            ("/a", "", Version::HTTP_11, true),
            ("/a", "h:80:80", Version::HTTP_11, false),
            ("/a", "h:x", Version::HTTP_11, false),
            ("/a", "h:+80", Version::HTTP_11, false),
            ("/a", "h:800000", Version::HTTP_11, false),
            ("/a", "[::1", Version::HTTP_11, false),
            ("/a", "[::1]80", Version::HTTP_11, false),
            ("http://h/a", "evil", Version::HTTP_11, true), // RFC 9112 §3.2.2: the target wins
            ("http://h/a", "evil", Version::HTTP_2, false),
            ("http://h/a", "H", Version::HTTP_2, true),
            ("http://u@h/a", "h", Version::HTTP_11, false),
            ("ftp://h/a", "h", Version::HTTP_11, false),
        ];
        for (target, field, version, is_sound) in rows {
            let request = Request::get(target).header(header::HOST, field).version(version);
            let found = host(&request.body(()).unwrap());
            assert_eq!(found.is_none(), is_sound, "{target} {field}: {found:?}");
        }
    }
}
