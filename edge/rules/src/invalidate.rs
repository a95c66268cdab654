//! What an unsafe request invalidates (§4.4), and when its answer stands for what a GET would get
//! (RFC 9110 §9.3.3).

use http::header::{CONTENT_ENCODING, CONTENT_LOCATION, HeaderMap, LOCATION};
use http::{Method, StatusCode, Uri};

use crate::exchange::ResponseView;
use crate::list;

/// Whether an answer with `status` to `method` invalidates what is stored: the method is not known
/// to be safe, and the answer is no error.
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// RFC 9110 §9.2.1 and the safe ones of the method registry; names are case-sensitive.
fn is_safe(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "REPORT" | "SEARCH" | "QUERY" | "PRI"
    )
}

/// The URIs to invalidate: the target, and those in `Location` and `Content-Location` if they have
/// the target's origin. `target` must have scheme and authority, else it comes alone.
pub fn invalidated(target: &Uri, response: &HeaderMap) -> Vec<Uri> {
    let mut uris = vec![target.clone()];
    for name in [LOCATION, CONTENT_LOCATION] {
        let reference = list::only(response, &name).and_then(|line| line.to_str().ok());
        let resolved = reference.and_then(|reference| resolve(target, reference));
        if let Some(uri) = resolved.filter(|uri| is_same_origin(uri, target))
            && !uris.contains(&uri)
        {
            uris.push(uri);
        }
    }
    uris
}

/// Whether the answer to a POST to `target` says that it is what a GET of the same would get
/// (RFC 9110 §9.3.3). It may be stored for one then, if it states a lifetime.
///
/// Of statuses only 200: others say something of the POST itself. Of content codings only those
/// that `Vary` tells apart.
pub fn stands_for_get(target: &Uri, response: &ResponseView<'_>) -> bool {
    let here = list::only(response.headers, &CONTENT_LOCATION).and_then(|line| line.to_str().ok());
    let here = here.and_then(|reference| resolve(target, reference));
    let is_here = here.is_some_and(|uri| {
        is_same_origin(&uri, target) && uri.path() == target.path() && uri.query() == target.query()
    });
    let coding = response.headers.get(CONTENT_ENCODING);
    let told_apart = coding.is_none_or(|coding| {
        let known = [&b"gzip"[..], b"br", b"zstd", b"identity"];
        known.iter().any(|known| coding.as_bytes().eq_ignore_ascii_case(known))
    });
    response.status == StatusCode::OK && is_here && told_apart
}

/// Scheme, host and port are equal (RFC 9110 §4.3.1).
fn is_same_origin(one: &Uri, other: &Uri) -> bool {
    let scheme = one.scheme_str().unwrap_or_default();
    let host = one.host().unwrap_or_default();
    !host.is_empty()
        && scheme.eq_ignore_ascii_case(other.scheme_str().unwrap_or_default())
        && host.eq_ignore_ascii_case(other.host().unwrap_or_default())
        && port(one) == port(other)
}

fn port(uri: &Uri) -> Option<u16> {
    uri.port_u16().or(match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        Some(_) | None => None,
    })
}

