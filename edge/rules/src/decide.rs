//! What to do with one request (§4).
//!
//! Does not look anything up and does not send anything: the caller brings what its store holds
//! under the key and carries out the decision.
//!
//! # Invariants
//! - Nothing is served past its lifetime plus a grant of [`crate::reusable`].
//! - For a GET without `Cache-Control` and a fresh stored response, nothing is allocated.

use std::time::Duration;

use http::Method;
use http::header::CACHE_CONTROL;

use crate::cache_control::RequestDirectives;
use crate::exchange::RequestView;
use crate::policy::Policy;
use crate::reusable;
use crate::stored::StoredHead;
use crate::time::Now;

/// What the store holds for a request. `S` is the caller's stored response.
#[derive(Clone, Debug)]
pub enum Lookup<S> {
    /// Nothing under the key.
    UriMiss,
    /// Something, but no variant that [`reusable::select`] would choose.
    VaryMiss,
    /// The variant to use.
    Found(S),
}

/// What to do. `S` is handed back only where it may be used.
#[derive(Clone, Debug)]
pub enum Decision<S> {
    /// Answer from the store.
    Serve {
        /// The stored response.
        stored: S,
        /// Its age, for `Age`.
        age: Duration,
        /// What is left of its lifetime, for `Cache-Status`.
        ttl: i64,
        /// What to fetch in the background meanwhile (RFC 5861 §3).
        revalidate: Option<Forward<S>>,
    },
    /// Ask upstream.
    Forward(Forward<S>),
    /// 504: the client wants an answer from the store or none (`only-if-cached`, §5.2.1.7).
    Unsatisfiable,
}

/// How to ask upstream.
#[derive(Clone, Debug)]
pub struct Forward<S> {
    /// Why the store did not do.
    pub why: Fwd,
    /// The stored response whose validators go along, if it has any.
    pub validate: Option<S>,
    /// The stored response to fall back on: ask
    /// [`may_serve_stale_on_error`](reusable::may_serve_stale_on_error) or
    /// [`may_serve_when_disconnected`](reusable::may_serve_when_disconnected) once it has failed.
    pub stale: Option<S>,
    /// The request allows storing the answer, and sharing the exchange with others.
    pub store: bool,
}

/// Why a request went forward (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fwd {
    /// The cache is configured not to handle it.
    Bypass,
    /// The method demands it.
    Method,
    /// Nothing stored under the URI.
    UriMiss,
    /// Nothing stored that `Vary` selects.
    VaryMiss,
    /// Nothing usable stored, for any other reason.
    Miss,
    /// The request's directives demand it.
    Request,
    /// What is stored is stale, or needs validation.
    Stale,
    /// What is stored is a part, and not the one asked for.
    Partial,
}

impl Fwd {
    /// The word of RFC 9211, for `Cache-Status`, the metric label and the log.
    pub fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// Decides what to do with `request`, given what the store holds.
pub fn decide<S: AsRef<StoredHead> + Clone>(
    request: &RequestView<'_>,
    lookup: Lookup<S>,
    policy: &Policy,
    now: Now,
) -> Decision<S> {
    decide_by(reuse, request, lookup, policy, now)
}

/// The same where the cache cannot trust what it holds: nothing of it is used before it has been
/// validated.
pub fn decide_doubting<S: AsRef<StoredHead> + Clone>(
    request: &RequestView<'_>,
    lookup: Lookup<S>,
    policy: &Policy,
    now: Now,
) -> Decision<S> {
    decide_by(doubt, request, lookup, policy, now)
}

fn decide_by<S: AsRef<StoredHead> + Clone>(
    judge: impl FnOnce(&StoredHead, &RequestDirectives, &Policy, Now) -> Reuse,
    request: &RequestView<'_>,
    lookup: Lookup<S>,
    policy: &Policy,
    now: Now,
) -> Decision<S> {
    let wishes = Wishes::of(request, policy);
    let is_get = *request.method == Method::GET;
    let store = is_get && !wishes.heard.no_store; // only a GET brings a body to store
    if !is_get && *request.method != Method::HEAD {
        return wishes.forward(Forward { why: Fwd::Method, validate: None, stale: None, store });
    }
    let stored = match lookup {
        Lookup::Found(stored) => stored,
        Lookup::UriMiss => {
            return wishes.forward(Forward {
                why: Fwd::UriMiss,
                validate: None,
                stale: None,
                store,
            });
        }
        Lookup::VaryMiss => {
            return wishes.forward(Forward {
                why: Fwd::VaryMiss,
                validate: None,
                stale: None,
                store,
            });
        }
    };
    let head = stored.as_ref();
    let reuse = judge(head, &wishes.heard, policy, now);
    let forward = |why| Forward {
        why,
        validate: (!head.validators.is_empty()).then(|| stored.clone()),
        stale: (!head.no_cache && !wishes.heard.no_cache).then(|| stored.clone()),
        store,
    };
    let revalidate = match reuse {
        Reuse::Yes => None,
        Reuse::WhileRevalidate => Some(forward(Fwd::Stale)),
        Reuse::No(why) => return wishes.forward(forward(why)),
    };
    let (age, ttl) = (head.current_age(now), head.ttl(now));
    Decision::Serve { age, ttl, revalidate, stored }
}

/// What the client wishes.
struct Wishes {
    /// Of these, what the site obeys.
    heard: RequestDirectives,
    /// Always obeyed.
    only_if_cached: bool,
}

impl Wishes {
    fn of(request: &RequestView<'_>, policy: &Policy) -> Self {
        if !policy.honour_client_directives && !request.headers.contains_key(CACHE_CONTROL) {
            return Self { heard: RequestDirectives::default(), only_if_cached: false };
        }
        let said = RequestDirectives::of(request.headers);
        let heard =
            if policy.honour_client_directives { said } else { RequestDirectives::default() };
        Self { heard, only_if_cached: said.only_if_cached }
    }

