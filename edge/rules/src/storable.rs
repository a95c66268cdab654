//! May this response be stored (§3)? If not, why.
//!
//! Answers for a shared cache that keeps whole responses to GET; HEAD is answered from them.

use std::fmt;

use http::header::{AUTHORIZATION, SET_COOKIE};
use http::{HeaderName, Method, StatusCode};

use crate::cache_control::{CacheControl, RequestDirectives};
use crate::exchange::{RequestView, ResponseView};
use crate::policy::Policy;

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStorable {
    /// A rule of the site says so.
    Rule,
    /// The request was not a GET.
    Method,
    /// The status is not final, is a 304, or needs a stated lifetime that is missing.
    Status,
    /// A part of a representation (206).
    Partial,
    /// `must-understand`, with a status that this cache does not (§5.2.2.3).
    MustUnderstand,
    /// `no-store` in the response.
    NoStore,
    /// `no-store` in the request, where the site obeys it.
    RequestNoStore,
    /// `private` (§5.2.2.7).
    Private,
    /// The request had `Authorization` and the response does not allow sharing (§3.5).
    Authorization,
    /// An error that speaks of the request that provoked it, where the site does not store these.
    Provoked,
    /// `Set-Cookie`, where the site does not store it.
    SetCookie,
    /// `Vary: *`: no request would ever match.
    VaryAny,
    /// No lifetime, no ground for one, and no validator to ask with.
    NoLifetime,
    /// Only to be reused after validation, and nothing to validate with.
    NoValidator,
}

impl NotStorable {
    /// The word for `Cache-Status`, the metric label and the log.
    pub fn token(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Method => "method",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::MustUnderstand => "must-understand",
            Self::NoStore => "no-store",
            Self::RequestNoStore => "request-no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::Provoked => "provoked",
            Self::SetCookie => "set-cookie",
            Self::VaryAny => "vary-any",
            Self::NoLifetime => "no-lifetime",
            Self::NoValidator => "no-validator",
        }
    }
}

impl fmt::Display for NotStorable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

impl std::error::Error for NotStorable {}

/// What forbids storing `response` whatever its lifetime; `said` is what its governing field says.
pub fn permitted(
    request: &RequestView<'_>,
    response: &ResponseView<'_>,
    said: &CacheControl,
    policy: &Policy,
) -> Result<(), NotStorable> {
    if policy.ruled.bypass {
        return Err(NotStorable::Rule);
    }
    if *request.method != Method::GET {
        return Err(NotStorable::Method);
    }
    if policy.honour_client_directives && RequestDirectives::of(request.headers).no_store {
        return Err(NotStorable::RequestNoStore);
    }
    match response.status {
        StatusCode::PARTIAL_CONTENT => return Err(NotStorable::Partial),
        StatusCode::NOT_MODIFIED => return Err(NotStorable::Status),
        status if status.as_u16() < 200 || status.as_u16() > 599 => {
            return Err(NotStorable::Status);
        }
        status
            if is_provoked(status)
                && !policy.store_provoked_errors
                && policy.negative.lifetime(status).is_none() =>
        {
            return Err(NotStorable::Provoked);
        }
        _ => {}
    }
    allowed(said, response.status, request.headers.contains_key(AUTHORIZATION))?;
    let sets_cookie = response.headers.contains_key(SET_COOKIE) && !is_withheld(&SET_COOKIE, said);
    if sets_cookie && !policy.store_set_cookie {
        return Err(NotStorable::SetCookie);
    }
    Ok(())
}

/// What the directives allow; `authorized` says whether the request had `Authorization`.
pub(crate) fn allowed(
    said: &CacheControl,
    status: StatusCode,
    authorized: bool,
) -> Result<(), NotStorable> {
    let understood = is_understood(status);
    let shareable = said.public || said.must_revalidate || said.s_maxage.is_some(); // §3.5
    match () {
        () if said.must_understand && !understood => Err(NotStorable::MustUnderstand),
        // §5.2.2.3: who understands the status ignores the no-store that is meant for the others.
        () if said.no_store && !said.must_understand => Err(NotStorable::NoStore),
        () if said.private.is_everything() => Err(NotStorable::Private),
        () if authorized && !shareable => Err(NotStorable::Authorization),
        () => Ok(()),
    }
}

/// Whether an error is about the fields, the body or the pace of the one request that met it. What
/// is about the target (404, 410, 414), the method (405, 501) or who may (401, 403) is not among them.
fn is_provoked(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        400 | 408 | 411..=413 | 415..=417 | 421 | 422 | 425 | 426 | 428 | 429 | 431
    )
}

/// Whether `no-cache="..."` or `private="..."` names the field, which is then not stored.
fn is_withheld(name: &HeaderName, said: &CacheControl) -> bool {
    said.no_cache.fields().contains(name) || said.private.fields().contains(name)
}

