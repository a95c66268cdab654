//! Which fields may stand in trailers that go on (RFC 9110 §6.5.1).
//!
//! Whoever receives them may merge them into the head, long after the head was judged: what frames
//! a message, routes it, says who sends it, or decides how it is stored, is dropped there.

use http::HeaderMap;
use http::header::{self, HeaderName};

const FORBIDDEN: [HeaderName; 36] = [
    // framing and connections
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::EXPECT,
    header::MAX_FORWARDS,
    // routing
    header::HOST,
    header::VIA,
    header::FORWARDED,
    HeaderName::from_static("cdn-loop"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("x-host"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
    // who it is
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::WWW_AUTHENTICATE,
    // what is to be done with it
    header::RANGE,
    header::AGE,
    header::CACHE_CONTROL,
    header::PRAGMA,
    header::EXPIRES,
    header::DATE,
    header::VARY,
    header::LOCATION,
    header::RETRY_AFTER,
    // how to read the body
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::CONTENT_LOCATION,
    HeaderName::from_static("surrogate-control"),
];

/// Families of the same.
const FORBIDDEN_STARTS: [&str; 9] = [
    "if-",
    "proxy-",
    "x-forwarded-",
    "x-http-method-",
    "meridian-",
    "surrogate-",
    "cache-",
    "cdn-",
    "access-control-",
];

/// Drops what may not stand in trailers.
pub fn remove_forbidden(trailers: &mut HeaderMap) {
    let is_forbidden = |name: &HeaderName| {
        FORBIDDEN.contains(name)
            || FORBIDDEN_STARTS.iter().any(|start| name.as_str().starts_with(start))
    };
    let forbidden: Vec<_> = trailers.keys().filter(|name| is_forbidden(name)).cloned().collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::headers;

    #[test]
    fn what_frames_routes_or_decides_is_dropped_and_the_rest_goes_on() {
        let mut fields = headers(
            "Server-Timing: db;dur=5\nDigest: x\nContent-Length: 5\nHost: evil\nCookie: a=b
             X-Forwarded-For: 6.6.6.6\nX-HTTP-Method-Override: DELETE\nMeridian-Need-Cursor: x
             Set-Cookie: a=b\nCache-Tag: x\nCDN-Cache-Control: max-age=9\nIf-Match: x\nX-A: 1
             Surrogate-Key: x\nTransfer-Encoding: chunked\nETag: \"1\"",
        );
        remove_forbidden(&mut fields);
        let kept = headers("Server-Timing: db;dur=5\nDigest: x\nX-A: 1\nETag: \"1\"");
        assert_eq!(fields, kept);
    }
}