/// Resolves a reference against `base` (RFC 3986 §5.2). `None` if the result is no URI.
fn resolve(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default().trim();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let absolute = if has_scheme(reference) {
        reference.to_owned()
    } else if reference.starts_with("//") {
        format!("{scheme}:{reference}")
    } else {
        let path = match reference.as_bytes().first() {
            None => base.path_and_query()?.as_str().to_owned(),
            Some(b'/') => reference.to_owned(),
            Some(b'?') => format!("{}{reference}", base.path()),
            Some(_) => {
                let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
                format!("{folder}/{reference}")
            }
        };
        format!("{scheme}://{authority}{path}")
    };
    let parsed: Uri = absolute.parse().ok()?;
    let path = without_dot_segments(parsed.path());
    let path = match parsed.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = parsed.into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// A scheme stands before the first `:`, and nothing of a path does.
fn has_scheme(reference: &str) -> bool {
    reference.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

/// RFC 3986 §5.2.4, for a path that starts with `/`.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::headers;

    #[test]
    fn an_unsafe_method_that_succeeds_invalidates() {
        let rows = [
            ("POST", 200, true),
            ("PUT", 204, true),
            ("DELETE", 302, true),
            ("PATCH", 399, true),
            ("FOO", 200, true), // §4.4: safety unknown
            ("get", 200, true), // another method than GET
            ("POST", 400, false),
            ("POST", 500, false),
            ("POST", 100, false),
            ("GET", 200, false),
            ("HEAD", 200, false),
            ("OPTIONS", 200, false),
            ("TRACE", 200, false),
            ("PROPFIND", 207, false),
        ];
        for (method, status, want) in rows {
            let parsed = Method::from_bytes(method.as_bytes()).unwrap();
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(invalidates(&parsed, status), want, "{method} {status}");
        }
    }

    #[test]
    fn locations_of_the_same_origin_are_invalidated_too() {
        let target: Uri = "http://example.org/a/b?q".parse().unwrap();
        let rows: [(&str, &[&str]); 20] = [
            ("", &[]),
            ("Location: /c", &["http://example.org/c"]),
            ("Location: c?x#y", &["http://example.org/a/c?x"]),
            ("Location: ../c", &["http://example.org/c"]),
            ("Location: ../../../c/./d/..", &["http://example.org/c/"]),
            ("Location: ?z", &["http://example.org/a/b?z"]),
            ("Location: .", &["http://example.org/a/"]),
            ("Location: a:b", &[]), // a scheme, not a path
            ("Location: /a:b", &["http://example.org/a:b"]),
            ("Location: http://EXAMPLE.org:80/c", &["http://EXAMPLE.org:80/c"]),
            ("Location: //example.org/c", &["http://example.org/c"]),
            ("Location: http://example.org", &["http://example.org/"]),
            ("Content-Location: /d", &["http://example.org/d"]),
            (
                "Location: /c\nContent-Location: /d",
                &["http://example.org/c", "http://example.org/d"],
            ),
            ("Location: /a/b?q", &[]),
            ("Location: http://other.org/c", &[]),
            ("Location: https://example.org/c", &[]),
            ("Location: http://example.org:81/c", &[]),
            ("Location: /c\nLocation: /d", &[]),
            ("Location: http://exa mple/", &[]),
        ];
        for (response, more) in rows {
            let got = invalidated(&target, &headers(response));
            let got = got.iter().map(Uri::to_string).collect::<Vec<_>>();
            assert_eq!(got.first().map(String::as_str), Some("http://example.org/a/b?q"));
            assert_eq!(got[1..], *more, "{response:?}");
        }
    }

    #[test]
    fn an_answer_stands_for_a_get_if_it_says_that_it_is_what_is_here() {
        let target: Uri = "http://example.org/a/b?q".parse().unwrap();
        let rows = [
            (200, "Content-Location: /a/b?q", true),
            (200, "Content-Location: b?q", true),
            (200, "Content-Location: http://EXAMPLE.org:80/a/b?q", true),
            (200, "Content-Location:", true), // the empty reference is the target itself
            (200, "Content-Location: /a/b?q\nContent-Encoding: GZIP", true),
            (200, "Content-Location: /a/b?q\nContent-Encoding: deflate", false),
            (200, "Content-Location: /a/b", false),
            (200, "Content-Location: /a/c?q", false),
            (200, "Content-Location: https://example.org/a/b?q", false),
            (200, "Content-Location: http://other.org/a/b?q", false),
            (200, "Content-Location: /a/b?q\nContent-Location: /a/b?q", false),
            (200, "", false),
            (201, "Content-Location: /a/b?q", false),
            (303, "Content-Location: /a/b?q", false),
            (500, "Content-Location: /a/b?q", false),
        ];
        for (status, response, want) in rows {
            let (status, headers) = (StatusCode::from_u16(status).unwrap(), headers(response));
            let view = ResponseView { status, headers: &headers };
            assert_eq!(stands_for_get(&target, &view), want, "{status} {response:?}");
        }
    }
}
