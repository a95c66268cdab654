//! Which request may be sent more than once, and how it is written again.

use http::{HeaderMap, HeaderName, Method, Request};

use crate::request_body::RequestBody;

/// What makes a request that is not idempotent one that its origin executes once.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Whether sending it twice has the effect of sending it once (RFC 9110 §9.2.2): by its method, or
/// because its origin tells the repetition by a key.
pub(crate) fn is_repeatable(method: &Method, fields: &HeaderMap) -> bool {
    let by_method =
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
    by_method.contains(method) || fields.contains_key(IDEMPOTENCY_KEY)
}

/// The same request once more; `None` where its body cannot be sent again.
pub(crate) fn again(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    let mut again = Request::new(request.body().again()?);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone(); // who hears of interim responses
    Some(again)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_repeatable_by_its_method_or_by_a_key() {
        let rows = [
            ("GET", true),
            ("HEAD", true),
            ("OPTIONS", true),
            ("TRACE", true),
            ("PUT", true),
            ("DELETE", true),
            ("POST", false),
            ("PATCH", false),
            ("PURGE", false), // whatever it may mean at that origin
        ];
        for (method, want) in rows {
            let method: Method = method.parse().unwrap();
            let mut fields = HeaderMap::new();
            assert_eq!(is_repeatable(&method, &fields), want, "{method}");
            fields.insert(IDEMPOTENCY_KEY, "\"k\"".parse().unwrap());
            assert!(is_repeatable(&method, &fields), "{method} with a key");
        }
    }
}
