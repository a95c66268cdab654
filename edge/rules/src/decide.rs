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
    let reuse = reuse(head, &wishes.heard, policy, now);
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