/// The final statuses of RFC 9110 §15 and their kin whose demands on caches are met here.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 428 | 429 | 431
            | 451 | 500..=505 | 511
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;

    use super::*;
    use crate::fixtures::{exchange_at, headers, store, store_for};
    use crate::policy::Negative;
    use crate::stored::StoredHead;

    fn why(outcome: Result<StoredHead, NotStorable>) -> Result<(), NotStorable> {
        outcome.map(|_head| ())
    }

    #[test]
    fn directives_decide_before_lifetimes_do() {
        use NotStorable::{
            MustUnderstand, NoLifetime, NoStore, NoValidator, Private, SetCookie, VaryAny,
        };
        let rows = [
            // response, in `cdn`, in `rfc`
            ("Cache-Control: max-age=60", Ok(()), Ok(())),
            ("Cache-Control: no-store, max-age=60", Err(NoStore), Err(NoStore)),
            ("Cache-Control: private, max-age=60", Err(Private), Err(Private)),
            ("Cache-Control: private=\"x\", max-age=60", Ok(()), Ok(())), // §5.2.2.7
            ("Cache-Control: no-store, must-understand, max-age=60", Ok(()), Ok(())),
            ("Cache-Control: max-age=60\nSet-Cookie: a=1", Err(SetCookie), Ok(())), // §7.3
            ("Cache-Control: max-age=60, no-cache=\"set-cookie\"\nSet-Cookie: a", Ok(()), Ok(())),
            ("Cache-Control: max-age=60, private=\"Set-Cookie\"\nSet-Cookie: a", Ok(()), Ok(())),
            ("Cache-Control: max-age=60\nVary: *", Err(VaryAny), Err(VaryAny)),
            ("Expires: @60", Ok(()), Ok(())),
            ("Last-Modified: @-60", Ok(()), Ok(())),
            ("ETag: \"a\"", Ok(()), Ok(())),
            ("", Err(NoLifetime), Err(NoLifetime)),
            ("Cache-Control: public", Err(NoLifetime), Err(NoLifetime)),
            // Only good for validation, and good for that:
            ("Cache-Control: no-cache\nETag: \"a\"", Ok(()), Ok(())),
            ("Cache-Control: max-age=0\nETag: \"a\"", Ok(()), Ok(())),
            ("Cache-Control: no-cache, max-age=60", Err(NoValidator), Err(NoValidator)),
            ("Cache-Control: max-age=0, must-revalidate", Err(NoValidator), Err(NoValidator)),
            ("Cache-Control: s-maxage=0", Err(NoValidator), Err(NoValidator)),
            // Only good while upstream is away:
            ("Cache-Control: max-age=0", Ok(()), Ok(())),
        ];
        for (response, cdn, rfc) in rows {
            assert_eq!(why(store(response, &Policy::cdn())), cdn, "cdn {response:?}");
            assert_eq!(why(store(response, &Policy::rfc())), rfc, "rfc {response:?}");
        }
        let unknown = "Cache-Control: must-understand, no-store, max-age=60";
        let outcome = store_for("", 599, unknown, &Policy::rfc());
        assert_eq!(why(outcome), Err(MustUnderstand));
    }

    #[test]
    fn an_error_that_one_request_provoked_is_not_for_all_where_the_site_is_careful() {
        for status in [400, 408, 411, 413, 415, 416, 417, 421, 426, 428, 429, 431] {
            let outcome = store_for("", status, "Cache-Control: max-age=60", &Policy::cdn());
            assert_eq!(why(outcome), Err(NotStorable::Provoked), "{status}");
            let outcome = store_for("", status, "Cache-Control: max-age=60", &Policy::rfc());
            assert_eq!(why(outcome), Ok(()), "{status}: RFC 9111 §3 allows it");
        }
        for status in [403, 404, 405, 410, 414, 451, 500, 501, 503] {
            let outcome = store_for("", status, "Cache-Control: max-age=60", &Policy::cdn());
            assert_eq!(why(outcome), Ok(()), "{status}");
        }
    }

    #[test]
    fn statuses_beyond_the_default_ones_need_a_stated_lifetime() {
        let rows = [
            // status, with max-age, with Last-Modified only, with Last-Modified and public
            (200, Ok(()), Ok(()), Ok(())),
            (404, Ok(()), Ok(()), Ok(())),
            (302, Ok(()), Err(NotStorable::Status), Ok(())),
            (503, Ok(()), Err(NotStorable::Status), Ok(())),
            (299, Ok(()), Err(NotStorable::Status), Ok(())), // unknown: §3 does not ask for more
            (599, Ok(()), Err(NotStorable::Status), Ok(())),
            (206, Err(NotStorable::Partial), Err(NotStorable::Partial), Err(NotStorable::Partial)),
            (304, Err(NotStorable::Status), Err(NotStorable::Status), Err(NotStorable::Status)),
            (100, Err(NotStorable::Status), Err(NotStorable::Status), Err(NotStorable::Status)),
            (103, Err(NotStorable::Status), Err(NotStorable::Status), Err(NotStorable::Status)),
            (600, Err(NotStorable::Status), Err(NotStorable::Status), Err(NotStorable::Status)),
            (999, Err(NotStorable::Status), Err(NotStorable::Status), Err(NotStorable::Status)),
        ];
        for (status, stated, modified, public) in rows {
            for policy in [Policy::cdn(), Policy::rfc()] {
                let policy = Policy { negative: Negative::default(), ..policy };
                let outcome = |response| why(store_for("", status, response, &policy));
                assert_eq!(outcome("Cache-Control: max-age=60"), stated, "{status}");
                assert_eq!(outcome("Last-Modified: @-600"), modified, "{status}");
                let marked = "Last-Modified: @-600\nCache-Control: public";
                assert_eq!(outcome(marked), public, "{status}");
            }
        }
    }

    #[test]
    fn a_response_to_authorization_is_shared_only_by_its_three_exceptions() {
        let rows = [
            ("Cache-Control: max-age=60", Err(NotStorable::Authorization)),
            ("Cache-Control: max-age=60, proxy-revalidate", Err(NotStorable::Authorization)),
            ("Cache-Control: max-age=60, public", Ok(())),
            ("Cache-Control: max-age=60, must-revalidate", Ok(())),
            ("Cache-Control: s-maxage=60", Ok(())),
            ("Cache-Control: public, private, max-age=60", Err(NotStorable::Private)),
            ("CDN-Cache-Control: max-age=60, public", Ok(())),
            (
                "CDN-Cache-Control: max-age=60\nCache-Control: public",
                Err(NotStorable::Authorization),
            ),
        ];
        for (response, want) in rows {
            let outcome = store_for("Authorization: Basic eA==", 200, response, &Policy::rfc());
            assert_eq!(why(outcome), want, "{response:?}");
        }
    }

    #[test]
    fn only_answers_to_get_are_stored() {
        for method in ["HEAD", "POST", "PUT", "OPTIONS", "FOO", "get"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let fields = headers("Cache-Control: max-age=60");
            let outcome = StoredHead::of(
                &RequestView { method: &method, headers: &HeaderMap::new() },
                &ResponseView { status: StatusCode::OK, headers: &fields },
                &Policy::rfc(),
                &exchange_at(0),
            );
            assert_eq!(why(outcome), Err(NotStorable::Method), "{method}");
        }
    }

    #[test]
    fn no_store_in_a_request_counts_where_the_site_obeys_clients() {
        let request = "Cache-Control: no-store";
        let obeying = Policy { honour_client_directives: true, ..Policy::cdn() };
        let outcome =
            |policy: &Policy| why(store_for(request, 200, "Cache-Control: max-age=60", policy));
        assert_eq!(outcome(&Policy::cdn()), Ok(()));
        assert_eq!(outcome(&obeying), Err(NotStorable::RequestNoStore));
    }

    #[test]
    fn a_site_may_give_a_lifetime_to_failures_that_say_nothing() {
        use NotStorable::{Authorization, NoStore, NoValidator, Private, SetCookie, Status};
        let rows = [
            // status, response, in `cdn`, in `rfc`
            (503, "", Ok(1), Err(Status)),
            (404, "", Ok(3), Err(NotStorable::NoLifetime)),
            (404, "Last-Modified: @-600", Ok(60), Ok(60)), // a ground for a heuristic
            (503, "Last-Modified: @-600", Err(Status), Err(Status)),
            (403, "", Err(Status), Err(Status)),
            (503, "Cache-Control: max-age=9", Ok(9), Ok(9)), // what it says wins
            (404, "Cache-Control: s-maxage=0", Err(NoValidator), Err(NoValidator)),
            (404, "Expires: 0", Ok(0), Ok(0)), // good only while upstream is away
            (503, "Cache-Control: no-store", Err(NoStore), Err(NoStore)),
            (503, "Cache-Control: private", Err(Private), Err(Private)),
            (503, "Cache-Control: no-cache", Err(NoValidator), Err(Status)),
            (404, "Set-Cookie: a=b", Err(SetCookie), Err(NotStorable::NoLifetime)),
        ];
        for (status, response, cdn, rfc) in rows {
            for (policy, want) in [(Policy::cdn(), cdn), (Policy::rfc(), rfc)] {
                let got = store_for("", status, response, &policy);
                assert_eq!(got.map(|head| head.lifetime.as_secs()), want, "{status} {response:?}");
            }
        }
        let own = store_for("Authorization: x", 503, "", &Policy::cdn());
        assert_eq!(why(own), Err(Authorization));
        let failed = store_for("", 503, "ETag: \"a\"", &Policy::cdn()).unwrap();
        let limits = [failed.stale_if_error, failed.stale_if_disconnected];
        assert!(limits.iter().all(Duration::is_zero), "an old failure is no better than a new one");
    }
}
