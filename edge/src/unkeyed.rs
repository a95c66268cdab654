//! What a client says in a place that no key holds, and that origins act upon all the same: web
//! cache poisoning.
//!
//! Fields that are taken for the target, the scheme, the method or the client are not sent on, in
//! any spelling that a gateway folds into the same variable. An answer that names one of several
//! web origins is for that origin. A path that may be taken for another is not stored.
//!
//! Not here: fields that many applications need and that only `Vary` can tell of (`Cookie`,
//! `Accept-Language`, `User-Agent`, fields of one's own).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Never sent on, beside those that the edge says itself.
const NAMES: [&str; 33] = [
    "base-url",
    "client-ip",
    "front-end-https",
    "proxy", // CGI hands it on as HTTP_PROXY
    "true-client-ip",
    "x-backend-host",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-forwarded-by",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
    "x-url-scheme",
];

/// Removes what no key holds; `_` counts as `-`, as it does where fields become variables.
pub(crate) fn remove(fields: &mut HeaderMap) {
    let unkeyed: Vec<HeaderName> =
        fields.keys().filter(|name| is_unkeyed(name.as_str())).cloned().collect();
    for name in unkeyed {
        fields.remove(name);
    }
}

fn is_unkeyed(name: &str) -> bool {
    let begins = matches!(name.as_bytes().first(), Some(b'x' | b'b' | b'c' | b'f' | b'p' | b't'));
    begins && NAMES.binary_search_by(|known| known.bytes().cmp(name.bytes().map(hyphened))).is_ok()
}

const fn hyphened(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte }
}

/// Makes an answer that allows one web origin vary by it, if it does not say so: an origin that
/// echoes what was asked for would let one asker decide for all.
pub(crate) fn vary_by_origin(answer: &mut HeaderMap) {
    let allowed = answer.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(HeaderValue::as_bytes);
    if allowed.is_none_or(|allowed| allowed.trim_ascii() == b"*") {
        return;
    }
    let lines = answer.get_all(header::VARY).iter();
    let mut members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let says = |member: &[u8]| {
        let member = member.trim_ascii();
        member == b"*" || member.eq_ignore_ascii_case(b"origin")
    };
    if !members.any(says) {
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// Whether a path may be another one to an origin that reads it more freely: it is answered, but
/// neither from the store nor into it, so that no rule about what it looks like decides. Plain steps
/// are none of this: they are gone from the key and from what the origin sees.
pub(crate) fn is_ambiguous(path: &str) -> bool {
    if !path.bytes().any(|byte| matches!(byte, b'%' | b'\\')) && !path.contains("..") {
        return false;
    }
    let is_step = |segment: &&[u8]| decoded(segment) == b"..";
    let segments = path.as_bytes().split(|byte| *byte == b'/').filter(|segment| !is_step(segment));
    let mut text = segments.collect::<Vec<_>>().join(&b'/');
    for _ in 0..3 {
        if has_freedom(&text) {
            return true;
        }
        let more = decoded(&text);
        if more == text {
            return false;
        }
        text = more;
    }
    has_freedom(&text)
}

fn decoded(text: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(text).collect()
}

/// Steps up, backslashes, controls.
fn has_freedom(text: &[u8]) -> bool {
    let up = |segment: &[u8]| segment.split(|byte| *byte == b';').next() == Some(b"..");
    text.iter().any(|byte| *byte < b' ' || matches!(byte, b'\\' | 0x7f))
        || text.split(|byte| *byte == b'/').any(up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_no_key_holds_are_removed_in_every_spelling() {
        assert!(NAMES.is_sorted(), "they are searched for");
        for name in NAMES {
            assert!(is_unkeyed(name) && is_unkeyed(&name.replace('-', "_")), "{name}");
        }
        for name in ["x", "x-forwarded-fo", "x-forwarded-for2", "accept", "cookie", "xhost"] {
            assert!(!is_unkeyed(name), "{name}");
        }
    }

    #[test]
    fn an_answer_for_one_origin_varies_by_it() {
        let rows = [
            (None, None, ""),
            (Some("*"), None, ""),
            (Some("http://a"), None, "Origin"),
            (Some("null"), None, "Origin"),
            (Some("http://a"), Some("origin"), "origin"),
            (Some("http://a"), Some("Accept,\tORIGIN"), "Accept,\tORIGIN"),
            (Some("http://a"), Some("*"), "*"),
            (Some("http://a"), Some("Accept"), "Accept,Origin"),
        ];
        for (allowed, vary, want) in rows {
            let mut answer = HeaderMap::new();
            if let Some(allowed) = allowed {
                let allowed = HeaderValue::from_static(allowed);
                answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            }
            if let Some(vary) = vary {
                answer.insert(header::VARY, HeaderValue::from_static(vary));
            }
            vary_by_origin(&mut answer);
            let lines: Vec<_> =
                answer.get_all(header::VARY).iter().map(|line| line.to_str().unwrap()).collect();
            assert_eq!(lines.join(","), want, "{allowed:?} {vary:?}");
        }
    }

    #[test]
    fn a_path_that_may_be_another_is_ambiguous() {
        let rows = [
            ("/a/b.css", false),
            ("/a%2Fb", false),
            ("/a..b/c", false),
            ("/...", false),
            ("/a;x=..", false),
            ("/a%20b", false),
            ("/100%", false),
            ("/a/../b", false),
            ("/..", false),
            ("/a/..;x/b", true),
            ("/a/%2e%2E/b", false),
            ("/a/..%2fb", true),
            ("/a%2f..%2fb", true),
            ("/a/%252e%252e%252fb", true),
            ("/a\\b", true),
            ("/a%5cb", true),
            ("/a%00b", true),
            ("/a%250ab", true),
        ];
        for (path, want) in rows {
            assert_eq!(is_ambiguous(path), want, "{path}");
        }
    }
}