    fn forward<S>(&self, forward: Forward<S>) -> Decision<S> {
        if self.only_if_cached { Decision::Unsatisfiable } else { Decision::Forward(forward) }
    }
}

enum Reuse {
    Yes,
    WhileRevalidate,
    No(Fwd),
}

/// What is fresh is not: it needs validation.
fn doubt(head: &StoredHead, heard: &RequestDirectives, policy: &Policy, now: Now) -> Reuse {
    match reuse(head, heard, policy, now) {
        Reuse::Yes | Reuse::WhileRevalidate => Reuse::No(Fwd::Stale),
        Reuse::No(why) => Reuse::No(why),
    }
}

fn reuse(head: &StoredHead, heard: &RequestDirectives, policy: &Policy, now: Now) -> Reuse {
    if heard.no_cache {
        return Reuse::No(Fwd::Request);
    }
    let age = head.current_age(now);
    if reusable::may_serve_fresh(head, now) {
        // RFC 8246 §2: no validation of what does not change, unless `no-cache` insists.
        let too_old = heard.max_age.is_some_and(|limit| age > limit) && !head.immutable;
        let left = head.lifetime.saturating_sub(age);
        let too_short = heard.min_fresh.is_some_and(|needed| left < needed);
        return if too_old || too_short { Reuse::No(Fwd::Request) } else { Reuse::Yes };
    }
    // §5.2.1.1: who sets max-age, or min-fresh, takes nothing stale unless max-stale says so.
    let too_old = heard.max_age.is_some_and(|limit| age > limit);
    let max_stale = heard.max_stale.filter(|_| !too_old && heard.min_fresh.is_none());
    if max_stale.is_some_and(|limit| reusable::may_serve_max_stale(head, limit, policy, now)) {
        return Reuse::Yes;
    }
    let picky = heard.max_age.is_some() || heard.min_fresh.is_some();
    if !picky && reusable::may_serve_while_revalidate(head, policy, now) {
        return Reuse::WhileRevalidate;
    }
    Reuse::No(Fwd::Stale)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::fixtures::{at, headers, store};

    fn found(response: &str, policy: &Policy) -> Lookup<StoredHead> {
        Lookup::Found(store(response, policy).unwrap())
    }

    /// The decision in a few words: `serve`, `serve+revalidate`, `504`, or the token of `fwd` with
    /// what goes along (`v` validators, `s` stale to fall back on, `+` may be stored).
    fn words(decision: &Decision<StoredHead>) -> String {
        let forward = |forward: &Forward<StoredHead>| {
            let mark = |set: bool, mark| if set { mark } else { "" };
            let (validate, stale) = (forward.validate.is_some(), forward.stale.is_some());
            let marks = [mark(validate, "v"), mark(stale, "s"), mark(forward.store, "+")];
            format!("{} {}", forward.why.token(), marks.concat())
        };
        match decision {
            Decision::Serve { revalidate: None, .. } => "serve".into(),
            Decision::Serve { revalidate: Some(f), .. } => format!("serve, {}", forward(f)),
            Decision::Forward(f) => forward(f),
            Decision::Unsatisfiable => "504".into(),
        }
    }

    fn decided(request: &str, response: &str, second: u64, policy: &Policy) -> String {
        let fields = headers(request);
        let view = RequestView { method: &Method::GET, headers: &fields };
        words(&decide(&view, found(response, policy), policy, at(second)))
    }

    #[test]
    fn what_is_fresh_is_served_and_what_is_stale_is_asked_for() {
        let rows = [
            // response, second, decision
            ("Cache-Control: max-age=60", 0, "serve"),
            ("Cache-Control: max-age=60", 59, "serve"),
            ("Cache-Control: max-age=60", 60, "stale s+"),
            ("Cache-Control: max-age=60\nETag: \"a\"", 60, "stale vs+"),
            ("Cache-Control: max-age=60\nAge: 60", 0, "stale s+"),
            ("Cache-Control: max-age=60\nDate: @-60", 0, "stale s+"),
            ("Cache-Control: no-cache, max-age=60\nETag: \"a\"", 0, "stale v+"),
            ("Last-Modified: @-1000", 99, "serve"),
            ("Last-Modified: @-1000", 100, "stale vs+"),
            ("ETag: \"a\"", 0, "stale vs+"),
            ("Cache-Control: max-age=9, stale-while-revalidate=5", 9, "serve, stale s+"),
            ("Cache-Control: max-age=9, stale-while-revalidate=5", 14, "stale s+"),
            ("Cache-Control: max-age=0, stale-while-revalidate=5", 0, "serve, stale s+"),
            (
                "Cache-Control: max-age=9, stale-while-revalidate=5, no-cache\nETag: \"a\"",
                9,
                "stale v+",
            ),
        ];
        for (response, second, want) in rows {
            let got = decided("", response, second, &Policy::cdn());
            assert_eq!(got, want, "{response:?} at {second}");
        }
    }

    #[test]
    fn a_cache_that_doubts_uses_nothing_without_asking_and_keeps_what_may_stand_in() {
        let rows = [
            // request, response, second, decision
            ("", "Cache-Control: max-age=60\nETag: \"a\"", 0, "stale vs+"),
            ("", "Cache-Control: max-age=60", 0, "stale s+"),
            ("", "Cache-Control: max-age=9, stale-while-revalidate=5\nETag: \"a\"", 9, "stale vs+"),
            ("", "Cache-Control: max-age=60, immutable\nETag: \"a\"", 0, "stale vs+"),
            ("", "Cache-Control: no-cache, max-age=60\nETag: \"a\"", 0, "stale v+"),
            ("Cache-Control: only-if-cached", "Cache-Control: max-age=60", 0, "504"),
            ("Cache-Control: max-stale", "Cache-Control: max-age=60\nETag: \"a\"", 70, "stale vs+"),
            ("Cache-Control: no-cache", "Cache-Control: max-age=60\nETag: \"a\"", 0, "request v+"),
        ];
        let policy = Policy { honour_client_directives: true, ..Policy::cdn() };
        for (request, response, second, want) in rows {
            let fields = headers(request);
            let view = RequestView { method: &Method::GET, headers: &fields };
            let decision = decide_doubting(&view, found(response, &policy), &policy, at(second));
            assert_eq!(words(&decision), want, "{request:?} {response:?} at {second}");
        }
        let fields = HeaderMap::new();
        let view = RequestView { method: &Method::HEAD, headers: &fields };
        let lookup = found("Cache-Control: max-age=60", &policy);
        assert_eq!(words(&decide_doubting(&view, lookup, &policy, at(0))), "stale s");
    }

    #[test]
    fn what_is_served_comes_with_its_age_and_what_is_left() {
        let fields = HeaderMap::new();
        let view = RequestView { method: &Method::HEAD, headers: &fields };
        let lookup = found("Cache-Control: max-age=60\nAge: 7", &Policy::cdn());
        match decide(&view, lookup, &Policy::cdn(), at(12)) {
            Decision::Serve { age, ttl, .. } => assert_eq!((age.as_secs(), ttl), (19, 41)),
            other @ (Decision::Forward(_) | Decision::Unsatisfiable) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_miss_says_which_and_only_a_get_is_stored() {
        let rows = [
            ("GET", Lookup::UriMiss, "uri-miss +"),
            ("HEAD", Lookup::UriMiss, "uri-miss "),
            ("GET", Lookup::VaryMiss, "vary-miss +"),
            ("POST", Lookup::UriMiss, "method "),
            ("POST", found("Cache-Control: max-age=60", &Policy::cdn()), "method "),
            ("FOO", Lookup::VaryMiss, "method "),
            ("HEAD", found("Cache-Control: max-age=60", &Policy::cdn()), "serve"),
        ];
        for (method, lookup, want) in rows {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let fields = HeaderMap::new();
            let view = RequestView { method: &method, headers: &fields };
            let got = words(&decide(&view, lookup, &Policy::cdn(), at(0)));
            assert_eq!(got, want, "{method}");
        }
    }

    #[test]
    fn only_if_cached_is_always_obeyed_and_nothing_else_unless_the_site_says_so() {
        let fresh = "Cache-Control: max-age=60\nETag: \"a\"";
        let rows = [
            // request, second, where clients are not obeyed, where they are
            ("", 10, "serve", "serve"),
            ("Cache-Control: only-if-cached", 10, "serve", "serve"),
            ("Cache-Control: only-if-cached", 60, "504", "504"),
            ("Cache-Control: no-cache", 10, "serve", "request v+"),
            ("Pragma: no-cache", 10, "serve", "request v+"),
            ("Cache-Control: no-cache, only-if-cached", 10, "serve", "504"),
            ("Cache-Control: no-store", 10, "serve", "serve"),
            ("Cache-Control: no-store", 60, "stale vs+", "stale vs"),
            ("Cache-Control: max-age=10", 10, "serve", "serve"),
            ("Cache-Control: max-age=9", 10, "serve", "request vs+"),
            ("Cache-Control: max-age=x", 10, "serve", "request vs+"),
            ("Cache-Control: min-fresh=50", 10, "serve", "serve"),
            ("Cache-Control: min-fresh=51", 10, "serve", "request vs+"),
            ("Cache-Control: max-stale=5", 64, "stale vs+", "serve"),
            ("Cache-Control: max-stale=5", 65, "stale vs+", "stale vs+"),
            ("Cache-Control: max-stale", 3600, "stale vs+", "serve"),
            ("Cache-Control: max-stale=5, max-age=1", 62, "stale vs+", "stale vs+"),
            ("Cache-Control: max-stale=5, max-age=62", 62, "stale vs+", "serve"),
            ("Cache-Control: max-stale=5, min-fresh=1", 62, "stale vs+", "stale vs+"),
        ];
        let deaf = Policy::cdn();
        let obeying = Policy { honour_client_directives: true, ..Policy::cdn() };
        for (request, second, ignored, heard) in rows {
            assert_eq!(decided(request, fresh, second, &deaf), ignored, "{request:?} at {second}");
            assert_eq!(decided(request, fresh, second, &obeying), heard, "{request:?} at {second}");
        }
    }

    #[test]
    fn only_if_cached_refuses_every_way_forward() {
        let fields = headers("Cache-Control: only-if-cached");
        for (method, lookup) in [
            (Method::GET, Lookup::UriMiss),
            (Method::GET, Lookup::VaryMiss),
            (Method::HEAD, Lookup::<StoredHead>::UriMiss),
            (Method::POST, Lookup::UriMiss),
        ] {
            let view = RequestView { method: &method, headers: &fields };
            assert_eq!(words(&decide(&view, lookup, &Policy::rfc(), at(0))), "504", "{method}");
        }
    }

    #[test]
    fn what_needs_validation_is_not_served_to_the_most_patient_client() {
        let policy = Policy { honour_client_directives: true, ..Policy::cdn() };
        let response = "Cache-Control: no-cache, max-age=9\nETag: \"a\"";
        for second in [0, 9, 20] {
            let got = decided("Cache-Control: max-stale", response, second, &policy);
            assert_eq!(got, "stale v+", "at {second}");
        }
    }

    #[test]
    fn immutable_spares_validation_at_a_reload_but_not_at_a_forced_one() {
        let policy = Policy { honour_client_directives: true, ..Policy::cdn() };
        let immutable = "Cache-Control: max-age=60, immutable\nETag: \"a\"";
        let rows = [
            ("Cache-Control: max-age=0", 10, "serve"), // RFC 8246 §2
            ("Cache-Control: no-cache", 10, "request v+"),
            ("Cache-Control: max-age=0", 60, "stale vs+"), // no longer fresh
        ];
        for (request, second, want) in rows {
            assert_eq!(decided(request, immutable, second, &policy), want, "{request:?}");
        }
    }

    #[test]
    fn a_client_that_is_picky_and_heard_gets_nothing_stale() {
        let policy = Policy { honour_client_directives: true, ..Policy::cdn() };
        let response = "Cache-Control: max-age=9, stale-while-revalidate=5";
        for request in ["Cache-Control: max-age=60", "Cache-Control: min-fresh=0"] {
            assert_eq!(decided(request, response, 10, &policy), "stale s+", "{request:?}");
        }
    }
}
